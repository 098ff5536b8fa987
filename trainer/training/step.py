"""One training step on one replica: look up rows, compute the loss and its gradients, update the rows.

Shapes: B rows of the global batch, b = B / R rows of a replica.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from trainer.data.input_pipeline import Batch
from trainer.distributed.optimizers import apply_summed
from trainer.distributed.replicas import Replicas
from trainer.models.objectives import TrainingModel


class TrainingStep:
    """Trains a model with one global batch; `Replicas.run` calls it on each replica."""

    def __init__(
        self,
        model: TrainingModel,
        replicas: Replicas,
        *,
        optimizer: keras.optimizers.Optimizer | None,
        jit_compile: bool,
    ) -> None:
        """Prepares the step.

        `optimizer` updates the dense weights; None: no such weights. `jit_compile`: use XLA for loss and gradients.
        """
        self._model = model
        self._replicas = replicas
        self._optimizer = optimizer
        compiled = tf.function(self._compute_gradients, autograph=False, jit_compile=True)
        self._gradients = compiled if jit_compile else self._compute_gradients

    def __call__(self, replica: int, batch: Batch, step: tf.Tensor) -> tf.Tensor:
        """Updates the weights with a global batch; returns the mean loss before the update, a scalar.

        Args:
          replica: index of this replica.
          batch: the rows of all replicas of this process.
          step: number of this step from 0, a scalar int64.
        """
        own = self._rows_of(replica, batch).with_int64()
        lookups, inputs = self._model.objective.prepare(replica, own, step)
        vectors = {name: lookup.vectors() for name, lookup in lookups.items()}
        weights = [tf.convert_to_tensor(variable.value) for variable in self._model.dense]
        loss, by_table, by_weight = self._gradients(vectors, weights, inputs)
        for name, gradient in by_table.items():
            self._model.tables[name].update(replica, lookups[name], gradient, step)
        loss, *summed = self._replicas.all_reduce_together([loss, *by_weight])
        if self._optimizer is not None:
            apply_summed(self._optimizer, summed, self._model.dense)
        return loss

    def _rows_of(self, replica: int, batch: Batch) -> Batch:
        if len(self._replicas.local) == 1:
            return batch
        size, index = batch.item.shape[0] // len(self._replicas.local), replica - self._replicas.first
        with tf.device("CPU:0"):  # on the host, so that each GPU receives only its own rows
            return batch.rows(slice(index * size, (index + 1) * size))

    def _compute_gradients(
        self, vectors: Mapping[str, tf.Tensor], weights: Sequence[tf.Tensor], inputs: tuple
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor], Sequence[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([vectors, weights])
            loss = self._model.objective.loss(vectors, weights, inputs)
        by_table, by_weight = tape.gradient(loss, (vectors, weights))
        # densify the gradients of weights that are gathered from: otherwise all slices would be communicated, and Adam
        # would square each slice on its own
        return loss, by_table, [tf.convert_to_tensor(gradient) for gradient in by_weight]


def compile_steps(step: TrainingStep, replicas: Replicas) -> Callable[..., tf.Tensor]:
    """Returns a compiled `run(batches, first, count)` that trains `count` steps and returns their losses.

    `batches` is an iterator of this process's shares of global batches.
    """

    def one_step(replica: int, batch: Batch, number: tf.Tensor) -> tf.Tensor:
        return step(replica, batch, number)

    # no Python code here branches on a tensor; autograph would double the startup time
    @tf.function(autograph=False, reduce_retracing=True)
    def run(batches: tf.data.Iterator, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        def run_step(index: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            loss = replicas.run(one_step, batches.get_next(), first + tf.cast(index, tf.int64))
            return index + 1, losses.write(index, loss)

        no_losses = tf.TensorArray(tf.float32, count)
        _, losses = tf.while_loop(lambda index, _: index < count, run_step, (tf.constant(0), no_losses))
        return losses.stack()

    return run
