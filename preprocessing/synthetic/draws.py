"""Random draws with little noise, by quotas and stratified samples instead of independent draws.

Thus every seed gives a shop with the calibrated figures.

Shapes: N draws, G groups.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def stratified(count: int, random: np.random.Generator) -> np.ndarray:
    """Returns the midpoints of `count` equal intervals of (0, 1) in random order."""
    return (random.permutation(count) + 0.5) / count


def lognormal_quantiles(probability: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """Returns quantiles of a log-normal distribution, [N].

    Args:
      probability: [N] numbers between 0 and 1, exclusive.
      sigma: standard deviation of the logarithm.
    """
    inverse = NormalDist().inv_cdf
    return median * np.exp(sigma * np.fromiter(map(inverse, probability), float, len(probability)))


def power_law_counts(probability: np.ndarray, exponent: float, largest: int) -> np.ndarray:
    """Returns quantiles of the power law P(count > n) = (n + 1) ** -exponent, [N].

    The counts are limited to 1 … `largest`.

    Args:
      probability: [N] numbers between 0 and 1, exclusive.
    """
    return np.minimum((1 - probability) ** (-1 / exponent), largest).astype(np.int64)


def interpolated_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Interpolates between known quantiles, linearly on a logarithmic scale of values. Returns quantiles, [N].

    Args:
      probability: [N] numbers from 0 to below 1.
      knots: the known quantiles (probability, value), ascending.
    """
    probabilities, values = np.array(knots).T
    return np.exp(np.interp(probability, probabilities, np.log(values)))


def tail_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns quantiles [N] of a distribution that is a power law between each two consecutive knots.

    Args:
      probability: [N] numbers between 0 and 1, exclusive.
      knots: (value, probability of a larger value), ascending by value. The first value is the minimum of the
        distribution, and the last value is its maximum.
    """
    values, above = np.array(knots).T
    return np.exp(np.interp(-np.log1p(-probability), -np.log(above), np.log(values)))


def draw_weighted(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draws indices [N] with probabilities in proportion to `weights`.

    Args:
      weights: weight of each index, 0 or greater.
      uniform: [N] random numbers in [0, 1).
    """
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, uniform * cumulative[-1], side="right")


def group_starts(sizes: np.ndarray) -> np.ndarray:
    """Returns the index of each group's first member, [G], if groups of these `sizes` are concatenated."""
    return np.cumsum(sizes) - sizes


def position_in_group(sizes: np.ndarray) -> np.ndarray:
    """Returns the position of each member in its group.

    Example: the group sizes 2 and 3 give 0, 1, 0, 1, 2.
    """
    return np.arange(sizes.sum()) - np.repeat(group_starts(sizes), sizes)


def apportion(weights: np.ndarray, group: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Divides each group's total among its members by weight, in whole numbers.

    Args:
      weights: [N] weight of each member, 0 or greater.
      group: [N] index of each member's group, from 0 to G - 1, ascending.
      totals: [G] total of each group.

    Returns:
      [N] counts. If all weights of a group are 0, its counts are 0.
    """
    sums = np.bincount(group, weights, len(totals))
    share = np.divide(weights, sums[group], out=np.zeros(len(weights)), where=sums[group] > 0)
    # cumulative sums over all groups at once: each group's part ends on a whole number
    ends = np.cumsum(share * np.where(sums > 0, totals, 0)[group])
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    ends[last] = np.round(ends[last])
    return np.diff(np.floor(ends + 1e-6).astype(np.int64), prepend=0)
