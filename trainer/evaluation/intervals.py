"""95% confidence intervals and paired tests of means, by bootstrap over visitors.

Shapes: V cases, G visitors, M columns, R resamples.
"""

from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_MAX_DRAWS = 4_000_000  # per block: 32 MB


class Interval(NamedTuple):
    """The lower and upper bounds of M confidence intervals."""

    low: np.ndarray
    """[M] float64 lower bounds."""
    high: np.ndarray
    """[M] float64 upper bounds."""


def resampled_means(
    values: np.ndarray,
    *,
    seed: int,
    owner: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """[R, M]: mean of each column over visitors drawn with replacement (Efron, 1979).

    Drawing a visitor draws all of their cases. All columns, and all calls with the same seed and number of visitors,
    use the same draws.

    Args:
      values: [V, M] the value of each case in each column.
      owner: [V] index of the visitor of each case, ascending; None: each case has a separate visitor.
      counts: [V, M] bool: whether each case is included in each column; None: all are. The mean of a column without
        drawn cases is NaN.
      resamples: number of resamples, R.
    """
    included = np.ones(values.shape) if counts is None else counts.astype(np.float64)
    if len(values) == 0:
        return np.full((resamples, values.shape[1]), np.nan)
    starts = np.arange(len(values)) if owner is None else np.flatnonzero(np.diff(owner, prepend=owner[0] - 1))
    sums = np.add.reduceat(np.where(included > 0, values, 0.0), starts)  # [G, M]
    num_cases = np.add.reduceat(included, starts)  # [G, M]
    drawn = resampled_sums(np.concatenate([sums, num_cases], axis=1), seed=seed, resamples=resamples)
    with np.errstate(invalid="ignore"):
        return np.divide(*np.split(drawn, 2, axis=1))


def resampled_sums(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """[R, M]: sum of each column over visitors drawn with replacement.

    The draws depend only on the seed and the number of visitors.

    Args:
      values: [G, M] the value of each visitor in each column.
      resamples: number of resamples, R.
    """
    generator = np.random.default_rng(seed)
    block = max(1, _MAX_DRAWS // len(values))
    return np.concatenate(
        [
            _times_drawn(min(block, resamples - done), len(values), generator) @ values
            for done in range(0, resamples, block)
        ]
    )


def percentile_interval(means: np.ndarray) -> Interval:
    """Returns the 2.5% and 97.5% quantiles of each column of `means` [R, M]; NaN is ignored."""
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return Interval(low, high)


def paired_p_values(means: np.ndarray, other_means: np.ndarray) -> np.ndarray:
    """[M]: two-sided p-value of the difference between two systems in each column.

    The p-value is 2 × (n + 1) / (R + 1), at most 1 (Davison and Hinkley, 1997). n is the smaller of two numbers of
    resamples: those with a difference of at most 0, and those with one of at least 0. NaN is treated as 0.

    Args:
      means: [R, M] resampled means of one system.
      other_means: [R, M] resampled means of the other system, from the same draws.
    """
    # a resample without a case shows no difference
    difference = np.nan_to_num(means - other_means)
    not_above, not_below = (difference <= 0).sum(axis=0), (difference >= 0).sum(axis=0)
    return np.minimum(2 * (np.minimum(not_above, not_below) + 1) / (len(difference) + 1), 1.0)


def _times_drawn(resamples: int, num_visitors: int, generator: np.random.Generator) -> np.ndarray:
    """[R, G] float64: how often each visitor is drawn in each resample."""
    drawn = generator.integers(num_visitors, size=(resamples, num_visitors))
    flat = (drawn + np.arange(resamples)[:, None] * num_visitors).ravel()
    return np.bincount(flat, minlength=resamples * num_visitors).reshape(resamples, num_visitors).astype(np.float64)
