"""Computes counts and histograms, and describes them as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from preprocessing.timelines import MS_PER_DAY

_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def cross_tabulate(rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    """Counts pairs of indices; element [r, c] is the number of pairs (r, c).

    Args:
      rows: [N] first index of each pair, in [0, num_rows).
      columns: [N] second index of each pair, in [0, num_columns).
      num_rows: rows of the result.
      num_columns: columns of the result.

    Returns:
      [num_rows, num_columns] int64.
    """
    counts = np.bincount(rows.astype(np.int64) * num_columns + columns, minlength=num_rows * num_columns)
    return counts.reshape(num_rows, num_columns)


def count_values(values: np.ndarray) -> Counter[int]:
    """Counts how often each integer occurs in `values` [N], which are 0 or greater.

    The memory is proportional to the largest value.
    """
    counts = np.bincount(values)
    found = np.flatnonzero(counts)
    return Counter(dict(zip(found.tolist(), counts[found].tolist(), strict=True)))


def label_kinds(counts: np.ndarray | Sequence[int], kinds: Sequence[str]) -> dict[str, int]:
    """Returns the counts of the event kinds by name. Both arguments are [K]."""
    return {kind: int(count) for kind, count in zip(kinds, counts, strict=True)}


def label_days(counts: Mapping[int, int]) -> dict[str, int]:
    """Returns counts by ISO 8601 date, earliest first. The keys of `counts` are days since 1970-01-01."""
    return {format_day(day): int(count) for day, count in sorted(counts.items())}


def format_day(day: int) -> str:
    """Formats a number of days since 1970-01-01 as an ISO 8601 date."""
    return datetime.fromtimestamp(day * MS_PER_DAY / 1000, UTC).date().isoformat()


def describe_histogram(histogram: Counter[int]) -> dict[str, Any]:
    """Returns the mean, maximum, quantiles and counts of a histogram as JSON values.

    `histogram` maps each value to its number of occurrences. Without values, mean and maximum are null.
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
