"""A blend: the weighted sum of trained models, of the popularity and trend of the items, and of the visitor's returns.

    score = Σ w_part × part + w_popularity × log(n + 0.25) + w_trend × trend + Σ w_return × return feature

There is one set of weights for lists without seen items, and one for lists with them, because visitors do not discover
new items in the same way as they return to old ones. Validation chooses the weights, see `evaluation.blend_weights`.

Shapes: B queries, H history, I items of the vocabulary, P parts, M moments, E history entries of known items, U
distinct (query, item) pairs among these entries.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.trend import Trends
from trainer.models.interface import Queries, ServedModel
from trainer.models.table_variables import HOST
from trainer.runs.blend_record import RETURN_FEATURES, BlendWeights

_SUM_RANK = 10
_SUM_OFFSET = 0.02
_RETURN_POWERS = (0.25, 1.0)


class Part(NamedTuple):
    """A trained model in a blend."""

    model: ServedModel
    """The trained model."""
    has_sums: bool
    """Whether its scores are sums of positive weights, which `comparable_scores` makes comparable to logits."""


class ReturnFeatures(NamedTuple):
    """How often and how recently each item of a history occurs in it."""

    index: tf.Tensor
    """[U, 2] int64: query and item."""
    value: tf.Tensor
    """[U, 3] float32: see `RETURN_FEATURES`."""


class BlendInference(tf.Module):
    """A blend of trained models; see `models.interface.ServedModel` and `PolicyScorer`."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        seen_hidden: BlendWeights,
        seen_shown: BlendWeights,
        item_counts: np.ndarray,
        trends: Trends,
    ) -> None:
        """Builds a blend.

        Args:
          parts: P models with their weights loaded; none for a ranking by popularity and trend.
          seen_hidden: weights for rankings that hide the items of the history.
          seen_shown: weights for rankings that show them.
          item_counts: [I] training events of each item.
          trends: the trends of the items. A query uses the trends of the latest moment up to its time; if all moments
            are later, those of the first.
        """
        super().__init__(name="blend")
        self._parts = [part.model for part in parts]
        self._has_sums = [part.has_sums for part in parts]
        self._num_items = len(item_counts)
        self._weights = np.stack([seen_shown.to_array(), seen_hidden.to_array()])  # [2, P + 2 + 3]
        self._has_returns = bool(np.any(self._weights[:, -len(RETURN_FEATURES) :]))
        self.half_life_days = trends.half_life_days
        with tf.device(HOST):
            self._popularity = tf.Variable(log_popularity(item_counts), trainable=False, name="popularity")
            self._moment_ms = _growing_variable(trends.moment_ms, "trend_moment_ms")
            self._trend = _growing_variable(trends.values, "trend")
            # not used in scores: an export is refreshed from them and newer events
            self._counts = tf.Variable(np.stack([trends.recent[-1], trends.total[-1]]), trainable=False, name="counts")

    def set_trends(self, moment_ms: np.ndarray, values: np.ndarray) -> None:
        """Replaces the trends by values [M, I] at other moments [M]; M may change."""
        self._moment_ms.assign(moment_ms)
        self._trend.assign(values)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32: the scores of rankings that hide seen items."""
        return self.policy_scores(queries)(True)

    def policy_scores(self, queries: Queries) -> Callable[[tf.Tensor | bool], tf.Tensor]:
        """Returns a function that maps `is_seen_hidden` to the scores [B, I] float32."""
        features = [
            comparable_scores(part.catalogue_scores(queries), has_sums=has_sums)
            for part, has_sums in zip(self._parts, self._has_sums, strict=True)
        ]
        moment = tf.searchsorted(self._moment_ms, queries.timestamp_ms, side="right") - 1
        features += [self._popularity[None], tf.gather(self._trend, tf.maximum(moment, 0))]
        returns = return_features(queries, self._num_items) if self._has_returns else None

        def score(is_seen_hidden: tf.Tensor | bool) -> tf.Tensor:
            weights = tf.constant(self._weights)[tf.cast(is_seen_hidden, tf.int32)]
            shape = [tf.shape(queries.visitor)[0], self._num_items]
            total = tf.zeros(shape)
            for column, feature in enumerate(features):
                if np.any(self._weights[:, column]):
                    total += weights[column] * feature
            if returns is None:
                return total
            offset = tf.linalg.matvec(returns.value, weights[-len(RETURN_FEATURES) :])
            return tf.tensor_scatter_nd_add(total, returns.index, offset)

        return score

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """[B] float32 scores of items [B] for visitors [B], given as indices; visitors have no history here."""
        weights = self._weights[1]
        known = tf.minimum(item, self._num_items - 1)
        scores = weights[-len(RETURN_FEATURES) - 2] * tf.gather(self._popularity, known)
        scores += weights[-len(RETURN_FEATURES) - 1] * tf.gather(self._trend[-1], known)
        for part, has_sums, weight in zip(self._parts, self._has_sums, weights, strict=False):
            pairs = part.pair_scores(visitor, item)
            scores += weight * (tf.fill(tf.shape(pairs), np.float32(np.log(_SUM_OFFSET))) if has_sums else pairs)
        return scores

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        """[B, I] float32: the item similarities of the first part."""
        return self._parts[0].item_similarities(item)


def comparable_scores(scores: tf.Tensor, *, has_sums: bool) -> tf.Tensor:
    """Puts scores [B, I] that are sums on a logarithmic scale, so that they can be added to logits.

    A sum becomes log(0.02 + sum / 10th largest sum of its row). If a row has no positive sum, all its scores become
    equal. Scores that are not sums (`has_sums` is False) are returned unchanged.
    """
    if not has_sums:
        return scores
    best = tf.math.top_k(scores, min(_SUM_RANK, scores.shape[1] or _SUM_RANK)).values
    reference = tf.where(best[:, -1:] > 0, best[:, -1:], tf.maximum(best[:, :1], np.finfo(np.float32).tiny))
    return tf.math.log(_SUM_OFFSET + tf.maximum(scores, 0.0) / reference)


def log_popularity(item_counts: np.ndarray) -> np.ndarray:
    """[I] float32: log(n + 0.25), where n is an item's number of training events."""
    return np.log(item_counts + 0.25).astype(np.float32)


def return_features(queries: Queries, num_items: int) -> ReturnFeatures:
    """Computes the `RETURN_FEATURES` of the items of the histories.

    The first feature is 1. The others are log(1 + 10 × Σ (1 + age) ** -power). The sum is over the entries with the
    item, and an entry's age is the number of later entries. A power of 0.25 measures frequency, a power of 1 recency.
    """
    is_entry = tf.sequence_mask(queries.history_length, tf.shape(queries.history)[1])
    entry = tf.where(is_entry & (queries.history >= 0) & (queries.history < num_items))  # [E, 2]
    flat = entry[:, 0] * num_items + tf.gather_nd(queries.history, entry)
    pair, owner = tf.unique(flat, out_idx=tf.int64)  # [U], [E]
    age = tf.gather(queries.history_length, entry[:, 0]) - 1 - entry[:, 1]
    sums = [
        tf.math.unsorted_segment_sum(tf.pow(1 + tf.cast(age, tf.float32), -power), owner, tf.size(pair))
        for power in _RETURN_POWERS
    ]
    value = tf.stack([tf.ones_like(sums[0]), *(tf.math.log1p(10 * total) for total in sums)], axis=1)
    return ReturnFeatures(tf.stack([pair // num_items, pair % num_items], axis=1), value)


def _growing_variable(value: np.ndarray, name: str) -> tf.Variable:
    """Makes a variable that can be assigned values with another first dimension."""
    return tf.Variable(value, trainable=False, name=name, shape=[None, *value.shape[1:]])
