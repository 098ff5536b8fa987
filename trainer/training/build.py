"""Builds the trainer of a run, which uses gradient steps, alternating least squares or counting."""

from typing import Protocol

import numpy as np

from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.runs.checkpoint import TrainState
from trainer.training.als import AlsTrainer
from trainer.training.count import CountTrainer
from trainer.training.schedule import Schedule
from trainer.training.sgd import SgdTrainer


class Trainer(Protocol):
    """Trains a model step by step. All workers call each method together."""

    state: TrainState
    """Everything that a checkpoint saves. The caller must set its values before the first step."""

    @property
    def remedy(self) -> str:
        """Advice for a diverged run, such as "lower optimizer.learning_rate (now 0.1)"."""

    def advance(self, first: int, count: int) -> np.ndarray:
        """Trains `count` steps, from step `first` on; returns their losses [count].

        `first` must be the step after the last step of the previous call.
        """

    def describe_input(self, step: int) -> str:
        """Describes the input of training step `step` for an error message; the text may be empty."""


def build_trainer(config: RunConfig, dataset: Dataset, replicas: Replicas, schedule: Schedule) -> Trainer:
    """Builds the trainer that `config.solver` selects, with tables of zeros."""
    if config.solver == "als":
        return AlsTrainer(config, dataset, replicas)
    if config.solver == "count":
        return CountTrainer(config, dataset, replicas)
    return SgdTrainer(config, dataset, replicas, steps_per_epoch=schedule.steps_per_epoch)
