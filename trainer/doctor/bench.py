"""The devices, the dataset and the short training runs that the GPU checks use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from common import storage
from common.settings import apply_settings
from contract.layout import DatasetLayout
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.input_pipeline import total_events
from trainer.distributed.embeddings import initialize
from trainer.distributed.replicas import Replicas, start_replicas
from trainer.doctor.plan import Kind
from trainer.doctor.shop import write_shop
from trainer.runs.checkpoint import TrainState
from trainer.training.build import Trainer, build_trainer
from trainer.training.schedule import Schedule, make_schedule

_REHEARSED = 2
"""Number of logical CPUs in a rehearsal."""
_SHOP = {Kind.GPU: {"visitors": 20_000, "items": 5_000}, Kind.CPU: {"visitors": 1_000, "items": 500}}
"""Size of the dataset."""


@dataclass(frozen=True)
class Bench:
    """The devices and the working directory of the checks."""

    kind: Kind
    """Kind of devices."""
    folder: str
    """Directory for the dataset, the runs and the exports of the checks."""

    @cached_property
    def data(self) -> str:
        """Directory of the prepared dataset. All checks use it; the first check that needs it writes it."""
        path = os.path.join(self.folder, "dataset")
        if not storage.exists(DatasetLayout(path).manifest):  # written last
            write_shop(path, **_SHOP[self.kind])
        return path

    @cached_property
    def dataset(self) -> Dataset:
        """The opened dataset."""
        return open_dataset(self.data)

    @cached_property
    def count(self) -> int:
        """Number of devices. TensorFlow starts with all of them, because it cannot add devices later."""
        if self.kind == Kind.CPU:
            start_replicas(_REHEARSED, None)
        tf.config.list_logical_devices()
        return len(tf.config.list_logical_devices("GPU")) if self.kind == Kind.GPU else _REHEARSED

    def replicas(self, count: int) -> Replicas:
        """Returns `count` replicas of one process, on the first devices."""
        assert count <= self.count
        return start_replicas(count, None)

    @property
    def accelerator(self) -> Replicas:
        """One replica: on the first GPU or, in a rehearsal, on the last logical CPU."""
        return self._single("GPU:0" if self.kind == Kind.GPU else f"CPU:{self.count - 1}")

    @property
    def reference(self) -> Replicas:
        """One replica on the CPU; its results are the expected ones."""
        return self._single("CPU:0")

    def _single(self, device: str) -> Replicas:
        _ = self.count  # starts TensorFlow with all devices; a later check may need more than this one
        return Replicas(tf.distribute.get_strategy(), 1, (device,), 0, 1)


def make_config(preset: str, *settings: str) -> RunConfig:
    """Returns the settings of a preset without its blend, changed by `key=value` settings."""
    return apply_settings(replace(PRESETS[preset], companions=(), blend=False), settings)


def schedule_of(bench: Bench, config: RunConfig) -> Schedule:
    """Returns the schedule of a run."""
    weights = config.loss.weights_by_kind(bench.dataset.manifest)
    rows, _ = total_events(
        bench.dataset.training_events, config.input, weights, config.history_length, config.is_sequential
    )
    return make_schedule(config, int(rows.sum()))


@contextmanager
def start_training(bench: Bench, config: RunConfig, replicas: Replicas) -> Iterator[Trainer]:
    """Yields a trainer with the initial values of a new run; a single replica runs all operations on its device."""
    with tf.device(replicas.devices[0]) if replicas.count == 1 else nullcontext():
        trainer = build_trainer(config, bench.dataset, replicas, schedule_of(bench, config))
        for name, table in trainer.state.tables.items():
            initialize(table, name=name, seed=config.seed, stddev=config.model.initial_stddev)
        yield trainer


class Steps(NamedTuple):
    """The result of training steps."""

    losses: np.ndarray
    """[n] losses of the steps."""
    updates: dict[str, np.ndarray]
    """Change of each array: tables [rows, D], their optimizer slots, and all dense weights together [n, 1]."""


def train_steps(bench: Bench, config: RunConfig, replicas: Replicas, count: int) -> Steps:
    """Trains the first `count` steps of a run; `updates` is empty with several replicas."""
    with start_training(bench, config, replicas) as trainer:
        before = _read_arrays(trainer.state, replicas)
        losses = trainer.advance(0, count)
        after = _read_arrays(trainer.state, replicas)
    return Steps(losses, {name: array - before[name] for name, array in after.items()})


def _read_arrays(state: TrainState, replicas: Replicas) -> dict[str, np.ndarray]:
    if replicas.count > 1:
        return {}
    arrays = {name: np.concatenate(list(shards.chunks(0))) for name, shards in state.arrays().items()}
    if state.dense:
        arrays["dense weights"] = np.concatenate([np.ravel(weight) for weight in state.dense])[:, None]
    return arrays
