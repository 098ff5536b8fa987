"""Counts as JSON: histograms with their mean and quantiles, counts by date and by event kind."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from contract.schema import EVENT_KINDS
from preprocessing.timelines import MS_A_DAY

_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def cross(rows: np.ndarray, columns: np.ndarray, num_rows: int, num_columns: int) -> np.ndarray:
    """[num_rows, num_columns] int64: how often each pair of places [N], [N] occurs."""
    counts = np.bincount(rows.astype(np.int64) * num_columns + columns, minlength=num_rows * num_columns)
    return counts.reshape(num_rows, num_columns)


def count_values(values: np.ndarray) -> Counter[int]:
    """How often each value occurs of whole numbers [N] from 0 to some thousands."""
    counts = np.bincount(values)
    found = np.flatnonzero(counts)
    return Counter(dict(zip(found.tolist(), counts[found].tolist(), strict=True)))


def by_kind(counts: np.ndarray | Sequence[int]) -> dict[str, int]:
    """Counts [K] by the name of the event kind."""
    return {kind: int(count) for kind, count in zip(EVENT_KINDS, counts, strict=True)}


def by_date(counts: Mapping[int, int]) -> dict[str, int]:
    """Counts by day since 1970 as counts by date, in order."""
    return {date(day): int(count) for day, count in sorted(counts.items())}


def date(day: int) -> str:
    """ISO 8601 date of a day since 1970 (UTC)."""
    return datetime.fromtimestamp(day * MS_A_DAY / 1000, UTC).date().isoformat()


def describe_histogram(histogram: Counter[int]) -> dict[str, Any]:
    """Mean, quantiles (the least value that this share does not exceed) and the whole histogram."""
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
