"""Finds the candidate items of queries, and computes the features that a blend weighs.

Unless all items are candidates, the candidates come from several lists:

- for each part (a blended model), the items with the highest scores, and the highest sums of score and trend;
- the most popular items;
- for each half-life and each of the `TREND_WEIGHTS`, the items with the highest sums of popularity and weighted trend;
- if the ranking shows seen items, the history's items with the highest values of each return feature.

Shapes: B queries, C candidates, I items, M moments in time, L half-lives, T pairs of a half-life and a weight of the
trend, U pairs of a query and an item of its history, F features: see `blend_candidates`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.trend import ItemEvents, count_trends, moments_of
from trainer.evaluation.cases import Cases
from trainer.models.blend import SUM_RANK, Part, log_sums, return_features, sum_reference
from trainer.models.interface import Queries
from trainer.models.top_items import TopItems, top_k
from trainer.ranking.topk import hide
from trainer.runs.blend_record import RETURN_FEATURES

HALF_LIVES = (1.0, 3.0, 7.0, 14.0, 30.0)
"""Half-lives of the trend that validation chooses from, in days."""
TOP = 60
"""Number of candidates from each list; more than the 20 that NDCG@20 counts, because the blend
changes their order."""
TREND_WEIGHTS = (1.0, 4.0)
"""Weights of the trend in the lists of popularity and trend. Without the high weight, validation would overrate heavy
trends: the irrelevant items that they rank first would not be candidates."""
TREND_TOP = 40
"""Number of candidates from each list of popularity and trend; these lists overlap."""
NUM_COMMON_FEATURES = 1 + len(HALF_LIVES) + len(RETURN_FEATURES)
"""Number of features in addition to the scores of the parts."""


class ItemLists(NamedTuple):
    """Trends at the moments of cases, and the lists of items that do not depend on a part; n: length of a list."""

    moments: tf.Tensor
    """[M] int64: the moments (ms), ascending."""
    trends: tf.Tensor
    """[L × M × I] float32, flat: the trend for each half-life, moment and item."""
    rising: tf.Tensor
    """[M, n] int64: the items with the highest trends."""
    popular: tf.Tensor
    """[1, n] int64: the most popular items."""
    trending: tf.Tensor
    """[M, T, n] int64: the items with the highest sums of popularity and weighted trend, for each half-life and each of
    `TREND_WEIGHTS`."""

    @classmethod
    def signature(cls) -> "ItemLists":
        """Returns the `tf.function` signature of lists of any length, at any number of moments."""
        times, items = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.int64)
        lists = tf.TensorSpec([None, len(HALF_LIVES) * len(TREND_WEIGHTS), None], tf.int64)
        return cls(times, tf.TensorSpec([None], tf.float32), items, items, lists)


class _History(NamedTuple):
    """The return features (see `RETURN_FEATURES`) of each known item in each history of a chunk."""

    key: tf.Tensor
    """[U + 1] int64: query × I + item, ascending; the last key is greater than all others."""
    value: tf.Tensor
    """[U + 1, 4] float32: see `RETURN_FEATURES`; 0 for the last key."""


class CandidateSearch:
    """Finds the candidates of each query, and computes their features."""

    def __init__(self, parts: Sequence[Part], popularity: np.ndarray, *, hides_seen: bool, has_all_items: bool) -> None:
        """`popularity`: [I], see `log_popularity`; `CandidateFinder` explains the other arguments."""
        self._parts, self._hides_seen, self._num_items = parts, hides_seen, len(popularity)
        self._has_all_items = has_all_items
        self._top, self._trend_top = min(TOP, self._num_items), min(TREND_TOP, self._num_items)
        self._popularity = tf.constant(popularity)
        # two lists per part, the popular items, and the items of the history by each return feature but the first
        num_lists = 2 * len(parts) + 1 + (0 if hides_seen else len(RETURN_FEATURES) - 1)
        num_trending = len(HALF_LIVES) * len(TREND_WEIGHTS) * self._trend_top
        self.num_candidates = self._num_items if has_all_items else num_lists * self._top + num_trending
        self.num_features = len(parts) + NUM_COMMON_FEATURES

    def list_items(self, cases: Cases, events: ItemEvents) -> ItemLists:
        """Computes the trends at the moments of the cases, and the best items by trend and popularity."""
        moments = moments_of(cases.timestamp_ms, self._num_items)
        trends = np.stack([count_trends(events, moments, days).values for days in HALF_LIVES])
        middle = trends[len(HALF_LIVES) // 2]  # [M, I]
        # so long that enough items remain after the seen ones
        size = min(self._top + (_max_seen(cases) if self._hides_seen else 0), self._num_items)
        rising, popular = (top_k(scores, size).item for scores in (tf.constant(middle), self._popularity[None]))
        trending = [top_k(self._popularity + weight * trend, size).item for trend in trends for weight in TREND_WEIGHTS]
        return ItemLists(
            tf.constant(moments), tf.constant(trends.reshape(-1)), rising, popular, tf.stack(trending, axis=1)
        )

    def find(self, queries: Queries, lists: ItemLists) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns three tensors: [B, C] candidate items; [B, C] int64 mask, 0 for padding; [B, C, F] features."""
        moment = tf.maximum(tf.searchsorted(lists.moments, queries.timestamp_ms, side="right") - 1, 0)
        history = self._read_history(queries)
        scores = [part.model.catalogue_scores(queries) for part in self._parts]
        references, items = self._list_parts(queries, scores, lists, moment)
        if self._has_all_items:
            item = tf.tile(tf.range(self._num_items, dtype=tf.int64)[None], [tf.shape(moment)[0], 1])
        else:
            item = tf.sort(tf.concat(items + self._list_others(history, lists, moment), axis=1), axis=1)
        known = tf.maximum(item, 0)
        is_first = tf.concat([tf.ones_like(item[:, :1], tf.bool), item[:, 1:] != item[:, :-1]], axis=1)
        returns = self._returns_of(known, history)
        is_candidate = is_first & (item >= 0)
        if self._hides_seen:
            is_candidate &= returns[:, :, 0] == 0
        columns = [
            _feature(tf.gather(each, known, batch_dims=1), reference)
            for each, reference in zip(scores, references, strict=True)
        ]
        columns += [
            tf.gather(self._popularity, known),
            *self._trends_of(known, lists, moment),
            *tf.unstack(returns, axis=2),
        ]
        return known, tf.cast(is_candidate, tf.int64), tf.stack(columns, axis=2)

    def _list_parts(
        self, queries: Queries, scores: Sequence[tf.Tensor], lists: ItemLists, moment: tf.Tensor
    ) -> tuple[list[tf.Tensor | None], list[tf.Tensor]]:
        """Returns two lists: the `sum_reference` of each part, and the arrays that `_best_of_part` returns.

        The reference is None if the scores of the part are not sums.
        """
        references, items = list[tf.Tensor | None](), list[tf.Tensor]()
        for part, of_part in zip(self._parts, scores, strict=True):
            best = top_k(of_part, min(SUM_RANK if self._hides_seen else 2 * self._top, self._num_items))
            references.append(sum_reference(best.score[:, :SUM_RANK]) if part.has_sums else None)
            visible = of_part
            if self._hides_seen:
                visible = hide(of_part, queries.history, queries.history_length)
                best = top_k(visible, min(2 * self._top, self._num_items))
            items += self._best_of_part(visible, best, references[-1], lists, moment)
        return references, items

    def _list_others(self, history: _History, lists: ItemLists, moment: tf.Tensor) -> list[tf.Tensor]:
        """Returns the lists that do not depend on a part, as arrays of items [B, n]; -1 is padding."""
        popular = tf.tile(lists.popular[:, None], [tf.shape(moment)[0], 1, 1])
        items = [
            self._first_visible(popular, history, self._top),
            self._first_visible(tf.gather(lists.trending, moment), history, self._trend_top),
        ]
        return items if self._hides_seen else items + self._best_returns(history, tf.shape(moment)[0])

    def _best_of_part(
        self, scores: tf.Tensor, best: TopItems, reference: tf.Tensor | None, lists: ItemLists, moment: tf.Tensor
    ) -> list[tf.Tensor]:
        """Returns two arrays of items [B, TOP]: the best by score, and the best by the sum of score and trend."""
        rising = tf.gather(lists.rising, moment)
        score = tf.gather(scores, rising, batch_dims=1)
        is_among_best = tf.reduce_any(rising[:, :, None] == best.item[:, None, :], axis=2)
        item = tf.concat([best.item, rising], axis=1)
        score = tf.concat([best.score, tf.where(is_among_best, -np.inf, score)], axis=1)
        feature = tf.where(score > -np.inf, _feature(score, reference), 0.0)
        spread = tf.math.reduce_std(feature[:, : self._top], axis=1, keepdims=True)
        trend = self._trends_of(item, lists, moment)[len(HALF_LIVES) // 2]
        with_trend = tf.where(score > -np.inf, feature + spread * trend, -np.inf)
        chosen = tf.math.top_k(with_trend, self._top).indices
        return [best.item[:, : self._top], tf.gather(item, chosen, batch_dims=1)]

    def _first_visible(self, item: tf.Tensor, history: _History, count: int) -> tf.Tensor:
        """[B, T × count]: the first `count` visible items of each of the T lists in `item` [B, T, n]."""
        rows, size = tf.shape(item)[0], tf.shape(item)[2]
        if self._hides_seen:
            _, is_seen = self._find_seen(tf.reshape(item, [rows, -1]), history)
            position = tf.where(tf.reshape(is_seen, tf.shape(item)), size, tf.range(size))
            item = tf.gather(item, tf.math.top_k(-position, count).indices, batch_dims=2)
        return tf.reshape(item[:, :, :count], [rows, -1])

    def _read_history(self, queries: Queries) -> _History:
        index, value = return_features(queries, self._num_items)
        key = index[:, 0] * self._num_items + index[:, 1]
        order = tf.argsort(key)
        key = tf.concat([tf.gather(key, order), [tf.int64.max]], axis=0)
        return _History(key, tf.pad(tf.gather(value, order), [[0, 1], [0, 0]]))

    def _returns_of(self, item: tf.Tensor, history: _History) -> tf.Tensor:
        """[B, n, 4]: the `RETURN_FEATURES` of each item; 0 for items outside the history. `item`: [B, n]."""
        index, is_seen = self._find_seen(item, history)
        return tf.where(is_seen[:, :, None], tf.gather(history.value, index), 0.0)

    def _find_seen(self, item: tf.Tensor, history: _History) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns two tensors [B, n]: the index in `history` of each item, and whether the item is in the history.

        `item`: [B, n].
        """
        key = tf.range(tf.shape(item, tf.int64)[0])[:, None] * self._num_items + item
        index = tf.reshape(tf.searchsorted(history.key, tf.reshape(key, [-1])), tf.shape(item))
        return index, tf.gather(history.key, index) == key

    def _best_returns(self, history: _History, num_queries: tf.Tensor) -> list[tf.Tensor]:
        """Finds the history items that have the highest values of each return feature except `is_seen`.

        Returns an array [B, TOP] per feature; -1 is padding.
        """
        query, size = history.key[:-1] // self._num_items, tf.size(history.key) - 1
        index = tf.RaggedTensor.from_value_rowids(tf.range(size), query, tf.cast(num_queries, tf.int64), validate=False)
        rows = index.to_tensor(size)  # the last key is padding
        missing = tf.maximum(self._top - tf.shape(rows)[1], 0)
        rows = tf.pad(rows, [[0, 0], [0, missing]], constant_values=size)
        item = tf.gather(tf.concat([history.key[:-1] % self._num_items, [-1]], axis=0), rows)
        return [
            tf.gather(item, tf.math.top_k(tf.gather(column, rows), self._top).indices, batch_dims=1)
            for column in tf.unstack(history.value, axis=1)[1:]
        ]

    def _trends_of(self, item: tf.Tensor, lists: ItemLists, moment: tf.Tensor) -> list[tf.Tensor]:
        """Returns a tensor [B, n] per half-life: the items' trends. `item`: [B, n]. `moment`: [B] moment indices."""
        cell = tf.cast(moment, tf.int64)[:, None] * self._num_items + item
        size = tf.size(lists.moments, tf.int64) * self._num_items
        return [tf.gather(lists.trends, number * size + cell) for number in range(len(HALF_LIVES))]


def _max_seen(cases: Cases) -> int:
    """Returns the largest number of distinct known items in any history."""
    return int(cases.history.distinct_items(0, len(cases), cases.num_items).lengths.max(initial=0))


def _feature(scores: tf.Tensor, reference: tf.Tensor | None) -> tf.Tensor:
    """Converts the scores of a blended model with `log_sums`; if `reference` is None, returns them unchanged."""
    return scores if reference is None else log_sums(scores, reference)
