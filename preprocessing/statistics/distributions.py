"""Computes counts and histograms, and describes them as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from preprocessing.timelines import MS_PER_DAY

_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def cross_tabulate(rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    """Counts how often each pair of indices `rows` [N] and `columns` [N] occurs, [num_rows, num_columns] int64."""
    counts = np.bincount(rows.astype(np.int64) * num_columns + columns, minlength=num_rows * num_columns)
    return counts.reshape(num_rows, num_columns)


def count_values(values: np.ndarray) -> Counter[int]:
    """Counts how often each value occurs in non-negative, small integers [N]."""
    counts = np.bincount(values)
    found = np.flatnonzero(counts)
    return Counter(dict(zip(found.tolist(), counts[found].tolist(), strict=True)))


def label_kinds(counts: np.ndarray | Sequence[int], kinds: Sequence[str]) -> dict[str, int]:
    """Returns the counts [K] of event kinds as a dictionary by name."""
    return {kind: int(count) for kind, count in zip(kinds, counts, strict=True)}


def label_days(counts: Mapping[int, int]) -> dict[str, int]:
    """Replaces days since 1970 by ISO dates, in chronological order."""
    return {format_day(day): int(count) for day, count in sorted(counts.items())}


def format_day(day: int) -> str:
    """Formats a day since 1970 (UTC) as an ISO 8601 date."""
    return datetime.fromtimestamp(day * MS_PER_DAY / 1000, UTC).date().isoformat()


def describe_histogram(histogram: Counter[int]) -> dict[str, Any]:
    """Describes a histogram by its mean, maximum, quantiles and counts, as JSON.

    A quantile is the lowest value with at least this share of all values at or below it.
    """
    if not histogram:
        return {"mean": None, "max": None, "quantiles": {}, "histogram": {}}
    values = np.array(sorted(histogram))
    counts = np.array([histogram[value] for value in values.tolist()])
    below = np.cumsum(counts) / counts.sum()
    return {
        "mean": float((values * counts).sum() / counts.sum()),
        "max": int(values[-1]),
        "quantiles": {str(q): int(values[np.searchsorted(below, q - 1e-12)]) for q in _QUANTILES},
        "histogram": {str(value): int(count) for value, count in zip(values, counts, strict=True)},
    }
