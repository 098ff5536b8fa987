"""Random draws with little noise: quotas and stratified samples instead of independent draws.

Thus a shop has the figures that it is calibrated to, with any seed.

Shapes: N draws, G groups.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def stratified(count: int, random: np.random.Generator) -> np.ndarray:
    """Returns the middles [count] of `count` equal intervals of (0, 1), in random order."""
    return (random.permutation(count) + 0.5) / count


def lognormal_quantiles(probability: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """Returns [N] quantiles of a log-normal distribution at [N] probabilities in (0, 1)."""
    inverse = NormalDist().inv_cdf
    return median * np.exp(sigma * np.fromiter(map(inverse, probability), float, len(probability)))


def power_law_counts(probability: np.ndarray, exponent: float, largest: int) -> np.ndarray:
    """Returns [N] quantiles of a power law, as counts from 1 to `largest`, at [N] probabilities in (0, 1).

    The quantiles are the inverse of P(count > n) = (n + 1) ** -exponent.
    """
    return np.minimum((1 - probability) ** (-1 / exponent), largest).astype(np.int64)


def interpolated_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns [N] quantiles at [N] probabilities, log-interpolated between (probability, value) knots."""
    probabilities, values = np.array(knots).T
    return np.exp(np.interp(probability, probabilities, np.log(values)))


def tail_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns [N] quantiles at [N] probabilities of a distribution given as (value, P(X > value)) knots.

    The distribution follows a power law between knots; the first and last knots are its minimum and maximum.
    """
    values, above = np.array(knots).T
    return np.exp(np.interp(-np.log1p(-probability), -np.log(above), np.log(values)))


def draw_weighted(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Returns [N] indices into `weights`, drawn in proportion to the weights, from [N] uniform draws in [0, 1)."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, uniform * cumulative[-1], side="right")


def group_starts(sizes: np.ndarray) -> np.ndarray:
    """Returns the offset of each group, [G], if groups of these sizes are concatenated."""
    return np.cumsum(sizes) - sizes


def position_in_group(sizes: np.ndarray) -> np.ndarray:
    """Returns the position of each member in its group, [sum of sizes]: sizes 2, 3 give 0, 1, 0, 1, 2."""
    return np.arange(sizes.sum()) - np.repeat(group_starts(sizes), sizes)


def apportion(weights: np.ndarray, group: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Divides each group's total among its members by weight; counts differ from the exact shares by at most 1.

    Args:
      weights: [N], not negative.
      group: [N] in [0, G), ascending.
      totals: [G] sums of the counts; a group without weight gets 0.

    Returns:
      [N] counts.
    """
    sums = np.bincount(group, weights, len(totals))
    share = np.divide(weights, sums[group], out=np.zeros(len(weights)), where=sums[group] > 0)
    # cumulative sums over all groups at once: each group's part ends on a whole number
    ends = np.cumsum(share * np.where(sums > 0, totals, 0)[group])
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    ends[last] = np.round(ends[last])
    return np.diff(np.floor(ends + 1e-6).astype(np.int64), prepend=0)
