"""Random draws with little noise: quotas and stratified samples in place of independent ones.

Shapes: N draws, G groups. A figure that a shop is calibrated to then holds for every seed.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def stratified(count: int, random: np.random.Generator) -> np.ndarray:
    """[count] numbers in (0, 1), in random order, one in each of `count` equal intervals, at its middle."""
    return (random.permutation(count) + 0.5) / count


def lognormal_quantiles(probability: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """[N] quantiles of a log-normal distribution at [N] probabilities in (0, 1)."""
    inverse = NormalDist().inv_cdf
    return median * np.exp(sigma * np.fromiter(map(inverse, probability), float, len(probability)))


def power_law_counts(probability: np.ndarray, exponent: float, largest: int) -> np.ndarray:
    """[N] counts from 1 to `largest` at [N] probabilities in (0, 1); P(count > n) = (n + 1) ** -exponent."""
    return np.minimum((1 - probability) ** (-1 / exponent), largest).astype(np.int64)


def interpolated_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """[N] quantiles at [N] probabilities, interpolated in the logarithm between (probability, value) knots."""
    places, values = np.array(knots).T
    return np.exp(np.interp(probability, places, np.log(values)))


def tail_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """[N] quantiles at [N] probabilities of a distribution given as (value, P(X > value)) knots.

    Between knots it is a power law; below the first knot lies nothing, above the last its value.
    """
    values, above = np.array(knots).T
    return np.exp(np.interp(-np.log1p(-probability), -np.log(above), np.log(values)))


def draw_weighted(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """[N] places in `weights`, each as likely as its weight, for [N] uniform numbers in [0, 1)."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, uniform * cumulative[-1], side="right")


def group_starts(sizes: np.ndarray) -> np.ndarray:
    """[G] place at which each of G groups of the given sizes begins, when laid end to end."""
    return np.cumsum(sizes) - sizes


def place_in_group(sizes: np.ndarray) -> np.ndarray:
    """[sum of sizes] number of each member within its group, groups laid end to end."""
    return np.arange(sizes.sum()) - np.repeat(group_starts(sizes), sizes)


def apportion(weights: np.ndarray, group: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """[N] counts that sum to each group's total, in proportion to the weights within less than one.

    Args:
      weights: [N], not negative.
      group: [N] in [0, G), ascending.
      totals: [G] what to give out; a group without weight gets nothing.
    """
    sums = np.bincount(group, weights, len(totals))
    share = np.divide(weights, sums[group], out=np.zeros(len(weights)), where=sums[group] > 0)
    # cumulative sums over all groups at once: each group's part ends on a whole number
    given = np.where(sums > 0, totals, 0)
    ends = np.cumsum(share * given[group])
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    ends[last] = np.round(ends[last])
    whole = np.floor(ends + 1e-6).astype(np.int64)
    return np.diff(whole, prepend=0)
