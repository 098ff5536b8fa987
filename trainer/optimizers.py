"""Row-sparse updates for tables; Keras optimizers for the dense part.

Shapes: U distinct rows of a step, D columns. Keras 3's own optimizers treat a table as dense: a step would touch all of
its rows, not the few thousand that were read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import keras
import tensorflow as tf

from trainer.config import AdagradConfig, AdamConfig, OptimizerConfig


class RowOptimizer(Protocol):
    """How the rows of a table move along a gradient."""

    @property
    def slots(self) -> Mapping[str, float]:
        """Name and initial value of each array the optimizer keeps beside the table, of the table's shape."""

    def apply(
        self,
        values: tf.Variable,
        slots: Mapping[str, tf.Variable],
        rows: tf.Tensor,
        gradient: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        """Moves distinct `rows` [U] of `values` against `gradient` [U, D]; `step` counts from 0."""


def row_optimizer(config: OptimizerConfig) -> RowOptimizer:
    """The row-sparse form of the optimizer."""
    return _RowAdagrad(config) if isinstance(config, AdagradConfig) else _LazyAdam(config)


def dense_optimizer(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    """The Keras optimizer; it sums the replicas' gradients, so each must be of its share of the global loss."""
    if isinstance(config, AdagradConfig):
        return keras.optimizers.Adagrad(
            learning_rate=config.learning_rate,
            initial_accumulator_value=config.initial_accumulator,
            epsilon=config.epsilon,
        )
    return keras.optimizers.Adam(
        learning_rate=config.learning_rate, beta_1=config.beta_1, beta_2=config.beta_2, epsilon=config.epsilon
    )


@dataclass(frozen=True)
class _RowAdagrad:
    config: AdagradConfig

    @property
    def slots(self) -> Mapping[str, float]:
        return {"accumulator": self.config.initial_accumulator}

    def apply(
        self,
        values: tf.Variable,
        slots: Mapping[str, tf.Variable],
        rows: tf.Tensor,
        gradient: tf.Tensor,
        step: tf.Tensor,  # noqa: ARG002 (Adagrad's rate does not depend on it)
    ) -> None:
        tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=values.handle,
            accum=slots["accumulator"].handle,
            lr=self.config.learning_rate,
            epsilon=self.config.epsilon,
            grad=gradient,
            indices=rows,
        )


@dataclass(frozen=True)
class _LazyAdam:
    config: AdamConfig

    @property
    def slots(self) -> Mapping[str, float]:
        return {"first_moment": 0.0, "second_moment": 0.0}

    def apply(
        self,
        values: tf.Variable,
        slots: Mapping[str, tf.Variable],
        rows: tf.Tensor,
        gradient: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        config = self.config
        first, second = slots["first_moment"], slots["second_moment"]
        new_first = config.beta_1 * first.sparse_read(rows) + (1 - config.beta_1) * gradient
        new_second = config.beta_2 * second.sparse_read(rows) + (1 - config.beta_2) * tf.square(gradient)
        count = tf.cast(step + 1, tf.float32)
        correction = tf.sqrt(1 - tf.pow(config.beta_2, count)) / (1 - tf.pow(config.beta_1, count))
        # the same form as Keras' Adam: epsilon is added to the uncorrected root
        change = config.learning_rate * correction * new_first / (tf.sqrt(new_second) + config.epsilon)
        first.scatter_update(tf.IndexedSlices(new_first, rows))
        second.scatter_update(tf.IndexedSlices(new_second, rows))
        values.scatter_sub(tf.IndexedSlices(change, rows))
