"""Models with a weight W_ij for each pair of items: the walk and EASE.

A visitor's score of item j is the weighted sum of W_ij over the items i of their history; later items have higher
weights. The modules `walk` and `ease` compute W. The neighbours of item i are the items j with the largest |W_ij|.

Shapes: B queries, E entries of all their histories, I items of the vocabulary, R items with neighbours (the first ones
of the vocabulary), N neighbours of an item.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from common.report.diagram_box import DiagramBox
from contract.schema import Vocabulary
from trainer.config.models import EaseConfig, WalkConfig
from trainer.data.dataset import Dataset
from trainer.models.description import TableShapes, table_box
from trainer.models.history_entries import Entries, latest_entries
from trainer.models.interface import Queries
from trainer.models.item_sums import item_sums
from trainer.models.table_rows import CountedRows, TableRows, check_item_indices, index_names
from trainer.models.table_variables import HOST, fill, make_variable
from trainer.runs.checkpoint import Weights

NeighbourConfig = WalkConfig | EaseConfig
"""Settings of a model with weights per pair of items."""


class NeighbourRows(NamedTuple):
    """The neighbours of n items, up to N each; the weight of missing neighbours is 0."""

    neighbour: np.ndarray
    """[n, N] float32 item indices, ascending."""
    weight: np.ndarray
    """[n, N] float32 weights of the neighbours."""
    total_weight: np.ndarray
    """[n] float64: sum of an item's absolute weights to all items, including those that are not stored."""

    @classmethod
    def of_matrix(cls, weights: sp.csr_matrix, num_neighbours: int, total_weight: np.ndarray) -> "NeighbourRows":
        """Builds neighbours from `weights` [n, I]; a row has at most `num_neighbours` entries, sorted by column.

        `total_weight` [n]: see `NeighbourRows.total_weight`.
        """
        neighbour, weight = np.zeros((2, weights.shape[0], num_neighbours), np.float32)
        row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        column = np.arange(weights.nnz) - weights.indptr[row]
        neighbour[row, column], weight[row, column] = weights.indices, weights.data
        return cls(neighbour, weight, total_weight)

    def only(self, kept: slice) -> "NeighbourRows":
        """Returns the neighbours of the items in the slice `kept`."""
        return NeighbourRows(*(column[kept] for column in self))

    def counted(self) -> CountedRows:
        """Returns the neighbours as rows of the tables `neighbour` and `weight`."""
        tables = {"neighbour": self.neighbour, "weight": self.weight}
        return CountedRows(tables, float(np.abs(self.weight).sum(dtype=np.float64)), float(self.total_weight.sum()))


def num_rows(config: NeighbourConfig, num_items: int) -> int:
    """Returns the number of items that have neighbours, R; they are the most frequent items."""
    return min(config.num_frequent_items, num_items) if isinstance(config, EaseConfig) else num_items


def neighbour_tables(config: NeighbourConfig, dataset: Dataset, name: str) -> dict[str, TableRows]:
    """Specifies two tables [R, N] for R items: the N neighbours of each item, and their weights.

    Args:
      name: name of the model in error messages.

    Raises:
      ValueError: the vocabulary has more than 2^24 items; see `check_item_indices`.
    """
    check_item_indices(dataset, name)
    count = num_rows(config, dataset.num_items)
    rows = TableRows(count, config.num_neighbours, lambda: index_names(dataset, Vocabulary.ITEMS)[:count])
    return {"neighbour": rows, "weight": rows}


def neighbour_diagram(config: NeighbourConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    return [
        DiagramBox("history", f"[B, ≤ {config.max_items}]", 0),
        table_box("neighbour", tables, "history"),
        table_box("weight", tables, "history"),
        DiagramBox("weights by age", "[B, H]", 1, ("history",)),
        DiagramBox("sum over the history", "[B, I]", 2, ("neighbour table", "weight table", "weights by age")),
        DiagramBox("score", "[B, I]", 3, ("sum over the history",)),
    ]


class NeighbourInference(tf.Module):
    """Ranks items by the scores of the formula at the top of this file; see `models.interface.InferenceModel`.

    Items with a score of 0 or less rank last, by popularity.
    """

    def __init__(self, config: NeighbourConfig, item_counts: np.ndarray) -> None:
        """Creates the model; its tables are 0 until `fill`. `item_counts`: [I] training events of each item."""
        super().__init__(name=config.kind)
        self._num_items, self._max_items = len(item_counts), config.max_items
        self._adds_repeats = config.adds_repeats
        self._num_rows = num_rows(config, self._num_items)
        shape = (self._num_rows, config.num_neighbours)
        with tf.device(HOST):
            self._neighbours = make_variable(shape, "neighbours", np.int32)
            self._weights = make_variable(shape, "weights")
        self._powers = make_variable((len(config.powers._fields),), "powers")
        self._recency = config.powers._fields.index("recency")
        # below all positive sums; the last entry is an unknown item
        popularity = np.append(item_counts, 0) / (item_counts.max(initial=0) + 1.0) - 1
        self._popularity = tf.Variable(popularity, trainable=False, dtype=tf.float32, name="popularity")

    def fill(self, weights: Weights) -> None:
        fill(self._neighbours, weights.tables["neighbour"].__getitem__)
        fill(self._weights, weights.tables["weight"].__getitem__)
        self._powers.assign(weights.dense[0])

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        sums = self.sums(queries)
        return tf.where(sums > 0, sums, self._popularity[:-1])

    def sums(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32: the sums of weights; 0 for items that are no neighbour of an item of the history."""
        entries = latest_entries(queries, self._max_items, self._num_rows, self._powers[self._recency])
        if not self._adds_repeats:
            entries = self._distinct(entries)
        return self._sums(*entries, tf.shape(queries.history)[0])

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        scores = tf.gather(self._popularity, tf.minimum(item, self._num_items))
        return tf.broadcast_to(scores, tf.shape(visitor))

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        count = tf.size(item)
        known = tf.where(item < self._num_rows)[:, 0]
        return self._sums(known, tf.gather(item, known), tf.ones_like(known, tf.float32), count)

    def _distinct(self, entries: Entries) -> Entries:
        """Merges entries that have the same query and item; keeps the largest weight."""
        pair, owner = tf.unique(entries.query * self._num_items + entries.item, out_idx=tf.int64)
        weight = tf.math.unsorted_segment_max(entries.weight, owner, tf.size(pair))
        return Entries(pair // self._num_items, pair % self._num_items, weight)

    def _sums(self, query: tf.Tensor, item: tf.Tensor, factor: tf.Tensor, num_queries: tf.Tensor) -> tf.Tensor:
        """Returns the score [B, I] of each item for each query, a sum over the query's entries.

        An entry adds its factor × the weight of the item as a neighbour of the entry's item. `query`, `item`, `factor`:
        [E], one value per entry; `query` is ascending.
        """
        weight = factor[:, None] * tf.gather(self._weights, item)
        neighbour = tf.gather(self._neighbours, item)
        splits = tf.searchsorted(query, tf.range(tf.cast(num_queries, tf.int64) + 1), out_type=tf.int64)
        splits *= self._neighbours.shape[1]
        return item_sums(tf.reshape(neighbour, [-1]), tf.reshape(weight, [-1]), splits, self._num_items)
