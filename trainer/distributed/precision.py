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

GPUs use TensorFloat-32 by default. Training tolerates it. Normal equations do not, and a ranking would differ from that
on a CPU, because items with different scores would tie. The switch applies to the whole process, so nothing should
train at the same time. Several threads may be inside the context.
"""
