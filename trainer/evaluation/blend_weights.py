"""Chooses the weights of a blend on the validation split.

For a sample of cases, the best items of every part become candidates, with the features of the blend. Coordinate ascent
over a grid then maximises NDCG@20 among the candidates, starting from the best single feature. A weight is changed only
for a clear gain, so that noise adds no feature. Each kind of ranking has cases, weights and a half-life of its own.

Shapes: V cases, B cases of a chunk, C candidates, F features: P parts, popularity, a trend per half-life, the return
features; I items.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from contract.schema import Split
from trainer.data.dataset import Dataset
from trainer.data.trend import ItemEvents, count_trends, latest_trends, moments_of
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import HELD_OUT_SHARE, Cases, build_cases, next_items, returning_visitors
from trainer.models.blend import (
    SESSION_GAP_MS,
    BlendInference,
    Part,
    comparable_scores,
    log_popularity,
    return_features,
)
from trainer.models.interface import Queries, Scorer, ServedModel
from trainer.ranking.topk import chunk_size, hide, query_chunks, query_signature, top_k, translate_divergence_errors
from trainer.runs.blend_record import RANKINGS, RETURN_FEATURES, BlendWeights, half_lives_of

log = logging.getLogger(__name__)

HALF_LIVES = (1.0, 3.0, 7.0, 14.0, 30.0)
"""Half-lives of the trend that validation chooses from, in days."""
LIST_LENGTH = 20
MAX_CASES = 2000
_BASELINE_CASES, _BASELINE_SCORES = 1000, 50_000_000
_TOP = 60  # candidates from each list; the blend ranks 20 of them
_LEAST_GAIN = 0.003  # a weight is changed only if NDCG@20 grows by at least this share of its value,
_LEAST_ERRORS = 1.0  # and by this many standard errors of the difference: few cases are noisy
_PASSES = 4
_THREADS = min(os.cpu_count() or 1, 8)
_GRID = (0.0, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
_SIGNED = tuple(sorted({-x for x in _GRID} | set(_GRID)))
_DISCOUNT = np.append(1 / np.log2(np.arange(LIST_LENGTH) + 2.0), 0.0)
"""What a relevant item adds to the DCG, by its rank; the last value is for all items after the list."""


@dataclass(frozen=True)
class Candidates:
    """The candidates of a sample of cases."""

    feature: np.ndarray
    """[V, C, F] float32."""
    is_relevant: np.ndarray
    """[V, C] bool: whether the candidate is relevant."""
    is_candidate: np.ndarray
    """[V, C] bool: False for padding."""
    num_relevant: np.ndarray
    """[V] int64: relevant items of each case, including those that are not candidates."""

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """[V]: NDCG@20 of the ranking by scores [V, C]; ties count against a relevant candidate."""
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
        """An order of the cases, [V], and the position of the r-th relevant candidate of the first cases of it.

        The cases with most relevant candidates come first, so that those with an r-th one are the first ones.
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
    """Finds the candidates of cases: the best items of each part with the trend and without it, and history items.

    Args:
      parts: the models of the blend.
      cases: the cases.
      events: events of all splits; for each case, only those before its moment count.
      item_counts: [I] training events of each item.
      replicas: their workers share the chunks.
      on_chunk: called before each chunk.
      hides_seen: whether to rank as the cases' ranking that hides seen items, or as the one that shows them.
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
    """Joins the candidates of several samples of cases, at least one; shorter rows are padded."""
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
    """Finds the candidates of a chunk of queries, and computes their features."""

    def __init__(
        self, parts: Sequence[Part], moments: tf.Tensor, trends: tf.Tensor, popularity: tf.Tensor, hides_seen: bool
    ) -> None:
        self._parts, self._moments, self._trends, self._popularity = parts, moments, trends, popularity
        self._hides_seen = hides_seen
        self._num_items = int(popularity.shape[0])
        self._top = min(_TOP, self._num_items)
        # lists with and without trend, and the most frequent and the most recent items of the history
        self.num_candidates = (2 * len(parts) + (2 if hides_seen else 4)) * self._top

    def find(self, queries: Queries) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns items [B, C], whether each is a candidate [B, C] (int64, 1 or 0), and features [B, C, F]."""
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
        """Computes the return features, each [B, I]; those of other items are 0."""
        found = return_features(queries, self._num_items)
        shape = tf.stack([tf.shape(queries.visitor, tf.int64)[0], self._num_items])
        return [tf.scatter_nd(found.index, column, shape) for column in tf.unstack(found.value, axis=1)]


def _spread(scores: tf.Tensor, count: int) -> tf.Tensor:
    """[B, 1]: the standard deviation of the `count` highest scores of each row."""
    return tf.math.reduce_std(top_k(scores, count).score, axis=1, keepdims=True)


@dataclass(frozen=True)
class Choice:
    """The chosen weights of one ranking."""

    weights: BlendWeights
    value: float
    """NDCG@20 among the candidates."""
    alone: tuple[float, ...]
    """NDCG@20 of each part alone."""
    frequency: float | None
    """NDCG@20 of the visitor's own most frequent items; None: the ranking has no return features."""


def choose_weights(candidates: Candidates, num_parts: int, half_life: int, *, has_returns: bool) -> Choice:
    """Chooses weights by coordinate ascent, with the trend of the half-life `HALF_LIVES[half_life]`.

    An ascent starts from the single part (or the popularity) that is best with the trend added, another one from the
    visitor's own most frequent or most recent items; the better one is used. So, on these cases, the blend is at least
    as good as any of them with the trend.
    """
    ascents, alone = [], dict[int, float]()
    for columns in _starts(num_parts, has_returns=has_returns):
        ascents.append(_Ascent(candidates, num_parts, half_life, has_returns=has_returns))
        alone |= ascents[-1].start(columns)
        ascents[-1].climb()
    best = max(ascents, key=lambda ascent: ascent.best)
    weights = BlendWeights.from_array(best.weight * best.unit, HALF_LIVES[half_life])
    frequency = alone[num_parts + 3] if has_returns else None
    return Choice(weights, best.best, tuple(alone[column] for column in range(num_parts)), frequency)


def choose_half_life(candidates: Candidates, num_parts: int, *, has_returns: bool) -> int:
    """Returns the index into `HALF_LIVES` that `longest_of_the_best` chooses.

    The half-lives are compared with the other features at the weights that one pass of the ascent gives them.
    """
    ascent = _Ascent(candidates, num_parts, len(HALF_LIVES) // 2, has_returns=has_returns)
    ascent.start([column for columns in _starts(num_parts, has_returns=has_returns) for column in columns])
    ascent.climb(passes=1)
    return longest_of_the_best(np.stack([ascent.values_with(half_life) for half_life in range(len(HALF_LIVES))]))


def _starts(num_parts: int, *, has_returns: bool) -> list[list[int]]:
    """The columns that ascents start from: parts and popularity; frequency and recency of the visitor's own items."""
    return [[*range(num_parts + 1)], *([[num_parts + 3, num_parts + 4]] if has_returns else [])]


class _Ascent:
    """The state of the coordinate ascent; its weights apply to the parts' scores divided by their typical spread."""

    def __init__(self, candidates: Candidates, num_parts: int, half_life: int, *, has_returns: bool) -> None:
        self._candidates, self._num_parts = candidates, num_parts
        trend, returns = num_parts + 1 + half_life, num_parts + 1 + len(HALF_LIVES)
        columns = [*range(num_parts + 1), trend, *range(returns, returns + len(RETURN_FEATURES))]
        self.unit = np.ones(len(columns), np.float32)
        self._feature = np.moveaxis(candidates.feature[:, :, columns], 2, 0).copy()  # [F, V, C], in units
        for part in range(num_parts):
            self.unit[part] = 1 / _typical_spread(self._feature[part], candidates.is_candidate)
            self._feature[part] *= self.unit[part]
        self.weight = np.zeros(len(columns), np.float32)
        self._total = np.zeros_like(self._feature[0])
        self._values = np.zeros(len(candidates.num_relevant))
        self._grids = [_GRID] * num_parts + [_SIGNED, _GRID] + ([_SIGNED] * len(RETURN_FEATURES) if has_returns else [])

    def start(self, columns: Sequence[int]) -> dict[int, float]:
        """Starts with the one of these features that is best with the trend; returns NDCG@20 of each alone."""
        alone = {column: self._candidates.ndcg(self._feature[column]) for column in columns}
        starts = []
        for first, values in alone.items():
            self.weight[:] = 0
            self.weight[first], self._total, self._values = 1.0, self._feature[first], values
            self.improve(self._num_parts + 1, _GRID, is_local=False)
            starts.append((self.best, self.weight.copy(), self._total, self._values))
        _, self.weight, self._total, self._values = max(starts, key=lambda start: start[0])
        return {column: float(values.mean()) for column, values in alone.items()}

    def climb(self, passes: int = _PASSES) -> None:
        """Improves all weights, one after the other, until a pass changes none."""
        # returns last, because they depend on all others
        order = [self._num_parts + 1, *range(self._num_parts + 1), *range(self._num_parts + 2, len(self._grids))]
        for number in range(passes):
            before = self.best
            for column in order:
                self.improve(column, self._grids[column], is_local=number > 0)
            if self.best == before:
                break

    def values_with(self, half_life: int) -> np.ndarray:
        """[V]: NDCG@20 with the trend of another half-life, at its best weight."""
        column = self._num_parts + 1
        rest = self._total - self.weight[column] * self._feature[column]
        trend = self._candidates.feature[:, :, column + half_life]
        return max(self._measure(rest, trend, _GRID), key=lambda values: float(values.mean()))

    def _measure(self, rest: np.ndarray, feature: np.ndarray, weights: Sequence[float]) -> list[np.ndarray]:
        """Returns NDCG@20 of each case [V] for each weight of a feature added to `rest`."""
        with ThreadPoolExecutor(_THREADS) as pool:  # NumPy computes without the lock of the interpreter
            return list(pool.map(lambda weight: self._candidates.ndcg(rest + weight * feature), weights))

    @property
    def best(self) -> float:
        """NDCG@20 of the current weights."""
        return float(self._values.mean())

    def improve(self, column: int, grid: Sequence[float], *, is_local: bool) -> None:
        """Sets one weight to the best value of `grid` if the gain is clear; `is_local`: tries only nearby values."""
        now = grid.index(float(self.weight[column]))
        near = {0.0, *grid[max(now - 2, 0) : now + 3]} if is_local else set(grid)
        rest = self._total - self.weight[column] * self._feature[column]
        values = sorted(near - {grid[now]})
        found = self._measure(rest, self._feature[column], values)
        choice = int(np.argmax([value.mean() for value in found]))
        gain = found[choice] - self._values
        error = gain.std() / np.sqrt(len(gain))
        if gain.mean() > max(_LEAST_GAIN * self.best, _LEAST_ERRORS * error):
            self.weight[column], self._values = values[choice], found[choice]
            self._total = rest + self.weight[column] * self._feature[column]


def _typical_spread(scores: np.ndarray, is_candidate: np.ndarray) -> float:
    """The standard deviation of the best scores of a case, averaged over the cases."""
    count = min(_TOP, scores.shape[1])
    best = -np.partition(np.where(is_candidate, -scores, np.inf), count - 1, axis=1)[:, :count]
    return max(float(np.std(np.where(np.isfinite(best), best, best.max(axis=1, keepdims=True)), axis=1).mean()), 1e-6)


@dataclass(frozen=True)
class BlendFit:
    """The weights that validation chose, and their NDCG@20 in validation."""

    weights: dict[str, BlendWeights]
    """The weights of each of the `RANKINGS`."""
    validation: dict[str, Any]
    """See `BlendRecord.validation`."""


def fit_blend(
    parts: Sequence[Part],
    dataset: Dataset,
    events: ItemEvents,
    *,
    kinds: Sequence[str] = (),
    held_out_seed: int | None = None,
    has_trend_only: bool = False,
    max_cases: int = MAX_CASES,
    replicas: Replicas | None = None,
    on_chunk: Callable[[], None] = lambda: None,
) -> BlendFit:
    """Chooses the weights on the validation split; without one, or without cases, the parts are averaged.

    Args:
      parts: P models.
      dataset: the dataset.
      events: its events, of all splits.
      kinds: event kinds that make an item relevant; empty: all.
      held_out_seed: seed of the part with a second stage. That stage was trained on next items of some validation
        visitors, so their next items are not used again. None: no part has a second stage, so all visitors are used.
      has_trend_only: whether parts, popularity and trend are the only features, as for baselines.
      max_cases: maximum number of cases per protocol; if there are more, a random sample is used.
      replicas: their workers share the ranking and get the same weights.
      on_chunk: called before each chunk of cases.
    """
    cases = {}
    if Split.VALIDATION in dataset.manifest.splits:
        cases = ranking_cases(dataset, kinds, held_out_seed=held_out_seed)
    choices, counts = {}, {}
    for ranking, kinds_of_cases in cases.items():
        hides_seen = ranking == "new_items"
        samples = [each.sample_cases(max_cases // len(kinds_of_cases), seed=0) for each in kinds_of_cases]
        found = join_candidates(
            find_candidates(parts, sample, events, dataset.item_counts, replicas, on_chunk, hides_seen=hides_seen)
            for sample in samples
        )
        has_returns = not hides_seen and not has_trend_only
        half_life = choose_half_life(found, len(parts), has_returns=has_returns)
        choices[ranking] = choose_weights(found, len(parts), half_life, has_returns=has_returns)
        counts[ranking] = sum(map(len, samples))
    validation = {
        ranking: {
            "cases": counts[ranking],
            "parts": list(choice.alone),
            "frequency": choice.frequency,
            "blend": choice.value,
        }
        for ranking, choice in choices.items()
    }
    weights = _fill_missing({ranking: choice.weights for ranking, choice in choices.items()}, len(parts))
    return BlendFit(weights, {ranking: validation.get(ranking) for ranking in RANKINGS})


def ranking_cases(
    dataset: Dataset, kinds: Sequence[str] = (), *, held_out_seed: int | None = None
) -> dict[str, list[Cases]]:
    """Returns the validation cases of each of the `RANKINGS`, by protocol; rankings without cases are skipped.

    A visitor who comes back wants a next item, and other items later. Returning visitors alone are not enough: those
    without a new item are no cases, so weights that are chosen on the others underrate seen items.

    Args:
      dataset: the dataset, with a validation split.
      kinds: event kinds that make an item relevant; empty: all.
      held_out_seed: see `fit_blend`.
    """
    visitors, rows = (build_cases(dataset, Split.VALIDATION, of, kinds) for of in (returning_visitors, next_items))
    held_out = [
        cases if held_out_seed is None else cases.split_visitors(HELD_OUT_SHARE, seed=held_out_seed)[1]
        for cases in (visitors, rows)
    ]
    cases = {
        "new_items": [visitors],
        "returning": [each.take(np.flatnonzero(~_in_session(each))) for each in held_out],
        "in_session": [held_out[1].take(np.flatnonzero(_in_session(held_out[1])))],
    }
    some = {ranking: [each for each in cases[ranking] if len(each)] for ranking in RANKINGS}
    return {ranking: found for ranking, found in some.items() if found}


def _in_session(cases: Cases) -> np.ndarray:
    """[V] bool: whether each case is in a session, as `models.blend.is_in_session` of its query."""
    return cases.timestamp_ms - cases.history.timestamp_ms[cases.history.ends - 1] < SESSION_GAP_MS


def longest_of_the_best(values: np.ndarray) -> int:
    """Returns the index into `HALF_LIVES` of the longest half-life that is not clearly worse than the best one.

    All returning visitors of a validation window are ranked at its start, so they share one trend. A short half-life
    can be the best for this trend by chance and lose its advantage in the test window. If the difference is less than
    its standard error, the longer half-life is safer.

    Args:
      values: [half-lives, V] NDCG@20, in order of the half-lives.
    """
    difference = values - values[values.mean(axis=1).argmax()]
    error = difference.std(axis=1) / np.sqrt(values.shape[1])
    return int(np.flatnonzero(difference.mean(axis=1) >= -error).max())


def _fill_missing(weights: dict[str, BlendWeights], num_parts: int) -> dict[str, BlendWeights]:
    """Fills in the weights of rankings without cases: those of the most similar other ranking, or equal weights.

    The rankings that show seen items are similar; `new_items` gets no weights of returns, and equal weights if the most
    similar ranking has no others.
    """
    equal = BlendWeights(parts=(1.0,) * num_parts, popularity=float(not num_parts), half_life_days=HALF_LIVES[-1])
    similar = {
        "new_items": ("returning", "in_session"),
        "returning": ("in_session", "new_items"),
        "in_session": ("returning", "new_items"),
    }
    found = {
        ranking: next((weights[other] for other in (ranking, *similar[ranking]) if other in weights), equal)
        for ranking in RANKINGS
    }
    new_items = replace(found["new_items"], returns=(0.0, 0.0, 0.0))
    return found | {"new_items": new_items if np.any(new_items.to_array()) else equal}


def baseline_cases(num_items: int) -> int:
    """The number of validation cases that tune a baseline: 1,000, or as many as give 5 × 10⁷ scores if these are fewer.

    Otherwise, tuning would take longer than the ranking of the report if there are 100,000 items.
    """
    return min(_BASELINE_CASES, max(_BASELINE_SCORES // num_items, 1))


def blend_alone(
    model: ServedModel | None, dataset: Dataset, events: ItemEvents, *, has_sums: bool = True, kinds: Sequence[str] = ()
) -> BlendInference:
    """Returns a baseline blended with the popularity and trend of the items; validation chooses the weights.

    Args:
      model: the baseline; None: popularity and trend alone.
      dataset: the dataset.
      events: its events, of all splits.
      has_sums: whether the baseline's scores are sums of positive weights.
      kinds: event kinds that make an item relevant; empty: all.
    """
    parts = [] if model is None else [Part(model, has_sums)]
    fit = fit_blend(
        parts, dataset, events, kinds=kinds, has_trend_only=True, max_cases=baseline_cases(dataset.num_items)
    )
    return BlendInference(
        parts,
        weights=fit.weights,
        item_counts=dataset.item_counts,
        trends=latest_trends(events, half_lives_of(fit.weights)),
    )


def set_trends(systems: Iterable[Scorer], cases: Cases, events: ItemEvents) -> None:
    """Sets the trends at the moments of the cases in each blend among the systems."""
    moments = moments_of(cases.timestamp_ms, cases.num_items)
    values: dict[float, np.ndarray] = {}
    for system in systems:
        if isinstance(system, BlendInference):
            for days in system.half_lives_days:
                if days not in values:
                    values[days] = count_trends(events, moments, days).values
            system.set_trends(moments, np.stack([values[days] for days in system.half_lives_days]))
