"""95% confidence intervals and paired tests of means, by bootstrap over visitors.

Shapes: V cases, G visitors, M columns, R resamples.
"""

from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_MAX_DRAWS = 4_000_000  # drawn at once: 32 MB


class Interval(NamedTuple):
    """Bounds of each column, [M] float64."""

    low: np.ndarray
    high: np.ndarray


def resampled_means(
    values: np.ndarray,
    *,
    seed: int,
    owner: np.ndarray | None = None,
    counts: np.ndarray | None = None,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """[R, M]: means of the columns over visitors drawn with replacement (Efron, 1979).

    The same visitors for every column and, at the same seed and number of visitors, for every system: means of two
    systems may be subtracted.

    Args:
      values: [V, M].
      seed: of the draws.
      owner: [V] ascending numbers of the visitors; a visitor is drawn with all his cases, which are not independent.
        By default each case is a visitor of his own.
      counts: [V, M] bool: whether a case counts in a column; by default all do. Where no case of a resample counts, its
        mean is NaN.
      resamples: R.
    """
    counted = np.ones(values.shape) if counts is None else counts.astype(np.float64)
    if len(values) == 0:
        return np.full((resamples, values.shape[1]), np.nan)
    starts = np.arange(len(values)) if owner is None else np.flatnonzero(np.diff(owner, prepend=owner[0] - 1))
    sums = np.add.reduceat(np.where(counted > 0, values, 0.0), starts)  # [G, M]
    num_cases = np.add.reduceat(counted, starts)  # [G, M]
    drawn = resampled_sums(np.concatenate([sums, num_cases], axis=1), seed=seed, resamples=resamples)
    with np.errstate(invalid="ignore"):
        return np.divide(*np.split(drawn, 2, axis=1))


def resampled_sums(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """[R, M]: sums of the columns of values [G, M], a visitor a row, over visitors drawn with replacement.

    The same visitors at the same seed and number of visitors.
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, _MAX_DRAWS // len(values))
    return np.concatenate(
        [
            _times_drawn(min(at_once, resamples - done), len(values), generator) @ values
            for done in range(0, resamples, at_once)
        ]
    )


def percentile_interval(means: np.ndarray) -> Interval:
    """The middle 95% of resampled means [R, M].

    Where all visitors have one value, as when nobody found anything, the interval has no width: it knows no better.
    """
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return Interval(low, high)


def paired_p_values(means: np.ndarray, other_means: np.ndarray) -> np.ndarray:
    """[M], in (0, 1]: how often chance alone would set two systems so far apart, two-sided.

    Twice the share of resamples in which the difference of the means [R, M] has not the sign that it mostly has; one
    is added to both counts, as no finite number of resamples shows that something is impossible (Davison and Hinkley,
    1997).
    """
    # a resample without a case to count tells of no difference
    difference = np.nan_to_num(means - other_means)
    not_above, not_below = (difference <= 0).sum(axis=0), (difference >= 0).sum(axis=0)
    return np.minimum(2 * (np.minimum(not_above, not_below) + 1) / (len(difference) + 1), 1.0)


def _times_drawn(resamples: int, num_visitors: int, generator: np.random.Generator) -> np.ndarray:
    """[R, G] float64: how often each visitor is drawn in each resample."""
    drawn = generator.integers(num_visitors, size=(resamples, num_visitors))
    flat = (drawn + np.arange(resamples)[:, None] * num_visitors).ravel()
    return np.bincount(flat, minlength=resamples * num_visitors).reshape(resamples, num_visitors).astype(np.float64)
