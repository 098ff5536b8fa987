"""Finds the candidates of a sample of cases and their features; `blend_weights` chooses the weights of a blend on them.

The candidates are the items with the highest score of each part, and with the highest popularity, both with and without
the trend. If seen items are shown, the most frequent and the latest items of the history are candidates too.

Shapes: V cases, B cases of a chunk, C candidates, I items, F features. The features are the scores of P parts, the
popularity, a trend per half-life, and the return features.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

from trainer.data.trend import ItemEvents, count_trends, moments_of
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases
from trainer.models.blend import Part, comparable_scores, log_popularity, return_features
from trainer.models.interface import Queries
from trainer.ranking.topk import chunk_size, hide, query_chunks, query_signature, top_k, translate_divergence_errors
from trainer.runs.blend_record import RETURN_FEATURES

HALF_LIVES = (1.0, 3.0, 7.0, 14.0, 30.0)
"""Half-lives of the trend that validation chooses from, in days."""
LIST_LENGTH = 20
TOP = 60
"""Number of candidates from each list; more than `LIST_LENGTH`, because the blend changes their order."""
_DISCOUNT = np.append(1 / np.log2(np.arange(LIST_LENGTH) + 2.0), 0.0)
"""The gain of a relevant item in the DCG, by its rank; the last value is for all ranks after the list."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of a sample of cases: the items that are ranked to choose the weights of a blend."""

    feature: np.ndarray
    """[V, C, F] float32: features of the candidates."""
    is_relevant: np.ndarray
    """[V, C] bool: whether the candidate is relevant."""
    is_candidate: np.ndarray
    """[V, C] bool: False for padding."""
    num_relevant: np.ndarray
    """[V] int64: relevant items of each case, including those that are not candidates."""

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """[V]: NDCG@20 of each case, if its candidates are ranked by `scores` [V, C].

        A relevant candidate ranks after all other candidates with the same score.
        """
        order, relevant = self._relevant
        visible = np.where(self.is_candidate, scores, -np.inf)[order]
        gain = np.zeros(len(order))
        # counting better candidates takes a third of the time of a partial sort, which ranks all others as well
        for position in relevant:
            rows = visible[: len(position)]
            own = np.take_along_axis(rows, position[:, None], 1)
            rank = np.count_nonzero(rows >= own, axis=1) - 1
            gain[: len(position)] += _DISCOUNT[np.minimum(rank, LIST_LENGTH)]
        values = np.empty(len(order))
        values[order] = gain / np.cumsum(_DISCOUNT)[np.minimum(self.num_relevant[order], LIST_LENGTH) - 1]
        return values

    @cached_property
    def _relevant(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Sorts the cases, and finds the columns of their relevant candidates.

        Returns:
          order: [V] indices of the cases; cases with more relevant candidates come first.
          columns: a list of arrays. Array r contains the column in [0, C) of the r-th relevant candidate, for all cases
            with more than r relevant candidates. These are the first cases of the order.
        """
        count = self.is_relevant.sum(axis=1)
        order = np.argsort(-count, kind="stable")
        position = np.argsort(~self.is_relevant[order], axis=1, kind="stable")
        return order, [position[: (count > number).sum(), number] for number in range(count.max(initial=0))]


def find_candidates(
    parts: Sequence[Part],
    cases: Cases,
    events: ItemEvents,
    item_counts: np.ndarray,
    replicas: Replicas | None = None,
    on_chunk: Callable[[], None] = lambda: None,
    *,
    hides_seen: bool,
) -> Candidates:
    """Finds the candidates of each case, and computes the features of these candidates.

    Args:
      parts: the models of the blend.
      cases: the cases.
      events: events of all splits; the trend of a case uses only events before the case.
      item_counts: [I] training events of each item.
      replicas: all replicas; their workers share the cases. None: this process handles all cases.
      on_chunk: called before each chunk of cases.
      hides_seen: whether the ranking hides seen items; if so, the items of a case's history are not its candidates.
    """
    moments = moments_of(cases.timestamp_ms, cases.num_items)
    trends = tf.stack([count_trends(events, moments, days).values for days in HALF_LIVES])
    size = chunk_size(cases.num_items)
    finder = _Finder(parts, tf.constant(moments), trends, tf.constant(log_popularity(item_counts)), hides_seen)
    # traced before the first call; otherwise TensorFlow mistakes the calls of several blends for retracing, and warns
    find = tf.function(finder.find, input_signature=[query_signature(size)], autograph=False).get_concrete_function()
    width, num_features = finder.num_candidates, len(parts) + 1 + len(HALF_LIVES) + len(RETURN_FEATURES)
    item = np.zeros((len(cases), width), np.int64)
    is_candidate = np.zeros((len(cases), width), np.int64)
    feature = np.zeros((len(cases), width, num_features), np.float32)
    for chunk, queries in query_chunks(cases.visitor, cases.history, cases.timestamp_ms, size, replicas):
        on_chunk()
        with translate_divergence_errors():
            found = find(queries)
        count = chunk.stop - chunk.start
        item[chunk], is_candidate[chunk], feature[chunk] = (column[:count].numpy() for column in found)
    if replicas is not None:
        item, is_candidate, feature = (replicas.sum_over_workers(a) for a in (item, is_candidate, feature))
    is_known = is_candidate.astype(bool)
    # candidates first, so that the padding after the longest row can be dropped
    order = np.argsort(~is_known, axis=1, kind="stable")[:, : max(int(is_known.sum(axis=1).max()), LIST_LENGTH)]
    item, is_known = (np.take_along_axis(column, order, axis=1) for column in (item, is_known))
    relevant = cases.relevant if hides_seen == cases.hides_seen else cases.secondary_relevant
    pairs = relevant.owner * cases.num_items + relevant.values
    is_relevant = is_known & np.isin(np.arange(len(cases))[:, None] * cases.num_items + item, pairs)
    feature = np.take_along_axis(feature, order[:, :, None], axis=1)
    return Candidates(feature, is_relevant, is_known, relevant.lengths)


def join_candidates(found: Iterable[Candidates]) -> Candidates:
    """Joins samples of cases, at least one. Cases with fewer candidates than others are padded."""
    samples = list(found)
    width = max(sample.is_candidate.shape[1] for sample in samples)

    def join(columns: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate(
            [np.pad(each, [(0, 0), (0, width - each.shape[1])] + [(0, 0)] * (each.ndim - 2)) for each in columns]
        )

    return Candidates(
        join(sample.feature for sample in samples),
        join(sample.is_relevant for sample in samples),
        join(sample.is_candidate for sample in samples),
        np.concatenate([sample.num_relevant for sample in samples]),
    )


class _Finder:
    """Finds the candidates of each query in a chunk, and computes the features of these candidates."""

    def __init__(
        self, parts: Sequence[Part], moments: tf.Tensor, trends: tf.Tensor, popularity: tf.Tensor, hides_seen: bool
    ) -> None:
        self._parts, self._moments, self._trends, self._popularity = parts, moments, trends, popularity
        self._hides_seen = hides_seen
        self._num_items = int(popularity.shape[0])
        self._top = min(TOP, self._num_items)
        # lists with and without trend, and the best items of the history by each return feature but the first
        num_histories = 0 if hides_seen else len(RETURN_FEATURES) - 1
        self.num_candidates = (2 * (len(parts) + 1) + num_histories) * self._top

    def find(self, queries: Queries) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Finds the candidates of each query.

        Returns:
          item: [B, C] item indices.
          is_candidate: [B, C] int64: 1 for a candidate, 0 for an entry that must be ignored.
          feature: [B, C, F] features of the items.
        """
        scores = [
            comparable_scores(part.model.catalogue_scores(queries), has_sums=part.has_sums) for part in self._parts
        ]
        moment = tf.maximum(tf.searchsorted(self._moments, queries.timestamp_ms, side="right") - 1, 0)
        table = tf.reshape(self._trends, [-1, self._num_items])  # of [L, M]; an unaligned slice would be a copy
        first_rows = [number * self._trends.shape[1] for number in range(len(HALF_LIVES))]
        middle = tf.gather(table, first_rows[len(HALF_LIVES) // 2] + moment)
        popularity = tf.broadcast_to(self._popularity, tf.shape(middle))
        lists = [*scores, *(score + _spread(score, self._top) * middle for score in scores)]
        visible = tf.zeros_like(middle)
        if self._hides_seen:
            visible = hide(visible, queries.history, queries.history_length)
        items = [top_k(scores + visible, self._top).item for scores in [*lists, popularity, popularity + middle]]
        returns = [] if self._hides_seen else self._return_columns(queries)
        for feature in returns[1:]:
            best = top_k(feature, self._top)
            items.append(tf.where(best.score > 0, best.item, -1))
        item = tf.sort(tf.concat(items, axis=1), axis=1)
        known = tf.maximum(item, 0)
        is_first = tf.concat([tf.ones_like(item[:, :1], tf.bool), item[:, 1:] != item[:, :-1]], axis=1)
        is_candidate = is_first & (item >= 0) & (tf.gather(visible, known, batch_dims=1) == 0)
        columns = [tf.gather(column, known, batch_dims=1) for column in [*scores, popularity]]
        trends = tf.reshape(table, [-1])
        for first in first_rows:
            cell = tf.cast(first + moment, tf.int64)[:, None] * self._num_items + known
            columns.append(tf.gather(trends, cell))
        columns += [tf.gather(feature, known, batch_dims=1) for feature in returns] or (
            [tf.zeros_like(columns[0])] * len(RETURN_FEATURES)
        )
        return known, tf.cast(is_candidate, tf.int64), tf.stack(columns, axis=2)

    def _return_columns(self, queries: Queries) -> list[tf.Tensor]:
        """Computes each of the `RETURN_FEATURES` as an array [B, I], which is 0 for items outside the history."""
        found = return_features(queries, self._num_items)
        shape = tf.stack([tf.shape(queries.visitor, tf.int64)[0], self._num_items])
        return [tf.scatter_nd(found.index, column, shape) for column in tf.unstack(found.value, axis=1)]


def _spread(scores: tf.Tensor, count: int) -> tf.Tensor:
    """[B, 1]: the standard deviation of the `count` highest of the scores [B, I] in each row."""
    return tf.math.reduce_std(top_k(scores, count).score, axis=1, keepdims=True)
