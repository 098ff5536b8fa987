"""The interaction matrix for least squares, and its rows in batches of similar length.

Shapes: V visitors and I items of the vocabularies, N rows of the matrix or of its transpose, R replicas; for a batch on
one replica: E entries in all, M rows, L entries per row, padding included.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from contract.timelines import TimelineRows
from trainer.data.dataset import Dataset

_DAY_MS = 24 * 60 * 60 * 1000


class RowBatch(NamedTuple):
    """The rows of an interaction matrix that all replicas solve in one step of least squares."""

    row: np.ndarray
    """[R, M] int64 row indices in the matrix: visitors or items; padded with -1."""
    column: np.ndarray
    """[R, E] int64 column of each entry: the L entries of the first row, then those of the second, …; padded with 0."""
    weight: np.ndarray
    """[R, E] float32 weight of each entry; padded with 0."""
    length: int
    """L: entries per row, padding included."""


def read_interactions(
    dataset: Dataset, event_weights: Sequence[float], half_life_days: float | None = None, power: float = 1.0
) -> sp.csr_matrix:
    """[V, I] float32: summed event weights of each (visitor, item) pair; stores no zeros.

    Args:
      event_weights: a factor for each event kind; it multiplies the weights of events.
      half_life_days: half-life of event weights, in days; the age of an event is the time from it to the last training
        event. None: no decay.
      power: exponent of the sums; 0: all sums above 0 become 1.

    Raises:
      ValueError: no event has a weight above 0.
    """
    parts = []
    for rows in dataset.training_events.read():
        is_known = (rows.visitor < dataset.num_visitors) & (rows.item < dataset.num_items)
        parts.append(rows[rows.is_target.astype(bool) & is_known])
    rows = TimelineRows.concatenate(parts)
    weight = np.array(event_weights, np.float32)[rows.event] * rows.weight
    if half_life_days is not None:
        age_days = (rows.timestamp_ms.max(initial=0) - rows.timestamp_ms) / _DAY_MS
        weight = weight * np.exp2(-age_days / half_life_days)
    matrix = sp.csr_matrix((weight, (rows.visitor, rows.item)), (dataset.num_visitors, dataset.num_items), np.float32)
    matrix.eliminate_zeros()
    if not matrix.nnz:
        raise ValueError(
            f"no training event of {dataset.root} has a weight above 0, because loss.event_weights is "
            f"{list(event_weights)} for {', '.join(dataset.manifest.event_kinds)}; raise loss.event_weights"
        )
    matrix.data **= power
    return matrix


def row_batches(matrix: sp.csr_matrix, replicas: int, batch_entries: int) -> Iterator[RowBatch]:
    """Yields the rows of an interaction matrix, or of its transpose, in batches of E entries per replica.

    Row r belongs to replica r % `replicas`. Rows are padded to the lengths 1, 2, 3, 4, 6, 8, 12, 16 …
    E is `batch_entries` or, if greater, the padded length of the longest row.
    """
    entries = np.diff(matrix.indptr)
    lengths = _padded_lengths(np.maximum(entries, 1))
    size = max(batch_entries, int(lengths.max(initial=1)))
    for length in np.unique(lengths):
        owned = [
            np.flatnonzero((lengths == length) & (np.arange(len(lengths)) % replicas == k)) for k in range(replicas)
        ]
        num_rows = size // int(length)
        for start in range(0, max(map(len, owned)), num_rows):
            rows_of_replica = [rows[start : start + num_rows] for rows in owned]
            yield _batch(matrix, rows_of_replica, int(length), size)


def _padded_lengths(lengths: np.ndarray) -> np.ndarray:
    """Rounds each length up to the next of 1, 2, 3, 4, 6, 8, 12 and so on."""
    power = np.int64(1) << np.ceil(np.log2(lengths)).astype(np.int64)
    between = power // 4 * 3
    return np.where((between >= lengths) & (between > 0), between, power)


def _batch(matrix: sp.csr_matrix, rows_of_replica: Sequence[np.ndarray], length: int, size: int) -> RowBatch:
    num_rows = max(map(len, rows_of_replica))
    row = np.full((len(rows_of_replica), num_rows), -1, np.int64)
    column = np.zeros((len(rows_of_replica), size), np.int64)
    weight = np.zeros((len(rows_of_replica), size), np.float32)
    for replica, rows in enumerate(rows_of_replica):
        row[replica, : len(rows)] = rows
        part = matrix[rows]
        entries = np.diff(part.indptr)
        target = np.repeat(np.arange(len(rows)) * length - part.indptr[:-1], entries) + np.arange(part.nnz)
        column[replica, target] = part.indices
        weight[replica, target] = part.data
    return RowBatch(row, column, weight, length)
