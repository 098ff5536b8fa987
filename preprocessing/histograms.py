"""Mergeable histograms of bounded size, and samples from them.

By default, validation and test start at quantiles of the histogram of event times. TF-Transform analyses samples of
prices and of the gaps between a visitor's events.

Shapes: N values, T bins.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MAX_FLOATS = 1 << 16
"""Maximum number of bins in a histogram of floats, and of values in a sample from it."""


@dataclass(frozen=True)
class Histogram:
    """Counts of integers in bins.

    Float32 values of 0 or more are counted as the integers with the same bits.
    """

    values: np.ndarray
    """[T] int64, start of each bin, ascending. The width of a bin is 2**resolution."""
    counts: np.ndarray
    """[T] int64, number of values in each bin."""
    resolution: int = 0
    """Binary logarithm of the bin width. With 0, each bin is one exact value."""


def count_values(values: np.ndarray, max_bins: int) -> Histogram:
    """Counts integers [N] in at most `max_bins` bins, with a power of two as bin width."""
    distinct, counts = np.unique(values.astype(np.int64), return_counts=True)
    return _coarsen(Histogram(distinct, counts), max_bins)


def merge_histograms(parts: Iterable[Histogram], max_bins: int) -> Histogram:
    """Merges histograms, in any order, into one with at most `max_bins` bins."""
    listed = list(parts)
    resolution = max((part.resolution for part in listed), default=0)
    empty = np.empty(0, np.int64)
    values = np.concatenate([part.values >> resolution << resolution for part in listed] or [empty])
    counts = np.concatenate([part.counts for part in listed] or [empty])
    order = np.argsort(values, kind="stable")
    return _coarsen(_add_up(values[order], counts[order], resolution), max_bins)


def count_floats(values: np.ndarray) -> Histogram:
    """Counts float32 values [N] of 0 or more, in at most `MAX_FLOATS` bins."""
    # their bits have their order, so bins of bits have a relative width: about 0.1% for gaps from a millisecond to a
    # year; adding 0 turns -0.0, whose bits are those of a negative number, into 0.0
    return count_values((values + np.float32(0)).view(np.int32), MAX_FLOATS)


def merge_floats(parts: Iterable[Histogram]) -> Histogram:
    """Merges histograms from `count_floats`, in any order."""
    return merge_histograms(parts, MAX_FLOATS)


def sample_floats(histogram: Histogram) -> np.ndarray:
    """Returns a sample from a histogram that `count_floats` made, as float32 values in ascending order.

    The sample has all values if there are up to `MAX_FLOATS`; otherwise, it has `MAX_FLOATS` evenly spaced quantiles.
    """
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
    """Merges bins with equal starts.

    `values` [N] are the starts of the bins, ascending; `resolution` is the binary logarithm of the bin width.
    """
    if len(values) == 0:
        return Histogram(values, counts, resolution)
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    return Histogram(values[starts], np.add.reduceat(counts, starts), resolution)
