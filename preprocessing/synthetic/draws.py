"""Random draws with little noise, by quotas and stratified samples instead of independent draws.

Thus a shop has the figures for which it is calibrated, with any seed.

Shapes: N draws, G groups.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np


def stratified(count: int, random: np.random.Generator) -> np.ndarray:
    """Divides (0, 1) into equal intervals and returns their midpoints [count] in random order."""
    return (random.permutation(count) + 0.5) / count


def lognormal_quantiles(probability: np.ndarray, median: float, sigma: float) -> np.ndarray:
    """Returns the quantiles [N] of a log-normal distribution for probabilities [N] in (0, 1)."""
    inverse = NormalDist().inv_cdf
    return median * np.exp(sigma * np.fromiter(map(inverse, probability), float, len(probability)))


def power_law_counts(probability: np.ndarray, exponent: float, largest: int) -> np.ndarray:
    """Returns the quantiles [N] of a power law for probabilities [N] in (0, 1), as counts from 1 to `largest`.

    The power law is P(count > n) = (n + 1) ** -exponent.
    """
    return np.minimum((1 - probability) ** (-1 / exponent), largest).astype(np.int64)


def interpolated_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns the quantiles [N] for probabilities [N], log-interpolated between knots (probability, value)."""
    probabilities, values = np.array(knots).T
    return np.exp(np.interp(probability, probabilities, np.log(values)))


def tail_quantiles(probability: np.ndarray, knots: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns the quantiles [N] for probabilities [N] of a distribution given by knots (value, P(X > value)).

    The distribution follows a power law between two knots. The first and the last knot are its minimum and maximum.
    """
    values, above = np.array(knots).T
    return np.exp(np.interp(-np.log1p(-probability), -np.log(above), np.log(values)))


def draw_weighted(weights: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draws indices [N] in proportion to `weights`. `uniform` has one random number in [0, 1) per draw, [N]."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, uniform * cumulative[-1], side="right")


def group_starts(sizes: np.ndarray) -> np.ndarray:
    """Returns the offset of each group, [G], in a concatenation of groups of these sizes."""
    return np.cumsum(sizes) - sizes


def position_in_group(sizes: np.ndarray) -> np.ndarray:
    """Returns the position of each member in its group, [sum of sizes]. Sizes 2 and 3 give 0, 1, 0, 1, 2."""
    return np.arange(sizes.sum()) - np.repeat(group_starts(sizes), sizes)


def apportion(weights: np.ndarray, group: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Divides the total of each group among its members by weight. A count differs from its exact share by at most 1.

    Args:
      weights: [N] weight of each member, not negative.
      group: [N] group of each member, in [0, G), ascending.
      totals: [G] total of each group. If all weights of a group are 0, its counts are 0.

    Returns:
      [N] count of each member.
    """
    sums = np.bincount(group, weights, len(totals))
    share = np.divide(weights, sums[group], out=np.zeros(len(weights)), where=sums[group] > 0)
    # cumulative sums over all groups at once: each group's part ends on a whole number
    ends = np.cumsum(share * np.where(sums > 0, totals, 0)[group])
    last = np.append(np.flatnonzero(np.diff(group)), len(group) - 1)
    ends[last] = np.round(ends[last])
    return np.diff(np.floor(ends + 1e-6).astype(np.int64), prepend=0)
