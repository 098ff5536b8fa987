"""Nearest-neighbour baselines: items that were touched by the same visitors, and visitors who touched the same items.

They know nothing of a visitor but his history, whose items weigh the less the older they are, by default 1 / (1 + age),
age being the number of rows after them (peers: Ludewig and Jannach, UMUAI 2018).

Shapes: B queries, H history, T training timelines, I items.
"""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from contract.schema import Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows
from trainer.data.dataset import Dataset
from trainer.evaluation.config import NeighboursConfig
from trainer.models.interface import Queries

_DEFAULTS = NeighboursConfig()
_BLOCK_ENTRIES = 4_000_000  # of a product held before all but the nearest are dropped: about 50 MB


class ItemNeighbours:
    """Items by how near they are to those of the history, summed over it."""

    def __init__(
        self, similarity: sp.csr_matrix, item_counts: np.ndarray, config: NeighboursConfig = _DEFAULTS
    ) -> None:
        """Takes what `item_similarity` gives, [I, I], and the training events [I] of each item."""
        self._similarity = similarity
        self._config = config
        self._fallback = _fallback(item_counts)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32; items near to nothing of the history stand behind all others, by popularity."""

        def score(items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            near = _history_weights(items, lengths, len(self._fallback), self._config) @ self._similarity
            return _filled_up(near, self._fallback)

        return _in_graph(score, queries, len(self._fallback))


class TimelineNeighbours:
    """Items by the training timelines nearest to the history that hold them, each weighing as near as it is."""

    def __init__(self, baskets: sp.csr_matrix, item_counts: np.ndarray, config: NeighboursConfig = _DEFAULTS) -> None:
        """Takes what `training_baskets` gives, [T, I], and the training events [I] of each item."""
        self._baskets = baskets
        self._fallback = _fallback(item_counts)
        self._config = config
        # a timeline is near if much of it, not only much in it, is of the history: cosine, but for the history's length
        self._by_item = _scaled_rows(baskets, 1 / np.sqrt(np.maximum(np.diff(baskets.indptr), 1))).T.tocsr()

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32; items that no near timeline holds stand behind all others, by popularity."""

        def score(items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            near = _history_weights(items, lengths, len(self._fallback), self._config) @ self._by_item
            return _filled_up(nearest(near, self._config.num_neighbours) @ self._baskets, self._fallback)

        return _in_graph(score, queries, len(self._fallback))


def item_similarity(baskets: sp.csr_matrix, *, is_tfidf: bool, config: NeighboursConfig = _DEFAULTS) -> sp.csr_matrix:
    """[I, I] cosines between items as columns of baskets [T, I]; of each row the nearest, the item itself included.

    Takes no more memory than what is kept, 8 bytes an entry, and a block of the product.

    Args:
      baskets: 1 where a timeline holds an item.
      is_tfidf: weigh a timeline by log(1 + I / its items) instead of 1: who touches everything tells little.
      config: how many are kept of a row, and what shrinks the cosines.
    """
    weight = np.ones(baskets.shape[0])
    if is_tfidf:
        weight = np.log1p(baskets.shape[1] / np.maximum(np.diff(baskets.indptr), 1))
    by_timeline = _scaled_rows(baskets, weight)  # [T, I]
    by_item = by_timeline.T.tocsr()  # [I, T]
    length = np.sqrt(np.asarray(by_item.multiply(by_item).sum(axis=1)).ravel())

    def near(block: slice) -> sp.csr_matrix:
        product = by_item[block] @ by_timeline
        of_row = np.repeat(length[block], np.diff(product.indptr))
        product.data /= of_row * length[product.indices] + config.shrinkage
        return nearest(product, config.num_neighbours)

    return sp.vstack([near(block) for block in _row_blocks(by_item, by_timeline)], format="csr")


def training_baskets(dataset: Dataset) -> sp.csr_matrix:
    """[T, I] float32: 1 where a training timeline holds an item; the timeline that ended last comes first."""
    parts = []
    for shard in dataset.shards(Split.TRAIN):
        rows = read_timelines([shard])
        parts.append(rows[rows.is_target == 1])
    return baskets_of(TimelineRows.concatenate(parts), dataset.num_items)


def baskets_of(rows: TimelineRows, num_items: int) -> sp.csr_matrix:
    """[T, I] float32: 1 where a timeline of the rows holds an item; the timeline that ended last comes first."""
    timeline = np.cumsum(rows.position == 0) - 1
    last = np.flatnonzero(np.append(rows.position[1:] == 0, True))[: len(rows)]
    place = np.empty(len(last), np.int64)
    place[np.argsort(-rows.timestamp_ms[last], kind="stable")] = np.arange(len(last))
    is_known = rows.item < num_items
    entries = np.ones(int(is_known.sum()), np.float32)
    baskets = sp.csr_matrix((entries, (place[timeline[is_known]], rows.item[is_known])), (len(last), num_items))
    baskets.sum_duplicates()
    baskets.data[:] = 1
    return baskets


def nearest(weights: sp.csr_matrix, count: int) -> sp.csr_matrix:
    """The `count` largest entries of each row; among equals those of the lower columns."""
    weights.sort_indices()
    lengths = np.diff(weights.indptr)
    if lengths.max(initial=0) <= count:
        return weights
    row = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort([-weights.data, row])  # stable: equals keep the order of their columns
    rank = np.arange(len(order)) - weights.indptr[row]
    kept = np.sort(order[rank < count])
    indptr = np.concatenate([[0], np.cumsum(np.minimum(lengths, count))])
    return sp.csr_matrix((weights.data[kept], weights.indices[kept], indptr), weights.shape)


def _history_weights(items: np.ndarray, lengths: np.ndarray, num_items: int, config: NeighboursConfig) -> sp.csr_matrix:
    """[B, I] float32: what items [B, H] of lengths [B] weigh by their age, summed where an item comes again."""
    age = lengths[:, None] - 1 - np.arange(items.shape[1])
    query, place = np.nonzero((age >= 0) & (items < num_items))
    rows_after = age[query, place]
    half_life = config.half_life_rows
    weight = 1 / (1.0 + rows_after) if half_life is None else 0.5 ** (rows_after / half_life)
    return sp.csr_matrix((weight.astype(np.float32), (query, items[query, place])), (len(items), num_items))


def _fallback(item_counts: np.ndarray) -> np.ndarray:
    """[I] float32 in [-1, 0): scores by popularity, below whatever a neighbour gives."""
    return (item_counts / (item_counts.max(initial=0) + 1.0) - 1).astype(np.float32)


def _filled_up(near: sp.csr_matrix, fallback: np.ndarray) -> np.ndarray:
    """[B, I] float32: the scores near [B, I], and the fallback [I] where there is none."""
    scores = np.tile(fallback, (near.shape[0], 1))
    row = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))
    scores[row, near.indices] = near.data
    return scores


def _in_graph(score: Callable[[np.ndarray, np.ndarray], np.ndarray], queries: Queries, num_items: int) -> tf.Tensor:
    scores = tf.numpy_function(score, [queries.history, queries.history_length], tf.float32, stateful=False)
    return tf.ensure_shape(scores, [None, num_items])


def _scaled_rows(matrix: sp.csr_matrix, factors: np.ndarray) -> sp.csr_matrix:
    return (sp.diags(factors.astype(np.float32)) @ matrix).tocsr()


def _row_blocks(left: sp.csr_matrix, right: sp.csr_matrix) -> Iterator[slice]:
    """Rows of `left` whose product with `right` has at most about `_BLOCK_ENTRIES` entries."""
    # an upper bound of each row's entries: those of the rows of `right` that it adds up
    bound = np.minimum(left.astype(bool) @ np.diff(right.indptr), right.shape[1])
    total = np.concatenate([[0], np.cumsum(bound)])
    begin = 0
    while begin < left.shape[0]:
        end = max(int(np.searchsorted(total, total[begin] + _BLOCK_ENTRIES, side="right")) - 1, begin + 1)
        yield slice(begin, end)
        begin = end
