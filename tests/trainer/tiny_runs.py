"""Trains, stops and compares short runs on a checkerboard dataset."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from common.settings import apply_settings
from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import WHOLE, Share, training_batches
from trainer.distributed.preemption import StopRequest
from trainer.models.interface import Queries
from trainer.models.trained_run import open_trained_run
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.train import train

STEPS_PER_EPOCH = {"notebook-mf": 6, "notebook-nn": 6, "mf": 6, "nn": 5}
"""Steps per epoch of the presets that are trained by gradients, with batches of 64 rows.

The training split has 360 rows. The towers skip the first row of each of the 60 visitors, which has no history.
"""

SHORT = ("input.batch_size=64", "input.window_blocks=4", "epochs=2", "patience=none")
"""Settings of all runs of `make_config`."""

STALLED = ("optimizer.learning_rate=1e-12", "epochs=9", "patience=2", "steps_per_execution=1")
"""Settings that leave the weights unchanged: the first epoch stays the best, and the third is the last."""


def make_config(preset: str, *settings: str) -> RunConfig:
    common = list(SHORT)
    if PRESETS[preset].solver != "count":
        common.append("model.dim=8")
    if preset == "nn":
        common.append("model.visitor_min_events=6")  # all 60 visitors have vectors
    # most tests are about the model alone; tests of a blend enable it
    plain = replace(PRESETS[preset], companions=(), blend=False)
    return apply_settings(plain, [*common, *settings])


class StopAfter(StopRequest):
    """Requests a stop when it is checked for the `calls`th time, not counting the check before the first step."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self._left = calls + 1

    @property
    def is_requested(self) -> bool:
        self._left -= 1
        return self._left <= 0

    @is_requested.setter
    def is_requested(self, value: bool) -> None:
        """Does nothing: StopRequest sets an initial value."""


def run(config: RunConfig, dataset: Dataset, workdir: Path, stop_after: int | None = None) -> dict[str, Any]:
    stop = StopRequest() if stop_after is None else StopAfter(stop_after)
    return train(config, data=dataset.root, workdir=str(workdir), stop=stop)


class FinishedRuns:
    """Runs that several tests compare with; each is trained once."""

    def __init__(self, dataset: Dataset, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        self._results: dict[RunConfig, tuple[Path, dict[str, Any]]] = {}

    def __call__(self, config: RunConfig) -> tuple[Path, dict[str, Any]]:
        """Returns the directory and the result of the run with this config; trains the run if it is new."""
        if config not in self._results:
            workdir = self._folder / str(len(self._results))
            self._results[config] = workdir, run(config, self._dataset, workdir)
        return self._results[config]


def first_epoch(config: RunConfig, dataset: Dataset, share: Share = WHOLE) -> tf.data.Dataset:
    """Returns a worker's batches of the first epoch of a run."""
    return training_batches(
        dataset.training_events,
        config.input,
        seed=0,
        epochs=1,
        history_length=config.history_length,
        is_sequential=config.is_sequential,
        share=share,
    )


def losses(workdir: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in Path(RunLayout(str(workdir)).metrics).read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def arrays(workdir: Path) -> dict[str, np.ndarray]:
    """Reads all arrays of the last checkpoint of a run with one replica, including those of the optimizer."""
    step = checkpoint.last_step(str(workdir))
    assert step is not None
    folder = Path(RunLayout(str(workdir)).checkpoint(step))
    found = {path.name: np.load(path) for path in folder.glob("*.npy")}
    with np.load(folder / "dense.npz") as dense:
        return {**found, **dense}


def assert_same(first: Path, second: Path) -> None:
    one, two = arrays(first), arrays(second)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def checkerboard_dataset(root: str) -> Dataset:
    """Builds a dataset where visitors view only items of their own parity, in three splits: 60 × 6 training rows.

    The categories do not depend on the parity, and some items have no category.
    """
    categories = {f"i{item}": ["all", f"third {item % 3}"] for item in range(15)}
    return build_dataset(root, **checkerboard(), categories=categories, num_shards=3, block_rows=20)


def same_parity_share(dataset: Dataset, workdir: Path, num_new: int = 0) -> float:
    """Returns the share of items of the visitor's parity in the first half of each ranking; 1 is perfect.

    Each visitor's history is one item of their parity; the last `num_new` visitors are not in the training split.
    """
    model = open_trained_run(str(workdir), dataset.root).model
    visitors = tf.range(dataset.num_visitors + num_new, dtype=tf.int64)
    history = (visitors % 2)[:, None]
    scores = model.catalogue_scores(Queries.of_items(visitors, history, tf.ones_like(visitors))).numpy()
    ranked = np.argsort(-scores, axis=1)[:, : dataset.num_items // 2]
    return float((ranked % 2 == visitors.numpy()[:, None] % 2).mean())


def all_scores(dataset: Dataset, workdir: Path) -> np.ndarray:
    """Returns the scores [V, I] of all known visitors and items."""
    visitor = tf.range(dataset.num_visitors, dtype=tf.int64)
    queries = Queries.of_items(visitor, tf.zeros([visitor.shape[0], 0], tf.int64), tf.zeros_like(visitor))
    scores: np.ndarray = open_trained_run(str(workdir), dataset.root).model.catalogue_scores(queries).numpy()
    return scores
