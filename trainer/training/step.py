"""One training step on one replica: read rows, take the loss and its gradients, update the rows read.

Shapes: B rows of the global batch.
"""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from trainer.data.input_pipeline import Batch
from trainer.distributed.optimizers import apply_summed
from trainer.distributed.replicas import Replicas
from trainer.models.objectives import TrainingModel


class TrainingStep:
    """Moves a model's tables and dense weights by one global batch; called within `Replicas.run`."""

    def __init__(
        self,
        model: TrainingModel,
        replicas: Replicas,
        *,
        optimizer: keras.optimizers.Optimizer | None,
        jit_compile: bool,
    ) -> None:
        """A step of `model`.

        Args:
          optimizer: of the dense weights, built for them; None where the model has none.
          jit_compile: compile loss and gradients with XLA. Reads and updates stay outside: the number of distinct rows
            differs from step to step, and XLA would compile anew for each.
        """
        self._model = model
        self._replicas = replicas
        self._optimizer = optimizer
        compiled = tf.function(self._take_gradients, autograph=False, jit_compile=True)
        self._gradients = compiled if jit_compile else self._take_gradients

    def __call__(self, replica: int, batch: Batch, step: tf.Tensor) -> tf.Tensor:
        """The mean loss of the global batch [B], before the update; `step` counts from 0, scalar int64."""
        lookups, inputs = self._model.objective.prepare(replica, batch, step)
        vectors = {name: lookup.vectors() for name, lookup in lookups.items()}
        weights = [tf.convert_to_tensor(variable.value) for variable in self._model.dense]
        loss, by_table, by_weight = self._gradients(vectors, weights, inputs)
        for name, gradient in by_table.items():
            self._model.tables[name].update(replica, lookups[name], gradient, step)
        loss, *summed = self._replicas.all_reduce_together([loss, *by_weight])
        if self._optimizer is not None:
            apply_summed(self._optimizer, summed, self._model.dense)
        return loss

    def _take_gradients(
        self, vectors: Mapping[str, tf.Tensor], weights: Sequence[tf.Tensor], inputs: tuple
    ) -> tuple[tf.Tensor, Mapping[str, tf.Tensor], Sequence[tf.Tensor]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([vectors, weights])
            loss = self._model.objective.loss(vectors, weights, inputs)
        by_table, by_weight = tape.gradient(loss, (vectors, weights))
        # of a weight that is gathered from, each place read has a gradient: added up here, or all of them would travel,
        # and Adam would square each by itself
        return loss, by_table, [tf.convert_to_tensor(gradient) for gradient in by_weight]


def compile_steps(step: TrainingStep, replicas: Replicas) -> Callable[..., tf.Tensor]:
    """A function that runs several steps in one call, so that Python is not asked between them.

    Returns:
      `run(batches, first, count)`: takes `count` global batches from an iterator as the steps first, first + 1, … and
      gives their losses [count].
    """

    def one_step(replica: int, batch: Batch, number: tf.Tensor) -> tf.Tensor:
        return step(replica, batch, number)

    # nothing here branches on a tensor in Python: rewriting all that is called would take half of a start
    @tf.function(autograph=False, reduce_retracing=True)
    def run(batches: tf.data.Iterator, first: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        def go_on(place: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            loss = replicas.run(one_step, batches.get_next(), first + tf.cast(place, tf.int64))
            return place + 1, losses.write(place, loss)

        nothing = tf.TensorArray(tf.float32, count)
        _, losses = tf.while_loop(lambda place, _: place < count, go_on, (tf.constant(0), nothing))
        return losses.stack()

    return run
