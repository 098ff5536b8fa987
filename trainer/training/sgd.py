"""Trains a model by gradient steps over shuffled batches."""

from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.optimizers import OptimizerConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import WHOLE, Batch, Share, count_streams, training_batches
from trainer.distributed.optimizers import dense_optimizer
from trainer.distributed.replicas import Replicas, check_batch_divides
from trainer.models.build import build_training_model
from trainer.models.objectives import in_batch_rows
from trainer.runs.checkpoint import TrainState
from trainer.training.divergence import describe_batch
from trainer.training.step import TrainingStep, compile_steps


class SgdTrainer:
    """Trains by gradient steps; a step is one global batch."""

    def __init__(self, config: RunConfig, dataset: Dataset, replicas: Replicas, *, steps_per_epoch: int) -> None:
        """Builds the model, with tables of zeros.

        Raises:
          ValueError: the batch size is not a multiple of the number of replicas, or gives too many scores per replica.
        """
        check_batch_divides(config.input.batch_size, replicas.count)
        _check_number_of_scores(config, replicas.count)
        self._config = config
        self._events, self._kinds = dataset.training_events, dataset.manifest.event_kinds
        self._event_weights = config.loss.weights_by_kind(dataset.manifest)
        self._steps_per_epoch = steps_per_epoch
        self._share = Share(replicas.worker, replicas.workers)
        self._streams = count_streams(self._events, config.input, config.history_length, config.is_sequential)
        model = build_training_model(config, dataset, replicas)
        optimizer = _make_dense_optimizer(config.dense_optimizer, model.dense, replicas)
        step = TrainingStep(model, replicas, optimizer=optimizer, jit_compile=config.jit_compile)
        self._run_steps = compile_steps(step, replicas)
        self._batches: Iterator[Batch] | None = None
        self.state = TrainState(model.tables, model.dense, optimizer.variables if optimizer else [])

    def advance(self, first: int, count: int) -> np.ndarray:
        """Trains `count` steps, from step `first` on; returns their losses [count]."""
        if self._batches is None:
            self._batches = iter(self._batches_from(first, self._share))
        losses: np.ndarray = self._run_steps(self._batches, tf.constant(first, tf.int64), tf.constant(count)).numpy()
        return losses

    def describe_input(self, step: int) -> str:
        """Reads the batch of `step` again and describes it for an error message."""
        return describe_batch(
            next(iter(self._batches_from(step, WHOLE))), dict(zip(self._kinds, self._event_weights, strict=True))
        )

    @property
    def remedy(self) -> str:
        """Advice for a diverged run: settings to lower, with their current values."""
        settings = {
            "optimizer.learning_rate": self._config.optimizer.learning_rate,
            "model.dense_learning_rate": self._config.model.dense_learning_rate,
            "model.initial_stddev": self._config.model.initial_stddev,
        }
        return "lower " + " or ".join(
            f"{name} (now {value:g})" for name, value in settings.items() if value is not None
        )

    def _batches_from(self, step: int, share: Share) -> tf.data.Dataset:
        config = self._config
        return training_batches(
            self._events,
            config.input,
            seed=config.seed,
            epochs=config.epochs,
            history_length=config.history_length,
            is_sequential=config.is_sequential,
            has_times=config.has_times,
            event_weights=self._event_weights,
            first_epoch=step // self._steps_per_epoch,
            first_step=step % self._steps_per_epoch,
            share=share,
            streams=self._streams,
        )


def _make_dense_optimizer(
    config: OptimizerConfig, weights: Sequence[keras.Variable], replicas: Replicas
) -> keras.optimizers.Optimizer | None:
    if not weights:
        return None
    with replicas.strategy.scope():
        optimizer = dense_optimizer(config)
        optimizer.build(weights)
    return optimizer


def _check_number_of_scores(config: RunConfig, replicas: int) -> None:
    """Raises ValueError if a replica would compute more scores per step than 32 bits can index."""
    if not isinstance(config.loss, SampledSoftmaxConfig):
        return
    batch_size = config.input.batch_size
    candidates = len(in_batch_rows(batch_size, config.loss)) + config.loss.num_negatives
    scores = batch_size // replicas * candidates
    if scores >= 2**31:
        raise ValueError(
            f"input.batch_size={batch_size} with {candidates:,} candidates gives {scores:,} scores per replica, but "
            f"the limit is {2**31 - 1:,}; lower input.batch_size, loss.max_in_batch_negatives or loss.num_negatives"
        )
