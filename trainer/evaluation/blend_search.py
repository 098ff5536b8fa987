"""Searches for the weights of a blend that rank the candidates of validation cases best.

The search starts from the weights that make the relevant items most likely; then a coordinate ascent maximises the
NDCG@20. The likelihood depends on all candidates of a case, so with few cases it overfits less than the NDCG@20, which
depends on the first 20 items only. The ascent changes a weight only if the gain is clear. Single models are searched
too, and the best result is used, so no single model is better than the blend on these cases.

Shapes: V cases, W cases that have a relevant candidate, C candidates, F features.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from trainer.evaluation.blend_candidates import Candidates
from trainer.evaluation.candidate_search import HALF_LIVES
from trainer.runs.blend_record import RETURN_FEATURES, BlendWeights

_LEAST_GAIN = 0.003  # a weight is changed only if NDCG@20 grows by at least this share of its value,
_LEAST_ERRORS = 1.0  # and by this many standard errors of the difference: few cases are noisy
_PASSES = 4
_THREADS = min(os.cpu_count() or 1, 8)
_MANY_CASES = 500  # so many that they fit all weights better than those of a single part
_LIKELIHOOD_CASES = 1000  # at most; more change the weights little
_PULL, _EXPECTED_TREND = 5.0, 0.5  # towards the expected weights; as strong as some cases
_STEPS = (0.0, 0.25, 0.5, 0.7, 0.85, 1.2, 1.4, 2.0, 3.0)  # of the current weight
_NEW_SHARES = (0.05, 0.2, 0.6)  # of the largest weight, for a weight of 0
_LEAST_SHARE = 0.001  # of the largest weight; the minimiser leaves smaller ones instead of 0
_SMALL_SHARE = 0.15  # of the largest weight
_TREND_SHARES = (0.0, 0.06, 0.12, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)  # of the largest weight


@dataclass(frozen=True)
class Choice:
    """The blend weights that were chosen for one of the `RANKINGS`."""

    weights: BlendWeights
    value: float
    """NDCG@20 of the blend, measured on the candidates only."""
    alone: tuple[float, ...]
    """NDCG@20 of each part alone."""
    frequency: float | None
    """NDCG@20 of the return feature `frequency` alone; None: the ranking has no return features."""


def choose_weights(
    candidates: Candidates, num_parts: int, half_life: int, *, has_returns: bool, deadline: float | None = None
) -> Choice:
    """Returns the best weights of several searches: with all parts, with a single part, and without parts.

    If `has_returns`, another search starts from the best return feature. With `_MANY_CASES` or more cases, only the
    best part is tried as a single part. With fewer cases, each part is tried, and the weights of several parts are used
    only if they are better by a standard error.

    Args:
      half_life: half-life of the trend, as an index into `HALF_LIVES`.
      has_returns: whether the ranking uses return features; see `RETURN_FEATURES`.
      deadline: time on the clock `time.monotonic` at which the ascents end, each after at least one pass; None: no
        limit.
    """
    features = _Features(candidates, num_parts, half_life, has_returns=has_returns)
    alone = [features.value_alone(part) for part in range(num_parts)]
    best_parts = sorted(range(num_parts), key=lambda part: -alone[part])
    single = best_parts if len(candidates.num_relevant) < _MANY_CASES else best_parts[:1]
    simple = [_Ascent.from_likelihood(features, parts) for parts in [*([part] for part in single), []]]
    full = [_Ascent.from_likelihood(features, range(num_parts))] if num_parts > 1 else []
    full += [_Ascent.from_best_return(features)] if has_returns else []
    for ascent in [*full, *simple]:
        ascent.climb(deadline=deadline)
    simple += [_Ascent.of_one_feature(features, part) for part in best_parts[:1]]
    simple += [_Ascent.from_best_return(features)] if has_returns else []
    best = _choose(simple, full)
    best.drop_small_parts()
    weights = BlendWeights.from_array(best.weight * features.unit, HALF_LIVES[half_life])
    frequency = features.value_alone(num_parts + 3) if has_returns else None
    return Choice(weights, best.best, tuple(alone), frequency)


def _choose(simple: Sequence["_Ascent"], full: Sequence["_Ascent"]) -> "_Ascent":
    """Returns the best of `full` if it is better than the best of `simple`, otherwise the best of `simple`.

    With few cases, it must be better by a standard error.
    """
    best = max(simple, key=lambda ascent: ascent.best)
    if full:
        fullest = max(full, key=lambda ascent: ascent.best)
        gain = fullest.values - best.values
        # many weights fit few cases better than few weights do, even if they are worse on other cases
        errors = _LEAST_ERRORS if len(gain) < _MANY_CASES else 0.0
        if gain.mean() > errors * gain.std() / np.sqrt(len(gain)):
            return fullest
    return best


def choose_half_life(candidates: Candidates, num_parts: int, *, has_returns: bool) -> int:
    """Returns the index of the chosen half-life of the trend; see `longest_of_the_best`."""
    features = _Features(candidates, num_parts, len(HALF_LIVES) // 2, has_returns=has_returns)
    ascent = _Ascent.from_likelihood(features, range(num_parts))
    ascent.climb(passes=1)
    return longest_of_the_best(np.stack([ascent.values_with(half_life) for half_life in range(len(HALF_LIVES))]))


class _Features:
    """The F features of the candidates: the parts, the popularity, a trend, and the return features.

    `unit` [F] scales the features: 1 / `Candidates.spreads` for the parts, 1 for all other features.
    """

    def __init__(self, candidates: Candidates, num_parts: int, half_life: int, *, has_returns: bool) -> None:
        self.candidates, self.num_parts, self.trend = candidates, num_parts, num_parts + 1
        returns = num_parts + 1 + len(HALF_LIVES)
        columns = [*range(num_parts + 1), num_parts + 1 + half_life, *range(returns, returns + len(RETURN_FEATURES))]
        self.of_hits = [candidates.columns[column] for column in columns]  # F arrays [W, C] of the cases with hits
        self.unit = np.ones(len(columns), np.float32)
        self.unit[:num_parts] = [1 / spread for spread in candidates.spreads]
        self.common = range(num_parts, len(columns) if has_returns else num_parts + 2)
        """Columns of the features that are not parts."""
        # hides padding; weights of 0 keep it, because features are finite
        self.nothing = np.where(candidates.is_candidate[candidates.hits], np.float32(0), np.float32(-np.inf))

    def can_be_negative(self, column: int) -> bool:
        """Whether the weight of a feature may be negative: that of the popularity or of a return feature."""
        return column >= self.num_parts and column != self.trend

    def total(self, weight: np.ndarray) -> np.ndarray:
        """[W, C]: the scores of the candidates with the weights `weight` [F]."""
        return self.nothing + sum(
            np.float32(factor) * feature
            for factor, feature in zip(weight * self.unit, self.of_hits, strict=True)
            if factor
        )

    def measure(self, rest: np.ndarray, feature: np.ndarray, factors: Sequence[float]) -> list[np.ndarray]:
        """Returns, for each factor, [V]: the NDCG@20 of the scores `rest` + factor × `feature`; both are [W, C]."""

        def measure(factor: float) -> np.ndarray:
            scores = np.float32(factor) * feature
            scores += rest
            return self.candidates.ndcg_of_hits(scores)

        with ThreadPoolExecutor(_THREADS) as pool:  # NumPy computes without the lock of the interpreter
            return list(pool.map(measure, factors))

    def value_alone(self, column: int) -> float:
        """Mean NDCG@20 of the ranking by one feature."""
        return float(self.measure(self.nothing, self.of_hits[column], [self.unit[column]])[0].mean())

    def most_likely(self, columns: Sequence[int]) -> np.ndarray:
        """[F]: the weights of the features `columns` that make the relevant candidates most likely; others are 0.

        The probability of a candidate is the softmax of the scores (McFadden 1974), and the loss of a case is the mean
        of its relevant candidates' negative log probabilities, as in ListNet (Cao et al., ICML 2007). A penalty, which
        matters only if there are few cases, is the squared distance from default weights: equal weights for the parts
        (without parts, popularity alone) and a small weight for the trend.
        """
        expected = np.zeros(len(columns))
        parts = [number for number, column in enumerate(columns) if column < self.num_parts]
        expected[parts or columns.index(self.num_parts)] = 1 / max(len(parts), 1)
        expected[columns.index(self.trend)] = _EXPECTED_TREND
        rows = slice(None, None, max(-(-len(self.nothing) // _LIKELIHOOD_CASES), 1))
        feature = np.stack([self.unit[column] * self.of_hits[column][rows] for column in columns])
        nothing, is_relevant = self.nothing[rows], self.candidates.is_relevant[self.candidates.hits[rows]]
        wanted = np.nonzero(is_relevant)  # pairs of a case and a relevant candidate
        share = 1 / is_relevant.sum(axis=1)[wanted[0]]

        def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
            scores = np.tensordot(weight.astype(np.float32), feature, 1) + nothing
            scores -= scores.max(axis=1, keepdims=True)
            error = np.exp(scores)
            total = error.sum(axis=1)
            likelihood = share @ (scores[wanted] - np.log(total)[wanted[0]]).astype(np.float64)
            error /= total[:, None]  # the probabilities
            error[wanted] -= share
            distance = weight - expected
            gradient = feature.reshape(len(columns), -1) @ error.reshape(-1)
            return 0.5 * _PULL * (distance @ distance) - likelihood, gradient + _PULL * distance

        bounds = [(None if self.can_be_negative(column) else 0.0, None) for column in columns]
        found = minimize(loss, expected, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
        weights = np.zeros(len(self.unit), np.float32)
        weights[columns] = np.where(np.abs(found.x) < _LEAST_SHARE * np.abs(found.x).max(), 0.0, found.x)
        return weights


class _Ascent:
    """A coordinate ascent over the features' weights; a score is the sum of `weight` × `unit` × feature."""

    def __init__(self, features: _Features, columns: Sequence[int], weight: np.ndarray) -> None:
        """`columns`: the features whose weights may change. `weight`: [F], the first weights."""
        self._features, self._columns, self.weight = features, columns, weight
        self._total = features.total(weight)
        self.values = features.candidates.ndcg_of_hits(self._total)
        """[V]: NDCG@20 of each case, with the current weights."""

    @classmethod
    def from_likelihood(cls, features: _Features, parts: Sequence[int]) -> "_Ascent":
        """Starts from the likeliest weights of some parts and of the other features; see `_Features.most_likely`."""
        columns = [*parts, *features.common]
        return cls(features, columns, features.most_likely(columns))

    @classmethod
    def from_best_return(cls, features: _Features) -> "_Ascent":
        """Starts from the return feature that is best alone, such as the visitor's most frequent items."""
        returns = range(features.num_parts + 3, len(features.unit))
        return cls.of_one_feature(features, max(returns, key=features.value_alone))

    @classmethod
    def of_one_feature(cls, features: _Features, column: int) -> "_Ascent":
        """Starts from the weight 1 of one feature; all others are 0."""
        weight = np.zeros(len(features.unit), np.float32)
        weight[column] = 1.0
        return cls(features, range(len(weight)), weight)

    @property
    def best(self) -> float:
        """Mean NDCG@20 over all cases, with the current weights."""
        return float(self.values.mean())

    def climb(self, passes: int = _PASSES, deadline: float | None = None) -> None:
        """Improves the weight of each feature in turn, up to `passes` times.

        Ends early if a pass changes no weight, or at the deadline, but completes the first pass.
        """
        trend = self._features.trend
        # the returns are last, because they depend on all others
        order = [trend, *(column for column in self._columns if column != trend)]
        for number in range(passes):
            before = self.best
            for column in order:
                if number and deadline is not None and time.monotonic() > deadline:
                    return
                self.improve(column)
            if self.best == before:
                break

    def improve(self, column: int) -> None:
        """Sets the weight of a feature to the best value near the current one, if the gain is clear.

        The gain must exceed `_LEAST_GAIN` × the current NDCG@20, and `_LEAST_ERRORS` standard errors.
        """
        rest, feature = self._without(column), self._features.of_hits[column]
        values = self._values_near(column)
        found = self._features.measure(rest, feature, [self._features.unit[column] * value for value in values])
        choice = int(np.argmax([value.mean() for value in found]))
        gain = found[choice] - self.values
        error = gain.std() / np.sqrt(len(gain))
        if gain.mean() > max(_LEAST_GAIN * self.best, _LEAST_ERRORS * error):
            self.weight[column], self.values = values[choice], found[choice]
            self._total = rest + self.weight[column] * self._features.unit[column] * feature

    def drop_small_parts(self) -> None:
        """Sets small weights of parts to 0 if the NDCG@20 does not fall, to save time and memory in serving."""
        limit = _SMALL_SHARE * self._scale
        for part in np.argsort(self.weight[: self._features.num_parts]).tolist():
            if 0 < self.weight[part] < limit:
                rest = self._without(part)
                values = self._features.candidates.ndcg_of_hits(rest)
                if values.mean() >= self.best:
                    self.weight[part], self.values, self._total = 0.0, values, rest

    def values_with(self, half_life: int) -> np.ndarray:
        """[V]: NDCG@20 of each case with another half-life of the trend (an index) and its best weight."""
        column = self._features.trend
        feature = self._features.candidates.columns[self._features.num_parts + 1 + half_life]
        factors = [self._scale * share for share in _TREND_SHARES]
        return max(
            self._features.measure(self._without(column), feature, factors), key=lambda values: float(values.mean())
        )

    @property
    def _scale(self) -> float:
        return float(np.abs(self.weight).max())

    def _values_near(self, column: int) -> list[float]:
        now = float(self.weight[column])
        if now:
            return [step * now for step in _STEPS]
        values = [self._scale * share for share in _NEW_SHARES]
        return [*values, *(-value for value in values)] if self._features.can_be_negative(column) else values

    def _without(self, column: int) -> np.ndarray:
        """[W, C]: the scores of the candidates if the feature `column` had the weight 0."""
        features = self._features
        return self._total - self.weight[column] * features.unit[column] * features.of_hits[column]


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
