"""Event time (or chance) to train, validation or test.

Shapes: N rows, T distinct times.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.schema import Split, SplitMethod
from preprocessing import validation
from preprocessing.config import SplitConfig

SPLITS = tuple(Split)
TRAIN, VALIDATION, TEST = range(len(SPLITS))


@dataclass(frozen=True)
class TimeSummary:
    """How many events happened when: the mergeable sketch from which cuts are chosen.

    times_ms   [T] int64, distinct, ascending; each stands for the 2**resolution ms that begin there
    counts     [T] int64
    resolution times are multiples of 2**resolution ms; 0 while there are few: exact then
    """

    times_ms: np.ndarray
    counts: np.ndarray
    resolution: int = 0


# Beyond this many distinct times a summary halves its resolution: 2.8 M events then keep one of two seconds.
_MAX_TIMES = 1 << 20


def summarize_times(timestamps_ms: np.ndarray) -> TimeSummary:
    """The summary of a column of timestamps [N]."""
    times, counts = np.unique(timestamps_ms, return_counts=True)
    return _coarsen(TimeSummary(times, counts))


def merge_times(summaries: list[TimeSummary]) -> TimeSummary:
    """One summary of several; the result does not depend on their order or grouping."""
    resolution = max((s.resolution for s in summaries), default=0)
    times = np.concatenate([s.times_ms >> resolution << resolution for s in summaries] or [np.empty(0, np.int64)])
    counts = np.concatenate([s.counts for s in summaries] or [np.empty(0, np.int64)])
    order = np.argsort(times, kind="stable")
    return _coarsen(_summed(times[order], counts[order], resolution))


def choose_cuts(summary: TimeSummary, config: SplitConfig) -> tuple[int, int]:
    """Validation and test cut in ms, given or at quantiles; an event at a cut belongs to the later split."""
    if config.validation_from_ms is not None and config.test_from_ms is not None:
        return config.validation_from_ms, config.test_from_ms
    train_share = 1 - config.validation_share - config.test_share
    return _quantile(summary, train_share), _quantile(summary, 1 - config.test_share)


def check_counts(counts: Sequence[int], summary: TimeSummary, cuts: tuple[int, int] | None) -> None:
    """Refuses a division with an empty split.

    Args:
      counts: events of each of SPLITS.
      summary: when events happened, from which cuts that would work are suggested.
      cuts: None: the split is at random.

    Raises:
      ValueError: names the empty splits and what to do.
    """
    by_split = {str(split): int(count) for split, count in zip(SPLITS, counts, strict=True)}
    validation.check_splits(by_split, cuts, _usable_cuts(summary))


def assign_splits(
    timestamps_ms: np.ndarray, row_hashes: np.ndarray, cuts: tuple[int, int] | None, config: SplitConfig
) -> np.ndarray:
    """[N] int8: the place in SPLITS of each row.

    Args:
      timestamps_ms: [N].
      row_hashes: [N] uint64, evenly spread and a function of the row; only the random split looks at them.
      cuts: validation and test cut of a time split.
      config: method and shares.
    """
    if config.method == SplitMethod.NONE:
        return np.zeros(len(timestamps_ms), np.int8)
    if config.method == SplitMethod.RANDOM:
        uniform = row_hashes / 2.0**64
        edges = (1 - config.validation_share - config.test_share, 1 - config.test_share)
        return np.searchsorted(edges, uniform, side="right").astype(np.int8)
    if cuts is None:
        raise ValueError("a time split needs cuts")
    return np.searchsorted(cuts, timestamps_ms, side="right").astype(np.int8)


def _coarsen(summary: TimeSummary) -> TimeSummary:
    while len(summary.times_ms) > _MAX_TIMES:
        resolution = summary.resolution + 1
        summary = _summed(summary.times_ms >> resolution << resolution, summary.counts, resolution)
    return summary


def _summed(times: np.ndarray, counts: np.ndarray, resolution: int) -> TimeSummary:
    """The summary of ascending times, equal ones made one."""
    if len(times) == 0:
        return TimeSummary(times, counts, resolution)
    starts = np.flatnonzero(np.r_[True, times[1:] != times[:-1]])
    return TimeSummary(times[starts], np.add.reduceat(counts, starts), resolution)


def _quantile(summary: TimeSummary, share: float) -> int:
    """The first time before which at least `share` of the events lie."""
    before = np.cumsum(summary.counts) - summary.counts
    place = np.searchsorted(before, share * summary.counts.sum() - 1e-6)  # 0.9 * 10 may round above 9
    return int(summary.times_ms[min(place, len(summary.times_ms) - 1)])


def _usable_cuts(summary: TimeSummary) -> tuple[int, int] | None:
    """Cuts near the 0.8 and 0.9 quantiles that leave no split empty; None with fewer than three distinct times."""
    num_times = len(summary.times_ms)
    if num_times < len(SPLITS):
        return None
    first = min(max(int(np.searchsorted(summary.times_ms, _quantile(summary, 0.8))), 1), num_times - 2)
    second = min(max(int(np.searchsorted(summary.times_ms, _quantile(summary, 0.9))), first + 1), num_times - 1)
    return int(summary.times_ms[first]), int(summary.times_ms[second])
