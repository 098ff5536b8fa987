"""Row-sparse optimizers for tables, Keras optimizers for dense weights.

With an optimizer of Keras 3, each step would update all rows of a table instead of the few thousand rows that the step
reads.

Shapes: U distinct rows of a step, D columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import keras
import tensorflow as tf

from trainer.config.optimizers import AdagradConfig, AdamConfig, OptimizerConfig


class Slot(NamedTuple):
    """Optimizer state of a table: an array with as many rows as the table."""

    fill: float
    """Initial value."""
    dim: int | None = None
    """Number of columns; None: as many as the table."""


class RowOptimizer(Protocol):
    """Updates the rows of a table."""

    @property
    def slots(self) -> Mapping[str, Slot]:
        """The arrays of state that the optimizer needs for a table, by name."""

    def apply(
        self,
        values: tf.Variable,
        slots: Mapping[str, tf.Variable],
        rows: tf.Tensor,
        gradient: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        """Updates rows of a table.

        Args:
          values: the table, or one replica's shard of it.
          slots: the optimizer's state for `values`, by name; updated too.
          rows: [U] distinct indices of the rows.
          gradient: [U, D] gradient of each row.
          step: number of the training step, scalar; the first step is 0.
        """


def row_optimizer(config: OptimizerConfig) -> RowOptimizer:
    """Returns the optimizer for embedding tables; it updates only the rows that a training step reads."""
    if isinstance(config, AdamConfig):
        return _LazyAdam(config)
    return _RowWiseAdagrad(config) if config.is_row_wise else _RowAdagrad(config)


def dense_optimizer(config: OptimizerConfig) -> keras.optimizers.Optimizer:
    """Returns the Keras optimizer for dense weights; use `apply_summed` to apply its updates."""
    rate = _Warmup(config) if config.warmup_steps else config.learning_rate
    if isinstance(config, AdagradConfig):
        return keras.optimizers.Adagrad(
            learning_rate=rate,
            initial_accumulator_value=config.initial_accumulator,
            epsilon=config.epsilon,
        )
    return keras.optimizers.Adam(learning_rate=rate, beta_1=config.beta_1, beta_2=config.beta_2, epsilon=config.epsilon)


def apply_summed(
    optimizer: keras.optimizers.Optimizer, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]
) -> None:
    """Applies gradients that are already summed over the replicas; Keras' `apply` would sum them again.

    Every replica passes the same gradients. `optimizer` must be built for `variables`.
    """
    rate = tf.convert_to_tensor(optimizer.learning_rate)

    def update(strategy: tf.distribute.Strategy, *summed: tf.Tensor) -> None:
        for variable, gradient in zip(variables, summed, strict=True):
            strategy.extended.update(
                variable.value, lambda weight, own: optimizer.update_step(own, weight, rate), args=(gradient,)
            )

    tf.distribute.get_replica_context().merge_call(update, args=tuple(gradients))
    optimizer.iterations.assign_add(1)


def _rate_of_step(config: OptimizerConfig, step: tf.Tensor) -> tf.Tensor:
    """Returns the learning rate of `step`; in a warmup of w steps, step k has (k + 1)/w of the final rate."""
    if not config.warmup_steps:
        return tf.constant(config.learning_rate)
    share = (tf.cast(step, tf.float32) + 1) / config.warmup_steps
    return config.learning_rate * tf.minimum(share, 1.0)


class _Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """A Keras schedule that returns the rates of `_rate_of_step`; the Keras optimizer counts the steps."""

    def __init__(self, config: OptimizerConfig) -> None:
        self._config = config

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return _rate_of_step(self._config, tf.convert_to_tensor(step))


@dataclass(frozen=True)
class _RowAdagrad:
    """Adagrad with one accumulator per entry of the table (Duchi et al., JMLR 2011)."""

    config: AdagradConfig

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"accumulator": Slot(self.config.initial_accumulator)}

    def apply(
        self,
        values: tf.Variable,
        slots: Mapping[str, tf.Variable],
        rows: tf.Tensor,
        gradient: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=values.handle,
            accum=slots["accumulator"].handle,
            lr=_rate_of_step(self.config, step),
            epsilon=self.config.epsilon,
            grad=gradient,
            indices=rows,
        )


@dataclass(frozen=True)
class _RowWiseAdagrad:
    """Adagrad with one accumulator per row, the sum of mean squared gradients (Gupta et al., 2014; FBGEMM)."""

    config: AdagradConfig

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"accumulator": Slot(self.config.initial_accumulator, dim=1)}

    def apply(
        self,
        values: tf.Variable,
        slots: Mapping[str, tf.Variable],
        rows: tf.Tensor,
        gradient: tf.Tensor,
        step: tf.Tensor,
    ) -> None:
        accumulator = slots["accumulator"]
        new = accumulator.sparse_read(rows) + tf.reduce_mean(tf.square(gradient), axis=1, keepdims=True)
        accumulator.scatter_update(tf.IndexedSlices(new, rows))
        change = _rate_of_step(self.config, step) * gradient / (tf.sqrt(new) + self.config.epsilon)
        values.scatter_sub(tf.IndexedSlices(change, rows))


@dataclass(frozen=True)
class _LazyAdam:
    """Adam (Kingma and Ba, ICLR 2015), except that the moments of a row decay only in steps that read the row."""

    config: AdamConfig

    @property
    def slots(self) -> Mapping[str, Slot]:
        return {"first_moment": Slot(0.0), "second_moment": Slot(0.0)}

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
        # as in Keras' Adam, epsilon is added to the uncorrected root
        change = _rate_of_step(config, step) * correction * new_first / (tf.sqrt(new_second) + config.epsilon)
        first.scatter_update(tf.IndexedSlices(new_first, rows))
        second.scatter_update(tf.IndexedSlices(new_second, rows))
        values.scatter_sub(tf.IndexedSlices(change, rows))
