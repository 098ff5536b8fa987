"""The precision of matrix products on GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import tensorflow as tf


class _FullFloat32:
    """Switches TensorFloat-32 off while any thread needs full precision."""

    def __init__(self) -> None:
        self._lock, self._num_inside, self._was_enabled = Lock(), 0, True

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._num_inside:
                self._was_enabled = tf.config.experimental.tensor_float_32_execution_enabled()
                tf.config.experimental.enable_tensor_float_32_execution(False)
            self._num_inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_inside -= 1
                if not self._num_inside:
                    tf.config.experimental.enable_tensor_float_32_execution(self._was_enabled)


full_float32 = _FullFloat32()
"""Within this context, matrix products use all 23 bits of a float32 fraction, not the 10 bits of TensorFloat-32.

On GPUs, TensorFlow uses TensorFloat-32 by default. It is precise enough for gradient steps, but not for the normal
equations of least squares. Rankings would differ from those on a CPU, because items with different scores would tie.
Several threads may enter the context. It switches TensorFloat-32 off for the whole process, so no other thread should
train meanwhile.
"""
