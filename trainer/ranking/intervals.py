"""95% confidence intervals of means over visitors, by bootstrap.

Shapes: V visitors, M metrics, R resamples.
"""

from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_MAX_DRAWS = 4_000_000  # drawn at once: 32 MB


class Interval(NamedTuple):
    """Bounds of each metric, [M] float64."""

    low: np.ndarray
    high: np.ndarray


def bootstrap_interval(values: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """Percentile interval of the mean of each column of values [V, M] (Efron, 1979).

    Visitors are drawn with replacement, the same ones for every column and, at the same seed and V, for every system.
    Where all visitors have one value, as when nobody found anything, the interval has no width: it knows no better.
    """
    generator = np.random.default_rng(seed)
    num_visitors = len(values)
    at_once = max(1, _MAX_DRAWS // num_visitors)
    means = [
        _resample_means(values, min(at_once, resamples - done), generator) for done in range(0, resamples, at_once)
    ]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return Interval(low, high)


def _resample_means(values: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """[R, M]: means of the columns over R resamples of the visitors."""
    num_visitors = len(values)
    drawn = generator.integers(num_visitors, size=(resamples, num_visitors))
    # how often each visitor was drawn in each resample, then one matrix product for all means
    flat = (drawn + np.arange(resamples)[:, None] * num_visitors).ravel()
    times = np.bincount(flat, minlength=resamples * num_visitors).reshape(resamples, num_visitors)
    return times @ values / num_visitors
