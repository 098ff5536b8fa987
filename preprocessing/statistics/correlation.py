"""Pearson correlations between columns of the event log.

They are computed from integer sums, so they do not depend on the order of the rows.

Shapes: N rows, C columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from contract.timelines import TimelineRows

COLUMNS = ("time", "hour of day", "weekday", "event kind", "visitor rank", "item rank", "events before")
"""Names of the columns. Time is in hours. Weekday 0 is Monday. The event kind is its index in the funnel. The most
frequent id has rank 0.

Ranks are used instead of ids, because the order of ids has no meaning. The original notebook correlated ids.
"""

_MS_PER_HOUR = 3_600_000
_THURSDAY = 3  # the weekday of 1970-01-01; Monday is 0
_RANKS = 1000  # ranks are in thousandths, so that no sum of squares overflows


@dataclass(frozen=True)
class Moments:
    """Exact sums over rows, used to compute correlations."""

    rows: int
    """Number of rows, N."""
    sums: np.ndarray
    """[C] sum of the values of each column."""
    products: np.ndarray
    """[C, C] sum, over the rows, of the product of each pair of columns."""


def count_moments(rows: TimelineRows, num_visitors: int, num_items: int) -> Moments:
    """Sums up COLUMNS and their pairwise products over the target rows. Unknown ids have the last rank."""
    targets = rows[rows.is_target == 1]
    hours = targets.timestamp_ms // _MS_PER_HOUR
    columns = np.stack(
        [
            hours,
            hours % 24,
            (hours // 24 + _THURSDAY) % 7,
            targets.event,
            np.minimum(targets.visitor, num_visitors) * _RANKS // num_visitors,
            np.minimum(targets.item, num_items) * _RANKS // num_items,
            targets.position,
        ]
    )
    return Moments(len(targets), columns.sum(1).astype(object), (columns @ columns.T).astype(object))


def describe_correlation(parts: Iterable[Moments]) -> dict[str, Any]:
    """Returns the names of the columns and their correlation matrix, [C, C], as JSON values.

    The correlations of a constant column are null.
    """
    listed = list(parts)
    rows = sum(part.rows for part in listed)
    sums = sum((part.sums for part in listed), np.zeros(len(COLUMNS), object))
    products = sum((part.products for part in listed), np.zeros((len(COLUMNS), len(COLUMNS)), object))
    covariance = rows * products - np.outer(sums, sums)
    matrix = [[_correlate(covariance, row, column) for column in range(len(COLUMNS))] for row in range(len(COLUMNS))]
    return {"columns": list(COLUMNS), "matrix": matrix}


def _correlate(covariance: np.ndarray, row: int, column: int) -> float | None:
    variance = covariance[row, row] * covariance[column, column]
    return round(covariance[row, column] / variance**0.5, 6) if variance else None
