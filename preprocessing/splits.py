"""Assigns events to the splits: by time, at random, or all to training.

Shapes: N rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contract.schema import Split, SplitMethod
from preprocessing.config import SplitConfig, format_when
from preprocessing.histograms import Histogram, count_values, merge_histograms

SPLITS = tuple(Split)
TRAIN, VALIDATION, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class Cuts:
    """The two times that divide events into training, validation and test.

    An event at a cut is in the later split.
    """

    validation_from_ms: int
    """Start of validation, in milliseconds since 1970."""
    test_from_ms: int
    """Start of test, in milliseconds since 1970. It is not before `validation_from_ms`."""


# a summary with more distinct times halves its resolution; 2.8 M events over 4.5 months have one of two seconds
_MAX_TIMES = 1 << 20


def summarize_times(timestamps_ms: np.ndarray) -> Histogram:
    """Makes a histogram of the times [N], in milliseconds since 1970, with at most 1,048,576 bins."""
    return count_values(timestamps_ms, _MAX_TIMES)


def merge_times(summaries: Iterable[Histogram]) -> Histogram:
    """Merges histograms from `summarize_times`, in any order."""
    return merge_histograms(summaries, _MAX_TIMES)


def choose_cuts(summary: Histogram, config: SplitConfig) -> Cuts | None:
    """Returns the cuts of a split by time; None for other methods.

    The cuts are those in the settings, or quantiles of all event times.
    """
    if config.method != SplitMethod.TIME:
        return None
    if config.validation_from_ms is not None and config.test_from_ms is not None:
        return Cuts(config.validation_from_ms, config.test_from_ms)
    train_share = 1 - config.validation_share - config.test_share
    return Cuts(_quantile(summary, train_share), _quantile(summary, 1 - config.test_share))


def check_splits(counts: Sequence[int], summary: Histogram, cuts: Cuts | None, config: SplitConfig) -> None:
    """Raises an error if a split is empty.

    Args:
      counts: number of events per split, in the order of SPLITS.
      summary: times of all events, to suggest better cuts.
      cuts: cuts of a split by time, else None.
      config: settings of the split. With the method `none`, validation and test may be empty.

    Raises:
      ValueError: a split is empty.
    """
    by_split = {str(split): int(count) for split, count in zip(SPLITS, counts, strict=True)}
    empty = ", ".join(name for name, count in by_split.items() if count == 0)
    if not empty or config.method == SplitMethod.NONE:
        return
    if cuts is None:
        raise ValueError(_describe_few_events(empty, by_split))
    starts = [format_when(cut) for cut in (cuts.validation_from_ms, cuts.test_from_ms)]
    better = _suggest_cuts(summary)
    advice = "the events have fewer than three distinct times, so provide more events, or use --split none"
    if better is not None:
        flags = f"--validation-from {format_when(better.validation_from_ms)}"
        advice = f"use {flags} --test-from {format_when(better.test_from_ms)}, for example"
    raise ValueError(f"no events for {empty}: validation starts at {starts[0]} and test at {starts[1]}; {advice}")


def _describe_few_events(empty: str, by_split: Mapping[str, int]) -> str:
    total = sum(by_split.values())
    return f"no events for {empty}: {total} events are too few for a random split; add events, or use --split none"


def assign_splits(
    timestamps_ms: np.ndarray, row_hashes: np.ndarray, cuts: Cuts | None, config: SplitConfig
) -> np.ndarray:
    """Assigns each row to a split: an index in SPLITS, [N] int8.

    Args:
      timestamps_ms: [N] times of the rows.
      row_hashes: [N] uint64, uniformly distributed; only for a random split.
      cuts: only for a split by time.
      config: settings of the split.

    Raises:
      ValueError: `cuts` is None in a split by time.
    """
    if config.method == SplitMethod.NONE:
        return np.zeros(len(timestamps_ms), np.int8)
    if config.method == SplitMethod.RANDOM:
        uniform = row_hashes / 2.0**64
        edges = (1 - config.validation_share - config.test_share, 1 - config.test_share)
        return np.searchsorted(edges, uniform, side="right").astype(np.int8)
    if cuts is None:
        raise ValueError(f"split.method={config.method} needs `cuts`, the times at which validation and test start")
    edges_ms = (cuts.validation_from_ms, cuts.test_from_ms)
    return np.searchsorted(edges_ms, timestamps_ms, side="right").astype(np.int8)


def _quantile(summary: Histogram, share: float) -> int:
    """Returns the earliest time with at least `share` of the events before it, or the last time if there is none."""
    before = np.cumsum(summary.counts) - summary.counts
    index = np.searchsorted(before, share * summary.counts.sum() - 1e-6)  # 0.9 * 10 may round above 9
    return int(summary.values[min(index, len(summary.values) - 1)])


def _suggest_cuts(summary: Histogram) -> Cuts | None:
    """Returns cuts that leave no split empty, near the 0.8 and 0.9 quantiles; None for too few distinct times."""
    num_times = len(summary.values)
    if num_times < len(SPLITS):
        return None
    first = min(max(int(np.searchsorted(summary.values, _quantile(summary, 0.8))), 1), num_times - 2)
    second = min(max(int(np.searchsorted(summary.values, _quantile(summary, 0.9))), first + 1), num_times - 1)
    return Cuts(int(summary.values[first]), int(summary.values[second]))
