"""Finds the candidate items of evaluation cases and their features; `blend_search` fits the weights of a blend to them.

If cases × items is at most `MAX_CELLS`, all items are candidates. Otherwise, the candidates come from several lists:

- for each part (a blended model), the items with the highest scores, and the highest sums of score and trend;
- the most popular items;
- for each half-life and each of the `TREND_WEIGHTS`, the items with the highest sums of popularity and weighted trend;
- if the ranking shows seen items, the history's items with the highest values of each return feature.

Shapes: V cases, W cases that have a relevant candidate, B cases of a chunk, C candidates, I items, M moments in time, L
half-lives, T pairs of a half-life and a weight of the trend, U pairs of a query and an item of its history, F features.
The features are the scores of P parts, the popularity, a trend per half-life, and the return features.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.data.trend import ItemEvents, count_trends, moments_of
from trainer.distributed.precision import full_float32
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases
from trainer.models.blend import SUM_RANK, Part, log_popularity, log_sums, return_features, sum_reference
from trainer.models.interface import Queries
from trainer.models.top_items import TopItems, top_k
from trainer.ranking.topk import chunk_size, hide, query_chunks, query_signature, translate_divergence_errors
from trainer.runs.blend_record import RETURN_FEATURES

HALF_LIVES = (1.0, 3.0, 7.0, 14.0, 30.0)
"""Half-lives of the trend that validation chooses from, in days."""
LIST_LENGTH = 20
TOP = 60
"""Number of candidates from each list; more than `LIST_LENGTH`, because the blend changes their order."""
TREND_WEIGHTS = (1.0, 4.0)
"""Weights of the trend in the lists of popularity and trend. Without the high weight, validation would overrate heavy
trends: the irrelevant items that they rank first would not be candidates."""
TREND_TOP = 40
"""Number of candidates from each list of popularity and trend; these lists overlap."""
MAX_CELLS = 720_000
"""Maximum number of cases × items for which all items are candidates; 2,000 cases have about as many candidates."""
NUM_COMMON_FEATURES = 1 + len(HALF_LIVES) + len(RETURN_FEATURES)
"""Number of features in addition to the scores of the parts."""
_THREADS = (
    2  # chunks that are ranked at once: while one waits for a step with one thread, the other uses the other cores
)
_DISCOUNT = np.append(1 / np.log2(np.arange(LIST_LENGTH) + 2.0), 0.0)
"""The gain of a relevant item in the DCG, by its rank; the last value is for all ranks after the list."""


@dataclass(frozen=True)
class Candidates:
    """The candidate items of evaluation cases, and the items' features. Blend weights are chosen on this data."""

    feature: np.ndarray
    """[V, C, F] float32: features of the candidates."""
    is_relevant: np.ndarray
    """[V, C] bool: whether the candidate is relevant."""
    is_candidate: np.ndarray
    """[V, C] bool: False for padding."""
    num_relevant: np.ndarray
    """[V] int64: relevant items of each case, including those that are not candidates."""

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """[V]: NDCG@20 of each case for `scores` [V, C]; among equal scores, relevant candidates rank last."""
        return self.ndcg_of_hits(np.where(self.is_candidate, scores, -np.inf)[self.hits])

    def ndcg_of_hits(self, scores: np.ndarray) -> np.ndarray:
        """[V]: NDCG@20 of each case; 0 for cases that have no relevant candidate.

        `scores`: [W, C] in the order of `hits`; -inf for padding.
        """
        gain = np.zeros(len(scores))
        # counting better candidates takes a third of the time of a partial sort, which ranks all others as well
        for position in self._relevant_columns:
            rows = scores[: len(position)]
            own = np.take_along_axis(rows, position[:, None], 1)
            rank = np.count_nonzero(rows >= own, axis=1) - 1
            gain[: len(position)] += _DISCOUNT[np.minimum(rank, LIST_LENGTH)]
        values = np.zeros(len(self.num_relevant))
        values[self.hits] = gain / np.cumsum(_DISCOUNT)[np.minimum(self.num_relevant[self.hits], LIST_LENGTH) - 1]
        return values

    @cached_property
    def hits(self) -> np.ndarray:
        """[W] indices of the cases that have relevant candidates; those with the most of them come first."""
        count = self.is_relevant.sum(axis=1)
        return np.argsort(-count, kind="stable")[: np.count_nonzero(count)]

    @cached_property
    def columns(self) -> np.ndarray:
        """[F, W, C] float32: features of the candidates of the cases `hits`."""
        return np.ascontiguousarray(np.moveaxis(self.feature[self.hits], 2, 0))

    @cached_property
    def spreads(self) -> list[float]:
        """For each blended model: the standard deviation of its `TOP` highest scores per case, averaged over cases."""
        num_parts = self.feature.shape[2] - NUM_COMMON_FEATURES
        return [_typical_spread(self.feature[:, :, part], self.is_candidate) for part in range(num_parts)]

    @cached_property
    def _relevant_columns(self) -> list[np.ndarray]:
        """For k = 0, 1, …: the columns of the k-th relevant candidates, an array over the cases that have one.

        These are the first cases of `hits`.
        """
        is_relevant = self.is_relevant[self.hits]
        count = is_relevant.sum(axis=1)
        position = np.argsort(~is_relevant, axis=1, kind="stable")
        return [position[: (count > number).sum(), number] for number in range(count.max(initial=0))]


class _Lists(NamedTuple):
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
    def signature(cls) -> "_Lists":
        """Returns the `tf.function` signature of lists of any length, at any number of moments."""
        times, items = tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, None], tf.int64)
        lists = tf.TensorSpec([None, len(HALF_LIVES) * len(TREND_WEIGHTS), None], tf.int64)
        return cls(times, tf.TensorSpec([None], tf.float32), items, items, lists)


class CandidateFinder:
    """Finds the candidates of cases, and computes their features; compiles only once for all cases."""

    def __init__(
        self,
        parts: Sequence[Part],
        events: ItemEvents,
        item_counts: np.ndarray,
        replicas: Replicas | None = None,
        *,
        hides_seen: bool,
        has_all_items: bool = False,
    ) -> None:
        """Compiles the search.

        Args:
          parts: the models.
          events: events of all splits; the trends for a case use only events before the case.
          item_counts: [I] training events of each item.
          replicas: all replicas; each worker handles a part of the cases. None: this process handles all cases.
          hides_seen: whether to exclude the items of a case's history.
          has_all_items: whether all items are candidates, see `MAX_CELLS`.
        """
        self._events, self._replicas, self._hides_seen = events, replicas, hides_seen
        self._search = _Search(parts, log_popularity(item_counts), hides_seen=hides_seen, has_all_items=has_all_items)
        # the features of all items take as much memory as the scores of as many more queries
        columns = self._search.num_features if has_all_items else 1
        self._chunk_size = max(chunk_size(events.num_items) // (_THREADS * columns), 1)
        # traced before the first call; otherwise TensorFlow mistakes the calls of several blends for retracing, and
        # warns
        self._find = tf.function(
            self._search.find,
            input_signature=[query_signature(self._chunk_size), _Lists.signature()],
            autograph=False,
        ).get_concrete_function()

    def find(
        self,
        cases: Cases,
        on_chunk: Callable[[], None] = lambda: None,
        *,
        deadline: float | None = None,
        least_cases: int = 0,
    ) -> Candidates:
        """Finds the candidates of each case.

        Args:
          cases: cases of the dataset that the events are from.
          on_chunk: called before each chunk of cases.
          deadline: time on the clock `time.monotonic` at which to stop; later cases are missing in the result. None: no
            limit. Must be None if there are several workers.
          least_cases: minimum number of cases, even after the deadline; all cases if there are fewer.
        """
        lists = self._search.list_items(cases, self._events)
        item = np.zeros((len(cases), self._search.num_candidates), np.int64)
        is_candidate = np.zeros_like(item)
        feature = np.zeros((*item.shape, self._search.num_features), np.float32)

        def rank(chunk: slice, queries: Queries) -> None:
            with full_float32(), translate_divergence_errors():
                found = self._find(queries, lists)
            count = chunk.stop - chunk.start
            item[chunk], is_candidate[chunk], feature[chunk] = (column[:count].numpy() for column in found)

        num_ranked = self._rank_chunks(rank, cases, on_chunk, deadline, least_cases)
        if self._replicas is not None:
            item, is_candidate, feature = (
                self._replicas.sum_over_workers(column) for column in (item, is_candidate, feature)
            )
        if deadline is not None:
            cases = cases.take(np.arange(num_ranked))
        return _make_candidates(
            cases, item[: len(cases)], is_candidate[: len(cases)], feature[: len(cases)], hides_seen=self._hides_seen
        )

    def _rank_chunks(
        self,
        rank: Callable[[slice, Queries], None],
        cases: Cases,
        on_chunk: Callable[[], None],
        deadline: float | None,
        least_cases: int,
    ) -> int:
        """Calls `rank` for this worker's chunks until the deadline; returns the end of the last chunk."""
        with ThreadPoolExecutor(_THREADS) as pool:
            ranked, num_ranked = deque[Future[None]](), 0
            for chunk, queries in query_chunks(
                cases.visitor, cases.history, cases.timestamp_ms, self._chunk_size, self._replicas
            ):
                on_chunk()
                if deadline is not None and num_ranked >= least_cases and time.monotonic() > deadline:
                    break
                if len(ranked) == _THREADS:
                    ranked.popleft().result()
                ranked.append(pool.submit(rank, chunk, queries))
                num_ranked = chunk.stop
            for each in ranked:
                each.result()
        return num_ranked


def _make_candidates(
    cases: Cases, item: np.ndarray, is_candidate: np.ndarray, feature: np.ndarray, *, hides_seen: bool
) -> Candidates:
    """Moves the padding behind the candidates, and finds the relevant candidates; see `_Search.find` for the shapes."""
    is_known = is_candidate.astype(bool)
    # candidates first, so that the padding after the longest row can be dropped
    order = np.argsort(~is_known, axis=1, kind="stable")[
        :, : max(int(is_known.sum(axis=1).max(initial=0)), LIST_LENGTH)
    ]
    item, is_known = (np.take_along_axis(column, order, axis=1) for column in (item, is_known))
    relevant = cases.relevant if hides_seen == cases.hides_seen else cases.secondary_relevant
    pairs = relevant.owner * cases.num_items + relevant.values
    is_relevant = is_known & np.isin(np.arange(len(cases))[:, None] * cases.num_items + item, pairs)
    feature = np.take_along_axis(feature, order[:, :, None], axis=1)
    return Candidates(feature, is_relevant, is_known, relevant.lengths)


def join_candidates(found: Iterable[Candidates]) -> Candidates:
    """Joins the candidates of several samples of cases; pads all cases to the same number of candidates."""
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


class _History(NamedTuple):
    """The return features (see `RETURN_FEATURES`) of each known item in each history of a chunk."""

    key: tf.Tensor
    """[U + 1] int64: query × I + item, ascending; the last key is greater than all others."""
    value: tf.Tensor
    """[U + 1, 4] float32: see `RETURN_FEATURES`; 0 for the last key."""


class _Search:
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

    def list_items(self, cases: Cases, events: ItemEvents) -> _Lists:
        """Computes the trends at the moments of the cases, and the best items by trend and popularity."""
        moments = moments_of(cases.timestamp_ms, self._num_items)
        trends = np.stack([count_trends(events, moments, days).values for days in HALF_LIVES])
        middle = trends[len(HALF_LIVES) // 2]  # [M, I]
        # so long that enough items remain after the seen ones
        size = min(self._top + (_max_seen(cases) if self._hides_seen else 0), self._num_items)
        rising, popular = (top_k(scores, size).item for scores in (tf.constant(middle), self._popularity[None]))
        trending = [top_k(self._popularity + weight * trend, size).item for trend in trends for weight in TREND_WEIGHTS]
        return _Lists(
            tf.constant(moments), tf.constant(trends.reshape(-1)), rising, popular, tf.stack(trending, axis=1)
        )

    def find(self, queries: Queries, lists: _Lists) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
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
        self, queries: Queries, scores: Sequence[tf.Tensor], lists: _Lists, moment: tf.Tensor
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

    def _list_others(self, history: _History, lists: _Lists, moment: tf.Tensor) -> list[tf.Tensor]:
        """Returns the lists that do not depend on a part, as arrays of items [B, n]; -1 is padding."""
        popular = tf.tile(lists.popular[:, None], [tf.shape(moment)[0], 1, 1])
        items = [
            self._first_visible(popular, history, self._top),
            self._first_visible(tf.gather(lists.trending, moment), history, self._trend_top),
        ]
        return items if self._hides_seen else items + self._best_returns(history, tf.shape(moment)[0])

    def _best_of_part(
        self, scores: tf.Tensor, best: TopItems, reference: tf.Tensor | None, lists: _Lists, moment: tf.Tensor
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

    def _trends_of(self, item: tf.Tensor, lists: _Lists, moment: tf.Tensor) -> list[tf.Tensor]:
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


def _typical_spread(scores: np.ndarray, is_candidate: np.ndarray) -> float:
    count = min(TOP, scores.shape[1])
    best = -np.partition(np.where(is_candidate, -scores, np.inf), count - 1, axis=1)[:, :count]
    return max(float(np.std(np.where(np.isfinite(best), best, best.max(axis=1, keepdims=True)), axis=1).mean()), 1e-6)
