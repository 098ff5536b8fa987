"""Matrix factorization: the score is the similarity of a visitor's vector and an item's vector.

A visitor's vector is a row of the visitor table or, in models without this table, the sum of their items' vectors.

Only items have biases: a visitor's bias would be part of all their scores and cancel in a softmax over items.

Shapes: B rows or queries, C candidates, H entries of a history, I items of the vocabulary, V rows of the visitor table,
D columns of a vector, W columns of the item table: D, or D + 1 with biases. A bias is a tenth of the last column.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from common.report.diagram_box import DiagramBox
from contract.schema import Vocabulary
from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.models import MatrixFactorizationConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.interactions import read_interactions
from trainer.distributed.embeddings import chunk_rows
from trainer.distributed.replicas import Replicas
from trainer.models.description import (
    NEW_ITEMS_RANK_LAST,
    PAIR_INPUTS,
    SQUARED_ERROR_LIMITS,
    ModelDescription,
    TableShapes,
    table_box,
)
from trainer.models.fold_in import MAX_ENTRIES, FoldIn
from trainer.models.interface import Queries
from trainer.models.objectives import (
    SampledSoftmaxObjective,
    SquaredErrorObjective,
    Tables,
    TrainingModel,
    compute_dtype,
    history_without_target,
    negative_sampler,
)
from trainer.models.similarity import cosines
from trainer.models.table_rows import TableRows, vocabulary_rows
from trainer.models.table_variables import HOST, fill, fill_rows, make_variable
from trainer.runs.checkpoint import Table, Weights

_BIAS_SCALE = 0.1
"""The bias is the last column times this factor. Adagrad moves all entries at the same rate, however small their
gradients are. At the rate that suits the vectors, the biases of rare items would change too fast. Validation NDCG@20 on
retailrocket_matrix after 8 epochs at dim 64: .117 unscaled, .126 at 0.1, .125 without biases."""


def table_rows(model: MatrixFactorizationConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies an item table and, if `history_length` is 0, also a visitor table; see `models.build.ModelFile`."""
    items = {"item": vocabulary_rows(dataset, Vocabulary.ITEMS, item_width(model))}
    if model.history_length:
        return items
    return {"visitor": vocabulary_rows(dataset, Vocabulary.VISITORS, model.dim), **items}


def training_model(
    model: MatrixFactorizationConfig, config: RunConfig, dataset: Dataset, tables: Tables, replicas: Replicas
) -> TrainingModel:
    """Builds the factorization with the objective of `config.loss`."""
    factorization = MatrixFactorization(model, compute_dtype(config))
    with replicas.strategy.scope():
        dense = make_dense_variables(model)
    if isinstance(config.loss, SampledSoftmaxConfig):
        sampler = negative_sampler(config.loss, dataset, config, history_without_target)
        softmax = SampledSoftmaxObjective(config.loss, tables, replicas, factorization, sampler, config.seed)
        return TrainingModel(tables, dense, softmax)

    def predict(weights: Sequence[tf.Tensor], visitors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        vectors, biases = factorization.embed_items(items)
        return factorization.pair_scores(factorization.embed_visitors(visitors, weights), vectors, biases)

    return TrainingModel(tables, dense, SquaredErrorObjective(config.loss, tables, replicas, predict))


def inference_model(
    model: MatrixFactorizationConfig, config: RunConfig, dataset: Dataset
) -> "MatrixFactorizationInference":
    """Builds the model that ranks; `fill` sets its weights later."""
    rows = table_rows(model, dataset)
    # a softmax does not train the rows of unknown items and visitors, so popularity replaces them; a squared error
    # trains all rows, and popularity is no event weight
    ranks_by_popularity = isinstance(config.loss, SampledSoftmaxConfig)
    equal_weights = [1.0] * len(dataset.manifest.event_kinds)
    return MatrixFactorizationInference(
        model,
        num_visitors=dataset.num_visitors,
        visitor_rows=rows["visitor"].num_rows if "visitor" in rows else dataset.num_visitors,
        visitor_items=None if "visitor" in rows else read_interactions(dataset, equal_weights),
        num_items=dataset.num_items,
        item_rows=rows["item"].num_rows,
        item_counts=dataset.item_counts if ranks_by_popularity else None,
        fold_in=FoldIn(config.als, config.loss.weights_by_kind(dataset.manifest), dataset.num_items, model.dim)
        if config.solver == "als"
        else None,
    )


def describe(config: RunConfig, *, has_content: bool) -> ModelDescription:  # noqa: ARG001 (content is not used)
    """Describes the model for its model card; see `models.build.DescribedModelFile`."""
    principle = "each visitor and item has a vector, and the score is their similarity"
    if not isinstance(config.loss, SampledSoftmaxConfig):
        return ModelDescription(principle, SQUARED_ERROR_LIMITS)
    if config.solver == "als":
        visitors = (
            f"Visitor vectors are computed from the latest {MAX_ENTRIES} items of the history in the request. If the "
            "history has no known item, and for `score`, which takes no history, visitors from training have their "
            "trained vector; all others get popular items."
        )
    elif config.history_length:
        principle = "a visitor's vector is the sum of the vectors of their items, and the score is a cosine with it"
        visitors = (
            "The model knows a visitor by the items of the history in the request, of any age. If the history has no "
            "known item, and for `score`, which takes no history, it uses the items of visitors from training; all "
            "other visitors get popular items."
        )
    else:
        visitors = (
            "Visitors that were not in training get popular items, whatever their history: it is only used to exclude "
            "seen items. Train again to learn about them."
        )
    return ModelDescription(principle, (visitors, NEW_ITEMS_RANK_LAST))


def diagram(model: MatrixFactorizationConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    similarity = f"cosine × {model.scale:g}" if model.similarity == "cosine" else "dot product"
    if model.history_length:
        visitors = "sum of normalised vectors"
        inputs = [
            DiagramBox("history", f"[B, {model.history_length}]", 0),
            DiagramBox("items", "[B or C]", 0),
            table_box("item", tables, "history", "items"),
            DiagramBox(visitors, f"[B, {model.dim}]", 2, ("item table",)),
        ]
    else:
        visitors = "visitor vectors"
        inputs = [
            *PAIR_INPUTS,
            table_box("visitor", tables, "visitors"),
            table_box("item", tables, "items"),
            DiagramBox(visitors, f"[B, {model.dim}]", 2, ("visitor table",)),
        ]
    bias = " + item bias" if model.has_item_bias else ""
    return [
        *inputs,
        DiagramBox("item vectors", f"[C, {model.dim}]", 2, ("item table",)),
        DiagramBox(similarity, f"[B, C]{bias}", 3, (visitors, "item vectors")),
        DiagramBox("score", "[B, C]", 4, (similarity,)),
    ]


def item_width(config: MatrixFactorizationConfig) -> int:
    """Returns W, the number of columns of the item table."""
    return config.dim + config.has_item_bias


def make_dense_variables(config: MatrixFactorizationConfig) -> list[keras.Variable]:
    """Creates one variable, the logarithm of the scores' scale; an empty list if the scale is not learnt."""
    if not config.is_scale_learnt:
        return []
    return [keras.Variable(np.float32(np.log(config.scale)), name="log_scale")]


@dataclass(frozen=True)
class MatrixFactorization:
    """Computes vectors and scores from embedding table rows, for training and inference; see `objectives.Factors`."""

    config: MatrixFactorizationConfig
    """Settings of the model."""
    compute_dtype: tf.DType = tf.float32
    """Type of matrix products."""

    def embed_visitors(self, rows: tf.Tensor, dense: Sequence[tf.Tensor] = ()) -> tf.Tensor:
        """Returns visitor vectors [B, D].

        Args:
          rows: [B, D] rows of the visitor table, or sums of item vectors (see `sum_items`).
          dense: the variables of `make_dense_variables`; empty if the scale of the scores is not learnt.
        """
        return self._normalize(rows) * (tf.exp(dense[0]) if self.config.is_scale_learnt else self.config.scale)

    def embed_items(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Splits rows [C, W] of the item table; returns two tensors: [C, D] item vectors; [C] biases."""
        if not self.config.has_item_bias:
            return self._normalize(rows), tf.zeros(tf.shape(rows)[:1])
        # the gradient of a split is one concatenation; that of two slices would add two tables of mostly zeros
        vectors, columns = tf.split(rows, [self.config.dim, 1], axis=1)
        return self._normalize(vectors), _BIAS_SCALE * columns[:, 0]

    def sum_items(self, rows: tf.Tensor, is_entry: tf.Tensor) -> tf.Tensor:
        """[B, D]: the sum of the normalised item vectors of each history.

        Args:
          rows: [B, H, W] rows of the item table, one per history entry.
          is_entry: [B, H] bool: the entries to add; False for padding.
        """
        vectors, _ = tf.split(rows, [self.config.dim, rows.shape[2] - self.config.dim], axis=2)
        squares = tf.reduce_sum(tf.square(vectors), axis=2)
        share = tf.where(is_entry, tf.math.rsqrt(tf.maximum(squares, 1e-12)), 0.0)
        return tf.matmul(share[:, None, :], vectors)[:, 0]

    def pair_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """[B]: score of each pair (visitors[k], items[k]). `visitors`, `items`: [B, D] vectors. `biases`: [B]."""
        return tf.reduce_sum(visitors * items, axis=1) + biases

    def candidate_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """[B, C]: score of each item for each visitor. `visitors`: [B, D]. `items`: [C, D]. `biases`: [C]."""
        product = tf.matmul(tf.cast(visitors, self.compute_dtype), tf.cast(items, self.compute_dtype), transpose_b=True)
        return tf.cast(product, tf.float32) + biases

    def _normalize(self, vectors: tf.Tensor) -> tf.Tensor:
        return tf.nn.l2_normalize(vectors, axis=1) if self.config.similarity == "cosine" else vectors


class MatrixFactorizationInference(tf.Module):
    """A trained factorization; see `models.interface.InferenceModel`."""

    def __init__(
        self,
        config: MatrixFactorizationConfig,
        *,
        num_visitors: int,
        visitor_rows: int,
        num_items: int,
        item_rows: int,
        item_counts: np.ndarray | None,
        visitor_items: sp.csr_matrix | None = None,
        fold_in: FoldIn | None = None,
    ) -> None:
        """Creates the model; `fill` sets its weights.

        A table has one row per id of the vocabulary, then the rows of its out-of-vocabulary buckets.

        Args:
          num_visitors: number of visitors in the vocabulary.
          visitor_rows: number of rows of the visitor table including buckets, V.
          num_items: the number of items in the vocabulary, I.
          item_rows: number of rows of the item table including buckets.
          item_counts: [I] training events of each item. If it is given, unknown visitors get the most frequent items;
            unknown items and items without events have a zero vector and the lowest bias. None: unknown visitors and
            items have the rows of their buckets.
          visitor_items: [V, I] number of events of each visitor with each item; vectors of visitors are sums of their
            items' vectors. None: visitors have a table, or their vectors are 0.
          fold_in: computes the vectors of visitors from their histories; None: the model does not compute them.
        """
        super().__init__(name="matrix_factorization")
        self._model, self._fold_in = MatrixFactorization(config), fold_in
        self._num_visitors = num_visitors
        self._num_items = num_items
        empty = sp.csr_matrix((visitor_rows, num_items), dtype=np.float32)
        self._visitor_items = empty if visitor_items is None else visitor_items
        self._dense = [make_variable(tuple(variable.shape), variable.name) for variable in make_dense_variables(config)]
        with tf.device(HOST):
            self._visitors = make_variable((visitor_rows, config.dim), "visitors")
        self._popularity: tf.Variable | None = None
        if item_counts is not None:
            self._popularity = tf.Variable(np.append(np.log1p(item_counts), 0.0), trainable=False, dtype=tf.float32)
            item_rows = num_items + 1  # all buckets share one row
        self._is_trained = np.ones(item_rows, bool) if item_counts is None else np.append(item_counts > 0, False)
        self._items = make_variable((num_items, config.dim), "items")
        self._biases = make_variable((num_items,), "biases")
        self._other_items = make_variable((item_rows - num_items, config.dim), "other_items")
        self._other_biases = make_variable((item_rows - num_items,), "other_biases")

    def fill(self, weights: Weights) -> None:
        for variable, weight in zip(self._dense, weights.dense, strict=True):
            variable.assign(weight)
        table, is_trained = weights.tables["item"], self._is_trained
        biases = _bias_column(self._model, table, len(is_trained))
        biases = np.where(is_trained, biases, biases[:-1][is_trained[:-1]].min(initial=np.inf))

        def item_vectors(rows: slice) -> np.ndarray:
            vectors, _ = self._model.embed_items(tf.constant(table[rows]))
            return np.where(is_trained[rows, None], vectors, np.float32(0))

        for items, offsets, first in (
            (self._items, self._biases, 0),
            (self._other_items, self._other_biases, self._num_items),
        ):
            fill(items, item_vectors, first)
            offsets.assign(biases[first : first + items.shape[0]])
        if self._fold_in is not None:
            items = np.asarray(self._items.read_value())  # no copy on a CPU
            self._fold_in.fill(items.T @ items)
        visitors = weights.tables.get("visitor")
        read = self._sums_of_items if visitors is None else visitors.__getitem__
        fill_rows(self._visitors, read, weights.needed_rows(self._visitors.shape[0]))

    def _sums_of_items(self, visitors: slice) -> np.ndarray:
        """[n, D] float32: for each visitor in a slice, the sum of the vectors of the items in the visitor's events."""
        vectors = np.asarray(self._items.read_value())  # no copy on a CPU
        return np.asarray(self._visitor_items[visitors] @ vectors, np.float32)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return self.piece_scores(queries)(0, self._num_items)

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        rows, is_known = self._rows(queries.visitor), self._is_known(queries.visitor)
        if self._fold_in is not None or self._model.config.history_length:
            if self._fold_in is None:
                from_history, has_history = self._sum_history(queries)
            else:
                from_history, has_history = self._fold_in(self._items, queries)
            rows, is_known = tf.where(has_history[:, None], from_history, rows), is_known | has_history
        visitors = self._model.embed_visitors(rows, self._dense)

        def score(begin: tf.Tensor | int, size: int) -> tf.Tensor:
            piece = slice(begin, begin + size)
            scores = self._model.candidate_scores(visitors, self._items[piece], self._biases[piece])
            if self._popularity is None:
                return scores
            return tf.where(is_known[:, None], scores, self._popularity[piece])

        return score

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        items = _gather_two(self._items, self._other_items, item)
        biases = _gather_two(self._biases, self._other_biases, item)
        scores = self._model.pair_scores(self._model.embed_visitors(self._rows(visitor), self._dense), items, biases)
        if self._popularity is None:
            return scores
        popularity = tf.gather(self._popularity, tf.minimum(item, self._num_items))
        return tf.where(self._is_known(visitor), scores, popularity)

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        return cosines(self._items, item)

    def _rows(self, visitor: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._visitors, tf.minimum(visitor, self._visitors.shape[0] - 1))

    def _sum_history(self, queries: Queries) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns two tensors: [B, D] the sum of each history's item vectors; [B] bool, False if no item is known."""
        num_queries, length = tf.unstack(tf.shape(queries.history, tf.int64))
        is_entry = tf.sequence_mask(queries.history_length, length) & (queries.history < self._num_items)
        # gathers entries without padding: with histories of very different lengths, [B, H, D] would be mostly padding
        vectors = tf.gather(self._items, tf.boolean_mask(queries.history, is_entry))
        summed = tf.math.unsorted_segment_sum(vectors, tf.where(is_entry)[:, 0], num_queries)
        return summed, tf.reduce_any(is_entry, axis=1)

    def _is_known(self, visitor: tf.Tensor) -> tf.Tensor:
        return visitor < self._num_visitors


def _bias_column(model: MatrixFactorization, table: Table, count: int) -> np.ndarray:
    """[count] float32: item biases from the first `count` rows of the item table, read in chunks."""
    size = chunk_rows(table.shape[1])
    starts = range(0, count, size)
    parts = [model.embed_items(tf.constant(table[start : min(start + size, count)]))[1] for start in starts]
    return np.concatenate(parts)


def _gather_two(first: tf.Variable, second: tf.Variable, index: tf.Tensor) -> tf.Tensor:
    """Gathers rows from the concatenation of `first` and `second`; an index beyond the last row gets the last row."""
    size = first.shape[0]
    from_first = tf.gather(first, tf.minimum(index, size - 1))
    from_second = tf.gather(second, tf.clip_by_value(index - size, 0, second.shape[0] - 1))
    is_first = tf.reshape(index < size, [-1] + [1] * (len(first.shape) - 1))
    return tf.where(is_first, from_first, from_second)
