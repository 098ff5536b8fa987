"""Item walk: ranks items by the visitors that they share with the history's items (RP3β: Paudel et al., TiiS 2016).

The weight of item j next to item i, where n_i and n_j are numbers of training visitors of an item, and n_u is the
number of items of a visitor:

    W_ij = n_i ** -item_power × n_j ** -neighbour_power × Σ of n_u ** -visitor_power over the visitors u of both

A visitor's score of j is the sum of W_ij over the items i of their history, the latest with the highest weight. Nothing
is learnt by gradients: `solver=count` computes the tables, see `training.count`.

Shapes: B queries, H history, L latest entries of it, E entries of all queries, T training timelines, I items of the
vocabulary, N neighbours of an item.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from common.report.diagram_box import DiagramBox
from contract.schema import Vocabulary
from trainer.config.models import WalkConfig, WalkPowers
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.models.description import KNOWN_BY_HISTORY, NEW_ITEMS_RANK_LAST, ModelDescription, TableShapes, table_box
from trainer.models.interface import Queries
from trainer.models.item_products import largest_products
from trainer.models.table_rows import CountedRows, TableRows, check_item_indices, index_names
from trainer.models.table_variables import HOST, fill, make_variable
from trainer.runs.checkpoint import Weights


class WalkRows(NamedTuple):
    """The neighbours of n items; an item with fewer than N has weights of 0 in the last columns."""

    neighbour: np.ndarray
    """[n, N] float32 item indices, ascending."""
    weight: np.ndarray
    """[n, N] float32."""
    total_weight: float
    """Sum of the weights of all neighbours of these items, including those that are not among the N."""


def table_rows(model: WalkConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies two tables with a row per item and N columns: neighbours and weights; see `models.build.ModelFile`.

    Raises:
      ValueError: there are too many items.
    """
    check_item_indices(dataset, "the walk")
    count = dataset.num_items
    rows = TableRows(count, model.num_neighbours, lambda: index_names(dataset, Vocabulary.ITEMS)[:count])
    return {"neighbour": rows, "weight": rows}


def inference_model(model: WalkConfig, _: RunConfig, dataset: Dataset) -> "WalkInference":
    """Builds the model that ranks; `fill` sets its weights later."""
    return WalkInference(model, dataset.item_counts)


def describe(config: RunConfig, *, has_content: bool) -> ModelDescription:  # noqa: ARG001 (content is not used)
    """Describes the model for its card; see `models.build.DescribedModelFile`."""
    principle = "an item's score is the weighted number of visitors that it shares with the items of the history"
    return ModelDescription(principle, (KNOWN_BY_HISTORY, NEW_ITEMS_RANK_LAST))


def diagram(model: WalkConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    return [
        DiagramBox("history", f"[B, ≤ {model.max_items}]", 0),
        table_box("neighbour", tables, "history"),
        table_box("weight", tables, "history"),
        DiagramBox("weights by age", "[B, H]", 1, ("history",)),
        DiagramBox("sum over the history", "[B, I]", 2, ("neighbour table", "weight table", "weights by age")),
        DiagramBox("score", "[B, I]", 3, ("sum over the history",)),
    ]


def counted_rows(
    model: WalkConfig, baskets: sp.csr_matrix, combination: int, replica: int, num_replicas: int
) -> Iterator[CountedRows]:
    """Yields the neighbours of the items that a replica owns; see `models.build.CountedModelFile`."""
    items = np.arange(replica, baskets.shape[1], num_replicas)
    for rows in walk_rows(baskets, model.combinations[combination], model.num_neighbours, items):
        tables = {"neighbour": rows.neighbour, "weight": rows.weight}
        yield CountedRows(tables, float(rows.weight.sum(dtype=np.float64)), rows.total_weight)


def walk_rows(baskets: sp.csr_matrix, powers: WalkPowers, num_neighbours: int, items: np.ndarray) -> Iterator[WalkRows]:
    """Yields the neighbours of `items` in blocks of consecutive items; an item is a neighbour of itself.

    Ties go to the lower index. An item's neighbours do not depend on the other entries of `items` or on the blocks.

    Args:
      baskets: [T, I], 1 if the timeline contains the item.
      powers: the combination of powers.
      num_neighbours: N.
      items: item indices.
    """
    item_visitors = np.maximum(np.bincount(baskets.indices, minlength=baskets.shape[1]), 1).astype(np.float32)
    visitor_items = np.maximum(np.diff(baskets.indptr), 1).astype(np.float32)
    by_visitor = (sp.diags(visitor_items**-powers.visitor) @ baskets).tocsr()
    by_item = baskets.T.tocsr()[items]
    of_item, of_neighbour = item_visitors[items] ** -powers.item, item_visitors**-powers.neighbour
    total = 0.0

    def rescale(product: sp.csr_matrix, rows: slice) -> None:
        nonlocal total
        product.data *= np.repeat(of_item[rows], np.diff(product.indptr)) * of_neighbour[product.indices]
        total = float(product.data.sum(dtype=np.float64))

    for block in largest_products(by_item, by_visitor, num_neighbours, rescale):
        neighbour, weight = np.zeros((2, block.shape[0], num_neighbours), np.float32)
        row = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        column = np.arange(block.nnz) - block.indptr[row]
        neighbour[row, column], weight[row, column] = block.indices, block.data
        yield WalkRows(neighbour, weight, total)


def count_walk(
    baskets: sp.csr_matrix, powers: WalkPowers, num_neighbours: int, on_block: Callable[[], None] = lambda: None
) -> Weights:
    """The weights of a walk over all items in memory; see `walk_rows`. `on_block` is called after each block."""
    parts = []
    for rows in walk_rows(baskets, powers, num_neighbours, np.arange(baskets.shape[1])):
        parts.append(rows)
        on_block()
    neighbour, weight = (np.concatenate([part[column] for part in parts]) for column in range(2))
    return Weights({"neighbour": neighbour, "weight": weight}, [np.array(powers, np.float32)])


class WalkInference(tf.Module):
    """A counted walk; see `models.interface.InferenceModel`.

    Items that are not a neighbour of any item in the history rank last, by popularity.
    """

    def __init__(self, config: WalkConfig, item_counts: np.ndarray) -> None:
        """Creates the model; `item_counts` [I]: training events of each item; `fill` sets the tables."""
        super().__init__(name=config.kind)
        self._num_items, self._max_items = len(item_counts), config.max_items
        shape = (self._num_items, config.num_neighbours)
        with tf.device(HOST):
            self._neighbours = make_variable(shape, "neighbours", np.int32)
            self._weights = make_variable(shape, "weights")
        self._powers = make_variable((len(WalkPowers._fields),), "powers")
        # below all weights, which are positive; the last entry is an unknown item
        popularity = np.append(item_counts, 0) / (item_counts.max(initial=0) + 1.0) - 1
        self._popularity = tf.Variable(popularity, trainable=False, dtype=tf.float32, name="popularity")

    def fill(self, weights: Weights) -> None:
        fill(self._neighbours, weights.tables["neighbour"].__getitem__)
        fill(self._weights, weights.tables["weight"].__getitem__)
        self._powers.assign(weights.dense[0])

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        num_queries, length = tf.shape(queries.history)[0], tf.minimum(tf.shape(queries.history)[1], self._max_items)
        age = tf.range(length, dtype=tf.int64)
        position = queries.history_length[:, None] - 1 - age  # [B, L], the newest first
        item = tf.gather(queries.history, tf.maximum(position, 0), batch_dims=1)
        entry = tf.where((position >= 0) & (item >= 0) & (item < self._num_items))  # [E, 2]
        recency = tf.pow(1.0 + tf.cast(age, tf.float32), -self._powers[WalkPowers._fields.index("recency")])
        sums = self._sums(entry[:, 0], tf.gather_nd(item, entry), tf.gather(recency, entry[:, 1]), num_queries)
        return tf.where(sums > 0, sums, self._popularity[:-1])

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        scores = tf.gather(self._popularity, tf.minimum(item, self._num_items))
        return tf.broadcast_to(scores, tf.shape(visitor))

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        count = tf.size(item)
        return self._sums(tf.range(count, dtype=tf.int64), item, tf.ones_like(item, tf.float32), count)

    def _sums(self, query: tf.Tensor, item: tf.Tensor, factor: tf.Tensor, num_queries: tf.Tensor) -> tf.Tensor:
        """[B, I]: for each query, the sum of `factor` [E] × the row of W for `item` [E], over its entries."""
        neighbour = tf.cast(tf.gather(self._neighbours, item), tf.int64)
        weight = factor[:, None] * tf.gather(self._weights, item)
        size = tf.cast(num_queries, tf.int64) * self._num_items
        index = tf.reshape(query[:, None] * self._num_items + neighbour, [-1])
        sums = tf.math.unsorted_segment_sum(tf.reshape(weight, [-1]), index, size)
        return tf.reshape(sums, [-1, self._num_items])
