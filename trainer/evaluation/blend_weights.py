"""Chooses the weights of a blend on the validation split.

Coordinate ascent over a grid of weights maximises the NDCG@20 of a sample of cases. To be fast, it ranks only the
candidates of each case, see `blend_candidates`. It starts from the best single feature. A weight is changed only for a
clear gain, so that noise does not add features. Each kind of ranking has separate cases, weights and half-lives.

Shapes: V cases, W cases that have a relevant candidate, C candidates, F features, P parts.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from contract.schema import Split
from trainer.data.dataset import Dataset
from trainer.data.trend import ItemEvents, count_trends, latest_trends, moments_of
from trainer.distributed.replicas import Replicas
from trainer.evaluation.blend_candidates import HALF_LIVES, MAX_CELLS, CandidateFinder, Candidates, join_candidates
from trainer.evaluation.cases import HELD_OUT_SHARE, Cases, build_cases, next_items, returning_visitors
from trainer.models.blend import SESSION_GAP_MS, BlendInference, Part
from trainer.models.interface import Scorer, ServedModel
from trainer.runs.blend_record import RANKINGS, RETURN_FEATURES, BlendWeights, half_lives_of

MAX_CASES = 2000
"""Maximum number of cases that choose the weights of a ranking."""
LEAST_CASES = 100
"""Number of cases that are enough if the time is short."""
_FINDING_SHARE = 0.75  # of a ranking's time, for its candidates; the rest is for its weights
_BASELINE_CASES, _BASELINE_SCORES = 1000, 50_000_000
_LEAST_GAIN = 0.003  # a weight is changed only if NDCG@20 grows by at least this share of its value,
_LEAST_ERRORS = 1.0  # and by this many standard errors of the difference: few cases are noisy
_PASSES = 4
_THREADS = min(os.cpu_count() or 1, 8)
_GRID = (0.0, 0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0)
_SIGNED = tuple(sorted({-x for x in _GRID} | set(_GRID)))


@dataclass(frozen=True)
class Choice:
    """The blend weights that were chosen for one of the `RANKINGS`."""

    weights: BlendWeights
    value: float
    """NDCG@20 of the blend, if only the candidates are ranked."""
    alone: tuple[float, ...]
    """NDCG@20 of each part alone."""
    frequency: float | None
    """NDCG@20 of the return feature `frequency` alone; None: the ranking has no return features."""


def choose_weights(
    candidates: Candidates, num_parts: int, half_life: int, *, has_returns: bool, deadline: float | None = None
) -> Choice:
    """Chooses weights by coordinate ascent, which starts from the best single feature, combined with the trend.

    If `has_returns`, a second ascent starts from the best return feature; the better result is kept.

    Args:
      half_life: half-life of the trend, as an index into `HALF_LIVES`.
      has_returns: whether the ranking uses return features; see `RETURN_FEATURES`.
      deadline: time on the clock `time.monotonic` at which the ascents end, each after at least one pass; None: no
        limit.
    """
    ascents, alone = [], dict[int, float]()
    for columns in _starts(num_parts, has_returns=has_returns):
        ascents.append(_Ascent(candidates, num_parts, half_life, has_returns=has_returns))
        alone |= ascents[-1].start(columns)
        ascents[-1].climb(deadline=deadline)
    best = max(ascents, key=lambda ascent: ascent.best)
    weights = BlendWeights.from_array(best.weight * best.unit, HALF_LIVES[half_life])
    frequency = alone[num_parts + 3] if has_returns else None
    return Choice(weights, best.best, tuple(alone[column] for column in range(num_parts)), frequency)


def choose_half_life(candidates: Candidates, num_parts: int, *, has_returns: bool) -> int:
    """Chooses the longest half-life of the trend that is not clearly worse than the best; returns its index."""
    ascent = _Ascent(candidates, num_parts, len(HALF_LIVES) // 2, has_returns=has_returns)
    ascent.start([column for columns in _starts(num_parts, has_returns=has_returns) for column in columns])
    ascent.climb(passes=1)
    return longest_of_the_best(np.stack([ascent.values_with(half_life) for half_life in range(len(HALF_LIVES))]))


def _starts(num_parts: int, *, has_returns: bool) -> list[list[int]]:
    """Returns, for each coordinate ascent, the columns of the features that it may start from; see `choose_weights`."""
    returns = [num_parts + 2 + feature for feature in range(1, len(RETURN_FEATURES))]
    return [[*range(num_parts + 1)], *([returns] if has_returns else [])]


class _Ascent:
    """A coordinate ascent over the features' weights; a score is the sum of `weight` × `unit` × feature.

    The `unit` of a part is 1 / the typical spread of its scores, see `Candidates.spreads`; all other units are 1.
    """

    def __init__(self, candidates: Candidates, num_parts: int, half_life: int, *, has_returns: bool) -> None:
        self._candidates, self._num_parts = candidates, num_parts
        trend, returns = num_parts + 1 + half_life, num_parts + 1 + len(HALF_LIVES)
        columns = [*range(num_parts + 1), trend, *range(returns, returns + len(RETURN_FEATURES))]
        self._feature = [candidates.columns[column] for column in columns]  # F arrays [W, C] of the cases with hits
        self.unit = np.ones(len(columns), np.float32)
        self.unit[:num_parts] = [1 / spread for spread in candidates.spreads]
        self.weight = np.zeros(len(columns), np.float32)
        # hidden padding; weights of 0 keep it, because features are finite
        self._nothing = np.where(candidates.is_candidate[candidates.hits], np.float32(0), np.float32(-np.inf))
        self._total = self._nothing
        self._values = np.zeros(len(candidates.num_relevant))
        self._grids = [_GRID] * num_parts + [_SIGNED, _GRID] + ([_SIGNED] * len(RETURN_FEATURES) if has_returns else [])

    def start(self, columns: Sequence[int]) -> dict[int, float]:
        """Sets the weights of two features: the trend, and the feature in `columns` that is best together with it.

        Returns, by column, the NDCG@20 that each feature in `columns` reaches without any other feature.
        """
        alone = {
            column: self._measure(self._nothing, self._feature[column], [self.unit[column]])[0] for column in columns
        }
        starts = []
        for first, values in alone.items():
            self.weight[:] = 0
            self.weight[first], self._values = 1.0, values
            self._total = self._nothing + self.unit[first] * self._feature[first]
            self.improve(self._num_parts + 1, _GRID, is_local=False)
            starts.append((self.best, self.weight.copy(), self._total, self._values))
        _, self.weight, self._total, self._values = max(starts, key=lambda start: start[0])
        return {column: float(values.mean()) for column, values in alone.items()}

    def climb(self, passes: int = _PASSES, deadline: float | None = None) -> None:
        """Improves the weight of each feature in turn, up to `passes` times.

        Ends early if a pass changes no weight, or at the deadline, but completes the first pass.
        """
        # returns last, because they depend on all others
        order = [self._num_parts + 1, *range(self._num_parts + 1), *range(self._num_parts + 2, len(self._grids))]
        for number in range(passes):
            before = self.best
            for column in order:
                if number and deadline is not None and time.monotonic() > deadline:
                    return
                self.improve(column, self._grids[column], is_local=number > 0)
            if self.best == before:
                break

    def values_with(self, half_life: int) -> np.ndarray:
        """[V]: NDCG@20 of each case, if the trend has half-life number `half_life` and the best weight for it."""
        column = self._num_parts + 1
        trend = self._candidates.columns[column + half_life]
        return max(self._measure(self._without(column), trend, _GRID), key=lambda values: float(values.mean()))

    def _without(self, column: int) -> np.ndarray:
        """[W, C]: the scores of the candidates if the feature `column` had the weight 0."""
        return self._total - self.weight[column] * self.unit[column] * self._feature[column]

    def _measure(self, rest: np.ndarray, feature: np.ndarray, factors: Sequence[float]) -> list[np.ndarray]:
        """Returns, for each factor, [V]: the NDCG@20 of the scores `rest` + factor × `feature`; both are [W, C]."""

        def measure(factor: float) -> np.ndarray:
            scores = np.float32(factor) * feature
            scores += rest
            return self._candidates.ndcg_of_hits(scores)

        with ThreadPoolExecutor(_THREADS) as pool:  # NumPy computes without the lock of the interpreter
            return list(pool.map(measure, factors))

    @property
    def best(self) -> float:
        """Mean NDCG@20 over all cases, with the current weights."""
        return float(self._values.mean())

    def improve(self, column: int, grid: Sequence[float], *, is_local: bool) -> None:
        """Sets the weight of the feature `column` to the best value of `grid`, if the gain is clear.

        The gain must exceed `_LEAST_GAIN` × the current NDCG@20, and `_LEAST_ERRORS` standard errors.

        If `is_local`, only 0 and two grid values on each side of the current weight are tried.
        """
        now = grid.index(float(self.weight[column]))
        near = {0.0, *grid[max(now - 2, 0) : now + 3]} if is_local else set(grid)
        rest, values = self._without(column), sorted(near - {grid[now]})
        found = self._measure(rest, self._feature[column], [self.unit[column] * value for value in values])
        choice = int(np.argmax([value.mean() for value in found]))
        gain = found[choice] - self._values
        error = gain.std() / np.sqrt(len(gain))
        if gain.mean() > max(_LEAST_GAIN * self.best, _LEAST_ERRORS * error):
            self.weight[column], self._values = values[choice], found[choice]
            self._total = rest + self.weight[column] * self.unit[column] * self._feature[column]


class OutOfTimeError(Exception):
    """The time is too short to choose weights."""


@dataclass(frozen=True)
class BlendFit:
    """The weights of a blend, and the NDCG@20 that they reach in validation."""

    weights: dict[str, BlendWeights]
    """The weights of each of the `RANKINGS`."""
    validation: dict[str, Any]
    """See `BlendRecord.validation`."""


def fit_blend(
    parts: Sequence[Part],
    cases: Mapping[str, Sequence[Cases]],
    events: ItemEvents,
    item_counts: np.ndarray,
    *,
    has_trend_only: bool = False,
    max_cases: int = MAX_CASES,
    replicas: Replicas | None = None,
    on_chunk: Callable[[], None] = lambda: None,
    deadline: float | None = None,
    is_forced: bool = False,
) -> BlendFit:
    """Chooses the weights of a blend on the validation split.

    Without validation cases, each part gets the weight 1 or, if there are no parts, the popularity gets it.

    Args:
      parts: the P models to blend.
      cases: the validation cases of each ranking, see `ranking_cases`.
      events: the events of all splits.
      item_counts: [I] training events of each item.
      has_trend_only: whether to exclude the return features from all rankings; only parts, popularity and trend remain.
      max_cases: maximum number of sampled cases per ranking, or half as many per protocol if the ranking uses two.
      replicas: all replicas; each worker ranks a part of the cases. None: this process ranks all cases.
      on_chunk: called before each chunk of cases.
      deadline: time on the clock `time.monotonic`; if little time remains, fewer cases are used. None: no limit. Must
        be None if there are several workers.
      is_forced: whether to use at least `LEAST_CASES` of a ranking's cases even after the deadline, instead of raising
        OutOfTimeError.

    Raises:
      OutOfTimeError: fewer than `LEAST_CASES` of a ranking's cases could be used before the deadline.
    """
    samples_of = {
        ranking: [each.sample_cases(max_cases // len(of_protocols), seed=0) for each in of_protocols]
        for ranking, of_protocols in cases.items()
    }

    @cache  # compiled once for several rankings, which takes seconds
    def finder_for(hides_seen: bool) -> CandidateFinder:
        num_cases = max(sum(map(len, samples_of[of])) for of in samples_of if (of == "new_items") == hides_seen)
        return CandidateFinder(
            parts,
            events,
            item_counts,
            replicas,
            hides_seen=hides_seen,
            has_all_items=num_cases * events.num_items <= MAX_CELLS,
        )

    choices, counts = {}, {}
    for number, (ranking, samples) in enumerate(samples_of.items()):
        hides_seen = ranking == "new_items"
        end, limits = _limits(deadline, len(samples), len(cases) - number)
        least = -(-LEAST_CASES // len(samples)) if is_forced else 0
        found = join_candidates(
            finder_for(hides_seen).find(sample, on_chunk, deadline=limit, least_cases=least)
            for sample, limit in zip(samples, limits, strict=True)
        )
        counts[ranking] = len(found.num_relevant)
        if not is_forced and counts[ranking] < min(LEAST_CASES, sum(map(len, samples))):
            raise OutOfTimeError(
                f"only {counts[ranking]} cases of the ranking {ranking} could be used before the time limit"
            )
        has_returns = not hides_seen and not has_trend_only
        half_life = choose_half_life(found, len(parts), has_returns=has_returns)
        choices[ranking] = choose_weights(found, len(parts), half_life, has_returns=has_returns, deadline=end)
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


def _limits(deadline: float | None, num_samples: int, num_rankings: int) -> tuple[float | None, list[float | None]]:
    """Returns a deadline for the next ranking, and one for each of its samples of cases.

    `num_rankings`: number of rankings that share the remaining time.
    """
    if deadline is None:
        return None, [None] * num_samples
    now = time.monotonic()
    seconds = (deadline - now) / num_rankings
    share = _FINDING_SHARE * seconds / num_samples
    return now + seconds, [now + share * (number + 1) for number in range(num_samples)]


def ranking_cases(
    dataset: Dataset, kinds: Sequence[str] = (), *, held_out_seed: int | None = None
) -> dict[str, list[Cases]]:
    """Returns the validation cases for each of the `RANKINGS`; skips rankings without cases.

    - `new_items`: cases of the protocol `returning_visitors`.
    - `in_session`: the cases of the protocol `next_items` that are within a session.
    - `returning`: the cases outside a session, as two `Cases`: one of each protocol.

    Args:
      dataset: the dataset; without a validation split, there are no cases.
      kinds: event kinds that make an item relevant; empty: all.
      held_out_seed: seed of the run that trained a second stage (a network) on some of the validation visitors. Only
        the cases of all other visitors are in `returning` and `in_session`. None: no part has a second stage.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return {}
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
    """[V] bool: whether each case is within a session, as in `models.blend.is_in_session`."""
    return cases.timestamp_ms - cases.history.timestamp_ms[cases.history.ends - 1] < SESSION_GAP_MS


def longest_of_the_best(values: np.ndarray) -> int:
    """Returns the index of the longest half-life that is not clearly worse than the best one.

    A half-life is clearly worse if its mean NDCG@20 is lower by more than the standard error of the difference.

    Args:
      values: [len(HALF_LIVES), V] NDCG@20 for each half-life and case.
    """
    # All cases of returning_visitors share a moment, so a short half-life can be the best by chance.
    difference = values - values[values.mean(axis=1).argmax()]
    error = difference.std(axis=1) / np.sqrt(values.shape[1])
    return int(np.flatnonzero(difference.mean(axis=1) >= -error).max())


def _fill_missing(weights: dict[str, BlendWeights], num_parts: int) -> dict[str, BlendWeights]:
    """Returns weights for all `RANKINGS`. A ranking missing in `weights` gets the weights of the most similar ranking.

    In `new_items`, the return features get the weight 0. If all weights of a ranking are then 0 or missing, each part
    gets the weight 1 or, if there are no parts, the popularity gets it.
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
    new_items = replace(found["new_items"], returns=(0.0,) * len(RETURN_FEATURES))
    return found | {"new_items": new_items if np.any(new_items.to_array()) else equal}


def baseline_cases(num_items: int) -> int:
    """Returns the number of validation cases that tune a baseline: at most 1,000, and at most 5 × 10⁷ / `num_items`."""
    return min(_BASELINE_CASES, max(_BASELINE_SCORES // num_items, 1))


def blend_alone(
    model: ServedModel | None,
    cases: Mapping[str, Sequence[Cases]],
    events: ItemEvents,
    item_counts: np.ndarray,
    *,
    has_sums: bool = True,
) -> BlendInference:
    """Blends a baseline with the popularity and trend of the items; validation chooses the weights.

    `model`: the baseline; None: popularity and trend only. `has_sums`: whether its scores are sums of weights, see
    `comparable_scores`. `fit_blend` explains the other arguments.
    """
    parts = [] if model is None else [Part(model, has_sums)]
    fit = fit_blend(parts, cases, events, item_counts, has_trend_only=True, max_cases=baseline_cases(len(item_counts)))
    trends = latest_trends(events, half_lives_of(fit.weights))
    return BlendInference(parts, weights=fit.weights, item_counts=item_counts, trends=trends)


def set_trends(systems: Iterable[Scorer], cases: Cases, events: ItemEvents) -> None:
    """Computes the trends at the moments of the cases (see `moments_of`), and sets them in all blends of `systems`."""
    moments = moments_of(cases.timestamp_ms, cases.num_items)
    values: dict[float, np.ndarray] = {}
    for system in systems:
        if isinstance(system, BlendInference):
            for days in system.half_lives_days:
                if days not in values:
                    values[days] = count_trends(events, moments, days).values
            system.set_trends(moments, np.stack([values[days] for days in system.half_lives_days]))
