"""Starts one or several training processes, waits for them and compares their results."""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.settings import apply_settings
from tests.stores.ports import free_port
from tests.warm_python import start_python
from trainer.config import presets
from trainer.distributed.cluster import Cluster, tf_config
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout, checkpoint_step
from trainer.train import train

SMALL = ["input.batch_size=64", "model.dim=8", "steps_per_execution=2", "blend=false"]
"""Settings of a run on a few rows. Without a companion and a blend, the run takes half the time."""
LONG = ["epochs=40", "checkpoint_every_steps=4", "validate_every_epochs=4", "patience=none"]
"""Settings of a run of 240 steps, or 200 steps for the towers."""
PRESETS = ["notebook-nn", "mf", "nn"]
"""One preset of each model."""
VARIANTS = {
    "nn-visitors": ("nn", ["model.visitor_min_events=6"]),
    "mf-als": ("mf", ["solver=als"]),
}
"""Variants of presets: `nn` with a table of visitors, and `mf` with the solver ALS, whose epochs have one step."""
EVERY_MODEL = ["notebook-mf", "notebook-nn", "mf", "nn-visitors"]
"""All presets, with every table that a model can have."""
END_SECONDS = 1800
"""Time limit of a process that ends by itself. On an idle machine, such a process takes a minute."""

_SLOW = """
import sys, time
from trainer import cli
from trainer.runs.checkpoint_writer import CheckpointWriter

begin = CheckpointWriter.begin

def pause_and_begin(self, step, *arguments, **options):
    if step >= {step}:
        time.sleep(2)
    begin(self, step, *arguments, **options)

CheckpointWriter.begin = pause_and_begin
sys.exit(cli.main(sys.argv[1:]))
"""


def slow_from(step: int) -> tuple[str, str]:
    """Returns arguments of Python for a trainer that pauses for two seconds before each checkpoint from `step` on.

    So a signal that is sent at an earlier step arrives before the run ends, even on a busy machine.
    """
    return "-c", _SLOW.format(step=step)


def clusters(count: int) -> list[Cluster]:
    """Returns TF_CONFIG of each of `count` workers at free ports of this host."""
    hosts = tuple(f"127.0.0.1:{free_port()}" for _ in range(count))
    return [Cluster(hosts, index) for index in range(count)]


def environment(cluster: Cluster | None) -> dict[str, str]:
    """Returns this process's environment with the variables of a worker."""
    return os.environ | ({"TF_CONFIG": tf_config(cluster)} if cluster else {})


def _small(preset: str) -> list[str]:
    """Returns `SMALL` without the settings that the preset lacks."""
    return [
        setting for setting in SMALL if preset not in ("walk", "session_knn") or not setting.startswith("model.dim")
    ]


def train_arguments(preset: str, dataset: str, workdir: Path, settings: Sequence[str]) -> list[str]:
    name, own = VARIANTS.get(preset, (preset, []))
    return ["train", "--preset", name, "--data", dataset, "--workdir", str(workdir), "--set", *own, *settings]


def start(
    preset: str,
    dataset: str,
    workdir: Path,
    *settings: str,
    cluster: Cluster | None = None,
    program: Sequence[str] = ("-m", "trainer"),
) -> subprocess.Popen:
    """Starts a small training run; its log is its standard error.

    Args:
      preset: a preset or a key of `VARIANTS`.
      dataset: path of the prepared dataset.
      workdir: directory of the run.
      settings: settings to change, in addition to `SMALL`.
      cluster: the worker's cluster; None: trains alone.
      program: arguments of Python that name the program.
    """
    return start_python(
        [*program, *train_arguments(preset, dataset, workdir, [*_small(preset), *settings])],
        env=environment(cluster),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(
    count: int, preset: str, dataset: str, workdir: Path, *settings: str, program: Sequence[str] = ("-m", "trainer")
) -> list[subprocess.Popen]:
    """Starts workers that train together; the first is the chief."""
    return [start(preset, dataset, workdir, *settings, cluster=cluster, program=program) for cluster in clusters(count)]


def train_alone(preset: str, dataset: str, workdir: Path, *settings: str) -> dict[str, Any]:
    """Trains a run that nothing interrupts. Uses this process, in which TensorFlow is already started."""
    name, own = VARIANTS.get(preset, (preset, []))
    config = apply_settings(presets.PRESETS[name], [*own, *_small(preset), *settings])
    return train(config, data=dataset, workdir=str(workdir))


def finish(processes: Sequence[subprocess.Popen], status: int = 0) -> str:
    """Waits until all processes exit with a status; returns the log of the first."""
    logs = [process.communicate(timeout=END_SECONDS)[1] for process in processes]
    for process, log in zip(processes, logs, strict=True):
        assert process.returncode == status, log
    return logs[0]


def wait_for(process: subprocess.Popen, *texts: str) -> str:
    """Reads the log up to a line with one of the texts and returns that line."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if any(text in line for text in texts):
            return line
    raise AssertionError("".join(seen))


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Waits until the run of a chief has resumed and has saved `step` or a later step."""
    wait_for(process, "starting: ", "resuming from the checkpoint")
    wait_until_saved(process, workdir, step)


def wait_until_saved(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Waits until a running process has saved `step` or a later step."""
    while saved_step(workdir) < step:
        assert process.poll() is None, finish([process])
        time.sleep(0.001)


def saved_step(workdir: Path) -> int:
    """Returns the step of the latest published checkpoint, 0 before the first."""
    try:
        names = os.listdir(RunLayout(str(workdir)).checkpoints)
    except FileNotFoundError:
        return 0
    return max((checkpoint_step(name) or 0 for name in names), default=0)


def last_state(workdir: Path) -> checkpoint.CheckpointMetadata:
    """Reads the metadata of the last checkpoint, and verifies all its files, even those of the optimizer."""
    return checkpoint.read_state(str(workdir), checkpoint.choose_step(str(workdir), "last"))


def assert_close(first: Path, second: Path) -> None:
    """Asserts that losses, tables and dense weights of the last checkpoints agree within 1e-5 (norms)."""
    expected, found = (losses(workdir) for workdir in (first, second))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    one, two = (checkpoint.read_weights(str(workdir), "last") for workdir in (first, second))
    pairs = [(two.tables[name], table) for name, table in one.tables.items()]
    pairs.append(tuple(np.concatenate([np.zeros(1), *map(np.ravel, weights.dense)]) for weights in (two, one)))
    for other, same in pairs:
        assert np.linalg.norm(np.subtract(other, same)) <= 1e-5 * np.linalg.norm(same)


def losses(workdir: Path) -> list[float]:
    """Returns the losses that the run logged."""
    lines = map(json.loads, Path(RunLayout(str(workdir)).metrics).read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def assert_same(first: Path, second: Path) -> None:
    """Asserts that the last checkpoints are identical."""
    one, two = (checkpoint.read_weights(str(workdir), "last") for workdir in (first, second))
    for name, table in one.tables.items():
        np.testing.assert_array_equal(two.tables[name], table, err_msg=name)
    for weight, same in zip(one.dense, two.dense, strict=True):
        np.testing.assert_array_equal(same, weight)
    assert last_state(first) == last_state(second)  # including the variables of the optimizer
