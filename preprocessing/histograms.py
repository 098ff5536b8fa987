"""Mergeable histograms of bounded size, and samples of them.

Cuts are chosen from the histogram of event times; TF-Transform analyses samples of gaps and prices.

Shapes: N values, T bins.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MAX_FLOATS = 1 << 16
"""Most bins of a histogram of floats, and most values of a sample of it."""


@dataclass(frozen=True)
class Histogram:
    """Counts of integers, or of the bits of floats."""

    values: np.ndarray
    """[T] int64, distinct and ascending: the starts of bins of width 2**resolution."""
    counts: np.ndarray
    """[T] int64, the values of each bin."""
    resolution: int = 0
    """While there are few distinct values, it is 0, so that they are exact."""


def count_values(values: np.ndarray, max_bins: int) -> Histogram:
    """Counts integers [N]; the resolution is the finest with at most `max_bins` bins."""
    distinct, counts = np.unique(values.astype(np.int64), return_counts=True)
    return _coarsen(Histogram(distinct, counts), max_bins)


def merge_histograms(parts: Iterable[Histogram], max_bins: int) -> Histogram:
    """Merges histograms of at most `max_bins` bins; the result does not depend on their order or grouping."""
    listed = list(parts)
    resolution = max((part.resolution for part in listed), default=0)
    empty = np.empty(0, np.int64)
    values = np.concatenate([part.values >> resolution << resolution for part in listed] or [empty])
    counts = np.concatenate([part.counts for part in listed] or [empty])
    order = np.argsort(values, kind="stable")
    return _coarsen(_add_up(values[order], counts[order], resolution), max_bins)


def count_floats(values: np.ndarray) -> Histogram:
    """Counts float32 values [N], which must not be negative."""
    # their bits have their order, so bins of bits have a relative width: about 0.1% for gaps from a millisecond to a
    # year; adding 0 turns -0.0, whose bits are those of a negative number, into 0.0
    return count_values((values + np.float32(0)).view(np.int32), MAX_FLOATS)


def merge_floats(parts: Iterable[Histogram]) -> Histogram:
    """Merges results of `count_floats`; the result does not depend on their order or grouping."""
    return merge_histograms(parts, MAX_FLOATS)


def sample_floats(histogram: Histogram) -> np.ndarray:
    """Returns at most `MAX_FLOATS` float32 values, ascending: all of them, or evenly spaced quantiles."""
    total = int(histogram.counts.sum())
    size = min(total, MAX_FLOATS)
    ranks = (2 * np.arange(size) + 1) * total // (2 * size or 1)  # in the middles of `size` equal parts
    bins = np.searchsorted(np.cumsum(histogram.counts), ranks, side="right")
    return histogram.values[bins].astype(np.int32).view(np.float32)


def _coarsen(histogram: Histogram, max_bins: int) -> Histogram:
    while len(histogram.values) > max_bins:
        resolution = histogram.resolution + 1
        histogram = _add_up(histogram.values >> resolution << resolution, histogram.counts, resolution)
    return histogram


def _add_up(values: np.ndarray, counts: np.ndarray, resolution: int) -> Histogram:
    """Adds the counts of equal values, which are ascending."""
    if len(values) == 0:
        return Histogram(values, counts, resolution)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return Histogram(values[starts], np.add.reduceat(counts, starts), resolution)
