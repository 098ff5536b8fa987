"""A blend: the weighted sum of trained models, of the items' popularity and trend, and of features of the history.

    score = Σ w_part × part + w_popularity × log(n + 0.25) + w_trend × trend + Σ w_return × return feature

Each of the `RANKINGS` (new items, any items after a break, any items in a session) has separate weights and a separate
half-life of the trend: how visitors discover new items differs from how they return to old ones, and they look for
different items in a session than after a break. Validation chooses the weights, see `evaluation.blend_weights`.

Shapes: B queries, H entries of a history, I items of the vocabulary, P parts, L half-lives, M moments in time,
F = P + 1 + L + 4 features, E history entries of known items, U distinct (query, item) pairs among these entries.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.trend import Trends
from trainer.models.interface import UNKNOWN_EVENT, Queries, ServedModel
from trainer.models.sums import add_tensors
from trainer.models.table_variables import HOST
from trainer.models.top_items import top_k
from trainer.runs.blend_record import RANKINGS, RETURN_FEATURES, BlendWeights, half_lives_of

SESSION_GAP_MS = 30 * 60 * 1000
"""A session ends after this time without an event; half an hour is the usual timeout."""
SUM_RANK = 10
"""Rank of the sum that other sums are divided by, see `comparable_scores`."""
_SUM_OFFSET = 0.02
_RETURN_POWERS = (0.25, 1.0)
_RETURN_HALF_LIFE_MS = 30 * 24 * 60 * 60 * 1000.0


class Part(NamedTuple):
    """A trained model in a blend."""

    model: ServedModel
    """The trained model."""
    has_sums: bool
    """Whether the model's scores are sums of weights; if so, `comparable_scores` makes them comparable to logits."""


class ReturnFeatures(NamedTuple):
    """How often and how recently each item occurs in a history."""

    index: tf.Tensor
    """[U, 2] int64: query and item."""
    value: tf.Tensor
    """[U, 4] float32: see `RETURN_FEATURES`."""


class BlendInference(tf.Module):
    """A blend of trained models. Implements `ServedModel` and `PolicyScorer`; see `models.interface`."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        weights: Mapping[str, BlendWeights],
        item_counts: np.ndarray,
        trends: Sequence[Trends],
    ) -> None:
        """Builds a blend.

        Args:
          parts: P loaded models; if empty, the blend ranks by popularity and trend alone.
          weights: for each of the `RANKINGS`, the weights of the features.
          item_counts: [I] training events of each item.
          trends: for each half-life in `half_lives_of(weights)`, the trends of the items, all at the same M moments. A
            query uses the latest moment up to its time or, if there is none, the first moment.

        Raises:
          ValueError: the trends do not have the half-lives that `weights` needs.
        """
        super().__init__(name="blend")
        self._parts = [part.model for part in parts]
        self._has_sums = [part.has_sums for part in parts]
        self._num_items = len(item_counts)
        self.half_lives_days = half_lives_of(weights)
        if (given := tuple(each.half_life_days for each in trends)) != self.half_lives_days:
            raise ValueError(
                f"the blend's weights need trends with half-lives of {self.half_lives_days} days, got {given} days; "
                "compute the trends for `half_lives_of(weights)`"
            )
        self._weights = np.stack([_expand(weights[ranking], self.half_lives_days) for ranking in RANKINGS])  # [3, F]
        self._has_returns = bool(np.any(self._weights[:, -len(RETURN_FEATURES) :]))
        moment_ms, values = trends[0].moment_ms, np.stack([each.values for each in trends])
        counts = np.stack([*(each.recent[-1] for each in trends), trends[0].total[-1]])
        with tf.device(HOST):
            self._popularity = tf.Variable(log_popularity(item_counts), trainable=False, name="popularity")
            self._moment_ms = tf.Variable(moment_ms, trainable=False, name="trend_moment_ms", shape=[None])
            shape = [len(trends), None, self._num_items]  # M may change
            self._trend = tf.Variable(values, trainable=False, name="trend", shape=shape)
            # not used in scores: an export is refreshed from them and newer events
            self._counts = tf.Variable(counts, trainable=False, name="counts")

    def set_trends(self, moment_ms: np.ndarray, values: np.ndarray) -> None:
        """Replaces the trends and their moments. `moment_ms`: [M] moments. `values`: [L, M, I] trends, by half-life."""
        self._moment_ms.assign(moment_ms)
        self._trend.assign(values)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32: the scores for a ranking that hides seen items."""
        return self.policy_scores(queries)(True)

    def policy_scores(self, queries: Queries) -> Callable[[tf.Tensor | bool], tf.Tensor]:
        """Returns a function that scores the catalogue; see `PolicyScorer.policy_scores`."""
        features = [
            comparable_scores(part.catalogue_scores(queries), has_sums=has_sums)
            for part, has_sums in zip(self._parts, self._has_sums, strict=True)
        ]
        features += [self._popularity[None], *self._trends_at(queries.timestamp_ms)]
        returns = return_features(queries, self._num_items) if self._has_returns else None
        shape = [tf.shape(queries.visitor)[0], self._num_items]
        shown_row = tf.where(is_in_session(queries), RANKINGS.index("in_session"), RANKINGS.index("returning"))

        def score(is_seen_hidden: tf.Tensor | bool) -> tf.Tensor:
            row = tf.where(is_seen_hidden, RANKINGS.index("new_items"), shown_row)
            weights = tf.gather(tf.constant(self._weights), row)  # [B, F]
            is_used = self._used_features(is_seen_hidden)
            weighted = [weights[:, column, None] * each for column, each in enumerate(features) if is_used[column]]
            total = add_tensors(weighted) if weighted else tf.zeros(shape)
            if returns is None or not is_used[-len(RETURN_FEATURES) :].any():
                return total
            of_pair = tf.gather(weights[:, -len(RETURN_FEATURES) :], returns.index[:, 0])  # [U, 4]
            offset = tf.reduce_sum(returns.value * of_pair, axis=1)
            return tf.tensor_scatter_nd_add(total, returns.index, offset)

        return score

    def _used_features(self, is_seen_hidden: tf.Tensor | bool) -> np.ndarray:
        """[F] bool: whether the feature has a weight in any of the rankings that `is_seen_hidden` allows."""
        is_known = isinstance(is_seen_hidden, bool)  # a tensor allows all rankings
        rows = [row for row, name in enumerate(RANKINGS) if not is_known or (name == "new_items") == is_seen_hidden]
        is_used: np.ndarray = np.logical_or.reduce(self._weights[rows])
        return is_used

    def _trends_at(self, timestamp_ms: tf.Tensor) -> list[tf.Tensor]:
        """Returns a tensor [B, I] for each half-life: the trends at the moments of the queries.

        The moment of a query is the latest moment up to the query's time or, if there is none, the first moment.
        """
        moment = tf.searchsorted(self._moment_ms, timestamp_ms, side="right") - 1
        rows = tf.reshape(self._trend, [-1, self._num_items])  # of [L, M]; a slice of each half-life would be a copy
        num_moments = tf.shape(self._moment_ms)[0]
        return [
            tf.gather(rows, number * num_moments + tf.maximum(moment, 0)) for number in range(len(self.half_lives_days))
        ]

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """[B] float32: scores of the pairs (visitor[k], item[k]); both arguments are indices [B].

        Uses the blend weights for the ranking `new_items`, and the trends at the last moment.
        """
        weights = self._weights[RANKINGS.index("new_items")]
        known = tf.minimum(item, self._num_items - 1)
        features = [
            tf.fill(tf.shape(item), np.float32(np.log(_SUM_OFFSET))) if has_sums else part.pair_scores(visitor, item)
            for part, has_sums in zip(self._parts, self._has_sums, strict=True)
        ]
        features += [tf.gather(self._popularity, known), *tf.unstack(tf.gather(self._trend[:, -1], known, axis=1))]
        return add_tensors([weight * feature for weight, feature in zip(weights, features, strict=False)])

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        """[B, I] float32: similarity of each item in `item` [B] to every item, by the first model of the blend."""
        return self._parts[0].item_similarities(item)


def comparable_scores(scores: tf.Tensor, *, has_sums: bool) -> tf.Tensor:
    """Converts scores that are sums of weights to a logarithmic scale, like that of logits.

    A sum s becomes log(0.02 + s / r), where r is the 10th largest sum of the row, or the largest one if the 10th is not
    positive. Negative sums count as 0.

    Args:
      scores: [B, I] scores.
      has_sums: whether the scores are sums; if False, they are returned unchanged.
    """
    if not has_sums:
        return scores
    return log_sums(scores, sum_reference(top_k(scores, min(SUM_RANK, scores.shape[1] or SUM_RANK)).score))


def sum_reference(best: tf.Tensor) -> tf.Tensor:
    """[B, 1]: the divisor r of `comparable_scores`.

    `best`: [B, min(SUM_RANK, I)] the highest scores of each row, descending.
    """
    return tf.where(best[:, -1:] > 0, best[:, -1:], tf.maximum(best[:, :1], np.finfo(np.float32).tiny))


def log_sums(scores: tf.Tensor, reference: tf.Tensor) -> tf.Tensor:
    """Converts scores to the scale of `comparable_scores`. `scores`: [B, …]. `reference`: from `sum_reference`."""
    return tf.math.log(_SUM_OFFSET + tf.maximum(scores, 0.0) / reference)


def is_in_session(queries: Queries) -> tf.Tensor:
    """[B] bool: whether the history's last event is less than `SESSION_GAP_MS` before the query.

    True if the time of the last event is unknown; False if the history is empty.
    """
    has_history = queries.history_length > 0
    last = tf.maximum(queries.history_length - 1, 0)
    padded = [tf.pad(column, [[0, 0], [0, 1]]) for column in (queries.history_event, queries.history_timestamp_ms)]
    event, time_ms = (tf.gather(column, last, batch_dims=1) for column in padded)  # [B]
    is_recent = queries.timestamp_ms - time_ms < SESSION_GAP_MS
    return has_history & (is_recent | (event == UNKNOWN_EVENT))


def log_popularity(item_counts: np.ndarray) -> np.ndarray:
    """[I] float32: log(n + 0.25), where n is an item's number of training events."""
    return np.log(item_counts + 0.25).astype(np.float32)


def return_features(queries: Queries, num_items: int) -> ReturnFeatures:
    """Computes the `RETURN_FEATURES` of each item in the history of each query.

    `is_seen` is 1. The others are log(1 + 10 × Σ w), where Σ is over the item's entries in the history and w is:

    - frequency: (1 + a) ** -0.25, where a is the number of later entries in the history, of any item;
    - recency: (1 + a) ** -1;
    - recency in days: 0.5 ** (d / 30), where d is the age in days; an unknown age counts as 0.
    """
    is_entry = tf.sequence_mask(queries.history_length, tf.shape(queries.history, tf.int64)[1])
    entry = tf.where(is_entry & (queries.history >= 0) & (queries.history < num_items))  # [E, 2]
    flat = entry[:, 0] * num_items + tf.gather_nd(queries.history, entry)
    pair, owner = tf.unique(flat, out_idx=tf.int64)  # [U], [E]
    later = tf.cast(tf.gather(queries.history_length, entry[:, 0]) - 1 - entry[:, 1], tf.float32)
    weights = [*(tf.pow(1 + later, -power) for power in _RETURN_POWERS), _decay(queries, entry)]
    sums = [tf.math.unsorted_segment_sum(weight, owner, tf.size(pair)) for weight in weights]
    value = tf.stack([tf.ones_like(sums[0]), *(tf.math.log1p(10 * total) for total in sums)], axis=1)
    return ReturnFeatures(tf.stack([pair // num_items, pair % num_items], axis=1), value)


def _decay(queries: Queries, entry: tf.Tensor) -> tf.Tensor:
    """[E] float32: 0.5 ** (age / `_RETURN_HALF_LIFE_MS`) for the age of each `entry` [E, 2] (query, position).

    An unknown age is treated as 0.
    """
    age_ms = tf.gather(queries.timestamp_ms, entry[:, 0]) - tf.gather_nd(queries.history_timestamp_ms, entry)
    is_known = tf.gather_nd(queries.history_event, entry) != UNKNOWN_EVENT
    age = tf.where(is_known, tf.cast(tf.maximum(age_ms, 0), tf.float32) / _RETURN_HALF_LIFE_MS, 0.0)
    return tf.pow(0.5, age)


def _expand(weights: BlendWeights, half_lives_days: Sequence[float]) -> np.ndarray:
    """[F] float32: a ranking's weight of each blend feature; the trends of unused half-lives have the weight 0."""
    columns = weights.to_array()
    trends = [weights.trend * (days == weights.half_life_days) for days in half_lives_days]
    first = len(weights.parts) + 1
    return np.concatenate([columns[:first], np.array(trends, np.float32), columns[first + 1 :]])
