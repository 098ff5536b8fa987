"""Random draws with little noise, by quotas and stratified samples instead of independent draws.

Thus every seed gives a shop with the calibrated figures.

Shapes: N draws, G groups.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def stratified(count: int, random: np.random.Generator) -> np.ndarray:
    """Divides (0, 1) into `count` equal intervals. Returns the midpoints of the intervals in random order, [count]."""
    return (random.permutation(count) + 0.5) / count


def lognormal_quantiles(probability: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """Returns the quantiles of a log-normal distribution, [N].

    Args:
      probability: [N] probabilities in (0, 1).
      median: median of the distribution.
      sigma: standard deviation of the logarithm.
    """
    inverse = NormalDist().inv_cdf
    return median * np.exp(sigma * np.fromiter(map(inverse, probability), float, len(probability)))


def power_law_counts(probability: np.ndarray, exponent: float, largest: int) -> np.ndarray:
    """Returns the quantiles of a power law, [N], as counts of at least 1. Counts above `largest` become `largest`.

    The power law is P(count > n) = (n + 1) ** -exponent.

    Args:
      probability: [N] probabilities in (0, 1).
      exponent: exponent of the power law.
      largest: the largest count.
    """
    return np.minimum((1 - probability) ** (-1 / exponent), largest).astype(np.int64)


def interpolated_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns the quantiles [N] of a distribution that is given by some of its quantiles.

    Between two given quantiles, the logarithm of the value is interpolated linearly.

    Args:
      probability: [N] probabilities in [0, 1).
      knots: the given quantiles as pairs (probability, value), ascending.
    """
    probabilities, values = np.array(knots).T
    return np.exp(np.interp(probability, probabilities, np.log(values)))


def tail_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns the quantiles [N] of a distribution that is given by the probabilities of larger values.

    Between two given values, the distribution follows a power law. The first given value is the minimum of the
    distribution, and the last is its maximum.

    Args:
      probability: [N] probabilities in (0, 1).
      knots: pairs (value, probability of a larger value), by ascending value.
    """
    values, above = np.array(knots).T
    return np.exp(np.interp(-np.log1p(-probability), -np.log(above), np.log(values)))


def draw_weighted(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draws indices [N] with probabilities in proportion to `weights`.

    Args:
      weights: weight of each index, 0 or greater.
      uniform: [N] a random number in [0, 1) for each draw.
    """
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, uniform * cumulative[-1], side="right")


def group_starts(sizes: np.ndarray) -> np.ndarray:
    """Returns the index of each group's first member, [G], if groups of the given sizes [G] are concatenated."""
    return np.cumsum(sizes) - sizes


def position_in_group(sizes: np.ndarray) -> np.ndarray:
    """Returns the position of each member in its group, if groups of the given sizes [G] are concatenated.

    For example, the sizes 2 and 3 give the positions 0, 1, 0, 1, 2.
    """
    return np.arange(sizes.sum()) - np.repeat(group_starts(sizes), sizes)


def apportion(weights: np.ndarray, group: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Divides the total of each group among its members in proportion to their weights.

    The counts are whole numbers. A count differs from the exact share of its member by at most 1.

    Args:
      weights: [N] weight of each member, 0 or greater.
      group: [N] group of each member, in [0, G), ascending.
      totals: [G] total of each group.

    Returns:
      [N] count of each member. If all weights of a group are 0, its counts are 0. The counts of any other group
        sum to its total.
    """
    sums = np.bincount(group, weights, len(totals))
    share = np.divide(weights, sums[group], out=np.zeros(len(weights)), where=sums[group] > 0)
    # cumulative sums over all groups at once: each group's part ends on a whole number
    ends = np.cumsum(share * np.where(sums > 0, totals, 0)[group])
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    ends[last] = np.round(ends[last])
    return np.diff(np.floor(ends + 1e-6).astype(np.int64), prepend=0)
