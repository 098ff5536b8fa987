"""Variables of a trained model that are filled in pieces, so that no table is in memory twice.

Shapes: N rows, D columns.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.distributed.embeddings import CHUNK_ROWS

HOST = "CPU:0"
"""Device of tables that are read a few rows at a time; they may be larger than an accelerator's memory."""

_ALIGNMENT_BYTES = 64
"""Alignment that TensorFlow needs to use memory without copying it."""


def make_variable(shape: tuple[int, ...], name: str, dtype: type[np.generic] = np.float32) -> tf.Variable:
    """Creates a variable of zeros that takes no memory until it is filled; `dtype` has 4 bytes."""
    return tf.Variable(_share(_zeros(shape, dtype)), trainable=False, name=name)


def fill(variable: tf.Variable, read: Callable[[slice], np.ndarray], first: int = 0) -> None:
    """Fills a variable [N, …] with rows first … first + N - 1; `read` returns the rows of a slice."""
    # not in place: TensorFlow copies a variable on each read after a partial write
    values = _zeros(tuple(variable.shape), variable.dtype.as_numpy_dtype)
    for start in range(0, len(values), CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, len(values))
        values[start:stop] = read(slice(first + start, first + stop))
    variable.assign(_share(values))


def _zeros(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Zeros at an aligned address; the system allocates their pages only when they are written to."""
    num_bytes = int(np.prod(shape)) * 4
    memory = np.zeros(num_bytes + _ALIGNMENT_BYTES, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[begin : begin + num_bytes].view(dtype).reshape(shape)


def _share(values: np.ndarray) -> tf.Tensor:
    """A tensor that shares the array's memory; `tf.constant` would copy it."""
    return tf.experimental.dlpack.from_dlpack(values.__dlpack__())
