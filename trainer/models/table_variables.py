"""Variables of a trained model that are filled in pieces, so that no table is in memory twice.

Shapes: N rows, D columns.
"""

from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter

import numpy as np
import tensorflow as tf

from trainer.distributed.embeddings import chunk_rows

HOST = "CPU:0"
"""Device of tables that are read a few rows at a time; they may be larger than an accelerator's memory."""

_MAX_GAP = 64
"""If fewer rows than this are between two needed rows, they are read too, because a second read would cost more."""

_ALIGNMENT_BYTES = 64
"""Alignment that TensorFlow needs to use memory without copying it."""


def make_variable(shape: tuple[int, ...], name: str, dtype: type[np.generic] = np.float32) -> tf.Variable:
    """Creates a variable of zeros; it takes no memory until it is filled. `dtype` must have 4 bytes."""
    return tf.Variable(_share(_zeros(shape, dtype)), trainable=False, name=name)


def fill(
    variable: tf.Variable, read: Callable[[slice], np.ndarray], first: int = 0, *, width: int | None = None
) -> None:
    """Fills a variable with N consecutive rows of a table.

    Args:
      variable: [N, …] variable to fill; its memory is freed first.
      read: returns the table rows that a slice selects.
      first: index of the table row that fills the variable's first row.
      width: number of columns of the rows that `read` needs in memory; None: as many as the variable has.
    """
    shape, dtype = tuple(variable.shape), variable.dtype.as_numpy_dtype
    variable.assign(_share(_zeros(shape, dtype)))  # frees the old values, so that no table is in memory twice
    # not in place: TensorFlow copies a variable on each read after a partial write
    values = _zeros(shape, dtype)
    size = chunk_rows(width or _width(shape))
    for start in range(0, len(values), size):
        rows = slice(start, min(start + size, len(values)))
        values[rows] = read(slice(first + rows.start, first + rows.stop))
    variable.assign(_share(values))


def fill_rows(variable: tf.Variable, read: Callable[[slice], np.ndarray], needed: np.ndarray | None) -> None:
    """Fills the needed rows of a variable in place.

    Only `tf.gather` may read the variable: any other read copies it.

    Args:
      variable: [N, …] variable to fill; its rows are those of the table.
      read: returns the table rows that a slice selects.
      needed: indices of the rows to fill, below N; other rows keep their values. None: all rows.
    """
    if needed is None:
        fill(variable, read)
        return
    size = chunk_rows(_width(tuple(variable.shape)))
    for spans in _batches(_spans(np.unique(needed), size), size):
        values = np.concatenate([read(rows) for rows in spans])
        indices = np.concatenate([np.arange(rows.start, rows.stop) for rows in spans])
        # in place: after the first `tf.gather`, TensorFlow would copy every newly assigned table
        variable.scatter_update(tf.IndexedSlices(values, indices))


def _width(shape: tuple[int, ...]) -> int:
    """Returns the number of entries of a row of an array [N, …]."""
    return int(np.prod(shape[1:]))


def _spans(rows: np.ndarray, size: int) -> list[slice]:
    """Returns slices of at most `size` rows that cover the row indices `rows`, which are ascending."""
    is_new = (np.diff(rows) > _MAX_GAP) | (np.diff(rows // size) > 0)
    return [slice(span[0], span[-1] + 1) for span in np.split(rows, np.flatnonzero(is_new) + 1) if len(span)]


def _batches(spans: list[slice], size: int) -> Iterator[list[slice]]:
    """Groups slices into lists of about `size` rows in total; one update per slice would be slow."""
    ends = np.cumsum([rows.stop - rows.start for rows in spans])
    for _, batch in groupby(zip(ends // size, spans, strict=True), key=itemgetter(0)):
        yield [rows for _, rows in batch]


def _zeros(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Returns zeros at an aligned address; a page takes memory only after the first write to it."""
    num_bytes = int(np.prod(shape)) * 4
    memory = np.zeros(num_bytes + _ALIGNMENT_BYTES, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


def _share(values: np.ndarray) -> tf.Tensor:
    """Returns a tensor that shares the array's memory; `tf.constant` would copy it."""
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
