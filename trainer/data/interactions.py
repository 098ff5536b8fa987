"""The training rows as a sparse matrix, and its rows in batches of like lengths: what least squares are solved over.

Shapes: V visitors and I items of the vocabularies, N rows of one side of the matrix, R replicas; on one replica E
entries of a batch, M rows of L entries, padding included.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from contract.schema import EVENT_KINDS, Split
from contract.shards import read_timelines
from trainer.data.dataset import Dataset

_DAY_MS = 24 * 60 * 60 * 1000


class RowBatch(NamedTuple):
    """Rows that are solved together, each by the replica that owns it.

    row      [R, M] int64: rows of the solved side; -1 fills up
    column   [R, E] int64: the first M × L hold the columns of each row's entries, one row after the other; 0 fills up
    weight   [R, E] float32 of each entry; 0 fills up
    length   L
    """

    row: np.ndarray
    column: np.ndarray
    weight: np.ndarray
    length: int


def read_interactions(
    dataset: Dataset, event_weights: Sequence[float], half_life_days: float | None = None
) -> sp.csr_matrix:
    """[V, I] float32: the summed weights of what each visitor did with each item in training; 0 entries are left out.

    Args:
      event_weights: what an event of each kind is worth.
      half_life_days: an event is worth half after that many days before the last training event; None: all alike.

    Raises:
      ValueError: nothing has a weight above 0.
    """
    parts = []
    for shard in dataset.shards(Split.TRAIN):
        rows = read_timelines([shard])
        is_counted = rows.is_target.astype(bool) & (rows.visitor < dataset.num_visitors)
        parts.append(rows[is_counted & (rows.item < dataset.num_items)])
    visitor, item, event, timestamp_ms = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("visitor", "item", "event", "timestamp_ms")
    )
    weight = np.array(event_weights, np.float32)[event]
    if half_life_days is not None:
        age_days = (timestamp_ms.max(initial=0) - timestamp_ms) / _DAY_MS
        weight = weight * np.exp2(-age_days / half_life_days)
    matrix = sp.csr_matrix((weight, (visitor, item)), (dataset.num_visitors, dataset.num_items), np.float32)
    matrix.eliminate_zeros()
    if not matrix.nnz:
        raise ValueError(
            f"no training event of {dataset.root} has a weight above 0, got {list(event_weights)} for "
            f"{', '.join(EVENT_KINDS)}: raise loss.event_weights"
        )
    return matrix


def row_batches(matrix: sp.csr_matrix, replicas: int, batch_entries: int) -> Iterator[RowBatch]:
    """Every row of a matrix [N, …] once, those without entries too, in batches of E entries on each replica.

    A row is filled up to the next of 1, 2, 3, 4, 6, 8, 12, 16 …, by at most a half: less than a third of what is
    computed is padding.

    Args:
      batch_entries: E, raised to the longest row where that is longer.
    """
    entries = np.diff(matrix.indptr)
    lengths = _padded_lengths(np.maximum(entries, 1))
    size = max(batch_entries, int(lengths.max(initial=1)))
    for length in np.unique(lengths):
        owned = [
            np.flatnonzero((lengths == length) & (np.arange(len(lengths)) % replicas == k)) for k in range(replicas)
        ]
        num_rows = size // int(length)
        for begin in range(0, max(map(len, owned)), num_rows):
            taken = [rows[begin : begin + num_rows] for rows in owned]
            yield _batch(matrix, taken, int(length), size)


def _padded_lengths(lengths: np.ndarray) -> np.ndarray:
    """The least of 1, 2, 3, 4, 6, 8, 12 … that holds each length."""
    power = np.int64(1) << np.ceil(np.log2(lengths)).astype(np.int64)
    between = power // 4 * 3
    return np.where((between >= lengths) & (between > 0), between, power)


def _batch(matrix: sp.csr_matrix, taken: Sequence[np.ndarray], length: int, size: int) -> RowBatch:
    num_rows = max(map(len, taken))
    row = np.full((len(taken), num_rows), -1, np.int64)
    column = np.zeros((len(taken), size), np.int64)
    weight = np.zeros((len(taken), size), np.float32)
    for replica, rows in enumerate(taken):
        row[replica, : len(rows)] = rows
        some = matrix[rows]
        entries = np.diff(some.indptr)
        place = np.repeat(np.arange(len(rows)) * length - some.indptr[:-1], entries) + np.arange(some.nnz)
        column[replica, place] = some.indices
        weight[replica, place] = some.data
    return RowBatch(row, column, weight, length)
