"""Sums of tensors in functions that several threads may call at the same time."""

import functools
from collections.abc import Sequence

import tensorflow as tf


def add_tensors(terms: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the sum of tensors of the same shape, at least one.

    `tf.add_n` and `a + b + c` are not safe in threads: TensorFlow merges chains of additions to AddN, and if a function
    needs more than 205 MB (80% of a CPU's nominal memory), it replaces an AddN of three or more terms by a temporary
    variable. All functions that run at the same time and have a variable of this name share it, so that all but one
    fail with AlreadyExistsError. TensorFlow does not merge additions across a check of the shape.
    """
    return functools.reduce(lambda total, term: tf.ensure_shape(total + term, total.shape), terms)
