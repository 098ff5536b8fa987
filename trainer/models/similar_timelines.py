"""Finds the training timelines most similar to a history; each of them adds its similarity to the scores of its items.

Shapes: B queries, E entries of all queries, T timelines, N (timeline, item) pairs, I items of the vocabulary, K most
similar timelines of a query, P (entry, timeline) pairs, U distinct (query, timeline) pairs.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from trainer.config.models import SessionKnnConfig
from trainer.models.history_entries import Entries
from trainer.models.item_sums import item_sums
from trainer.models.table_variables import make_variable

_MAX_PAIRS = 4_000_000
"""Maximum number of (entry, timeline) pairs in a block of queries; they take about 150 MB."""
_MAX_DENSE_TIMELINES = 16_384
"""Up to this number of timelines, similarities are computed in a dense array [B, T]."""


class _Similar(NamedTuple):
    """The K most similar timelines of each query."""

    timeline: tf.Tensor
    """[B, K] int32 indices of timelines."""
    similarity: tf.Tensor
    """[B, K] float32 similarities, descending; 0 or negative for timelines that share no item with the history."""


def sampled_entries(baskets: sp.csr_matrix, max_timelines: int) -> np.ndarray:
    """Selects, for each item, the (timeline, item) pairs of its latest `max_timelines` timelines.

    Args:
      baskets: [T, I] items of the timelines, latest timeline first; N pairs are stored.
      max_timelines: maximum number of timelines per item.

    Returns:
      [N] bool: whether each stored pair is selected.
    """
    order = np.argsort(baskets.indices, kind="stable")
    item = baskets.indices[order]
    is_sampled = np.empty(len(order), bool)
    is_sampled[order] = np.arange(len(order)) - np.searchsorted(item, item) < max_timelines
    return is_sampled


class TimelineLists(tf.Module):
    """Variables that store the items of each timeline and the latest timelines of each item.

    If two timelines are equally similar, the later one is preferred.
    """

    def __init__(self, config: SessionKnnConfig, num_items: int, num_timelines: int, num_entries: int) -> None:
        """Creates empty variables.

        Args:
          config: settings of the session kNN.
          num_items: the number of items, I.
          num_timelines: maximum number of timelines.
          num_entries: maximum number of (timeline, item) pairs.
        """
        super().__init__()
        self._config, self._num_items, self._num_timelines = config, num_items, num_timelines
        self._items = make_variable((num_entries,), "items", np.int32)
        self._item_splits = make_variable((num_timelines + 1,), "item_splits", np.int32)
        self._timelines = make_variable((num_entries,), "timelines", np.int32)
        self._timeline_splits = make_variable((num_items + 1,), "timeline_splits", np.int32)
        self._factors = make_variable((num_timelines,), "factors")
        largest = max(config.max_entries * config.max_timelines, config.num_neighbours * config.max_items)
        self._block_queries = max(_MAX_PAIRS // largest, 1)

    def fill(self, baskets: sp.csr_matrix, factors: np.ndarray) -> None:
        """Stores the timelines in the variables.

        Args:
          baskets: [T, I] items of the timelines, latest timeline first.
          factors: [T] factor of each timeline; all similarities of a timeline are multiplied by its factor.
        """
        missing = self._items.shape[0] - baskets.nnz
        self._items.assign(np.pad(baskets.indices, (0, missing)))
        self._item_splits.assign(baskets.indptr.astype(np.int32))
        is_sampled = sampled_entries(baskets, self._config.max_timelines)
        order = np.argsort(baskets.indices, kind="stable")
        order = order[is_sampled[order]]
        timeline = np.repeat(np.arange(baskets.shape[0], dtype=np.int32), np.diff(baskets.indptr))[order]
        self._timelines.assign(np.pad(timeline, (0, self._timelines.shape[0] - len(timeline))))
        ends = np.cumsum(np.bincount(baskets.indices[order], minlength=self._num_items))
        self._timeline_splits.assign(np.concatenate([[0], ends]).astype(np.int32))
        self._factors.assign(factors)

    def item_sums(self, entries: Entries, num_queries: tf.Tensor) -> tf.Tensor:
        """Returns [B, I] float32: the score of each item for each query.

        For each query, the K timelines most similar to its history add their similarity to the scores of their items.
        """
        size = self._block_queries
        num_blocks = tf.maximum(-(-num_queries // size), 1)
        bounds = tf.searchsorted(entries.query, tf.range(num_blocks + 1, dtype=tf.int64) * size)
        parts = tf.TensorArray(tf.float32, num_blocks, infer_shape=False, element_shape=[None, self._num_items])

        def add(block: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            query, item, weight = (column[bounds[block] : bounds[block + 1]] for column in entries)
            first = block * size
            count = tf.minimum(num_queries - first, size)
            query -= tf.cast(first, tf.int64)
            return block + 1, parts.write(block, self._block_sums(Entries(query, item, weight), count))

        _, parts = tf.while_loop(lambda block, _: block < num_blocks, add, (0, parts), parallel_iterations=1)
        return tf.ensure_shape(parts.concat(), [None, self._num_items])

    def _block_sums(self, entries: Entries, num_queries: tf.Tensor) -> tf.Tensor:
        similar = self._most_similar(entries, num_queries)
        is_similar = similar.similarity > 0
        lists = tf.gather(_ragged(self._items, self._item_splits), tf.boolean_mask(similar.timeline, is_similar))
        added = tf.gather(tf.boolean_mask(similar.similarity, is_similar), _row_ids(lists))
        num_lists = tf.cumsum(tf.math.count_nonzero(is_similar, axis=1))
        splits = tf.gather(tf.cast(lists.row_splits, tf.int64), tf.concat([[0], num_lists], axis=0))
        return item_sums(lists.flat_values, added, splits, self._num_items)

    def _most_similar(self, entries: Entries, num_queries: tf.Tensor) -> _Similar:
        lists = tf.gather(_ragged(self._timelines, self._timeline_splits), entries.item)
        owner = _row_ids(lists)
        weight = tf.gather(entries.weight, owner)
        if self._num_timelines <= _MAX_DENSE_TIMELINES:
            first = tf.cast(entries.query, tf.int32) * self._num_timelines
            return self._best_of_all(tf.gather(first, owner) + lists.flat_values, weight, num_queries)
        pair = tf.gather(entries.query * self._num_timelines, owner) + tf.cast(lists.flat_values, tf.int64)
        return self._best_of_pairs(pair, weight, num_queries)

    def _best_of_all(self, pair: tf.Tensor, weight: tf.Tensor, num_queries: tf.Tensor) -> _Similar:
        """Finds the most similar timelines in a dense array [B, T]; fast for few timelines.

        Args:
          pair: [P] int64: query × `num_timelines` + timeline; may repeat.
          weight: [P] weight of the pair's history entry; the weights of equal pairs are added up.
          num_queries: the number of queries, B.
        """
        sums = tf.math.unsorted_segment_sum(weight, pair, num_queries * self._num_timelines)
        weights = tf.reshape(sums, [-1, self._num_timelines])
        top = tf.math.top_k(weights * self._factors, min(self._config.num_neighbours, self._num_timelines))
        return _Similar(top.indices, top.values)

    def _best_of_pairs(self, pair: tf.Tensor, weight: tf.Tensor, num_queries: tf.Tensor) -> _Similar:
        """Like `_best_of_all`, but sorts the given pairs instead of filling a dense array; fast for many timelines."""
        pair, position = tf.unique(pair)  # [U]
        weight = tf.math.unsorted_segment_sum(weight, position, tf.size(pair))
        order = tf.argsort(pair)  # so that the later timeline wins ties
        query, timeline = (tf.gather(part, order) for part in (pair // self._num_timelines, pair % self._num_timelines))
        similarity = tf.gather(weight, order) * tf.gather(self._factors, timeline)
        splits = tf.searchsorted(query, tf.range(tf.cast(num_queries, tf.int64) + 1))
        rows = _ragged(similarity, splits).to_tensor(-1.0)
        top = tf.math.top_k(rows, tf.minimum(self._config.num_neighbours, tf.shape(rows)[1]))
        ids = _ragged(tf.cast(timeline, tf.int32), splits).to_tensor()
        return _Similar(tf.gather(ids, top.indices, batch_dims=1), top.values)


def _ragged(values: tf.Tensor | tf.Variable, splits: tf.Tensor | tf.Variable) -> tf.RaggedTensor:
    return tf.RaggedTensor.from_row_splits(tf.convert_to_tensor(values), tf.convert_to_tensor(splits), validate=False)


def _row_ids(lists: tf.RaggedTensor) -> tf.Tensor:
    """Returns [P] int32: the index of the list that each value belongs to.

    `value_rowids` of TensorFlow needs memory for (number of lists) × (longest list) values.
    """
    starts, total = lists.row_splits[1:-1], tf.size(lists.flat_values)
    is_start = tf.scatter_nd(starts[:, None], tf.ones_like(starts), [total + 1])
    return tf.cumsum(is_start)[:-1]
