"""Training in processes of its own: stopped by real signals, and divided among several workers."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer import checkpoint
from trainer.cluster import Cluster, tf_config

pytestmark = pytest.mark.integration

SETTINGS = ["--set", "input.batch_size=64", "model.dim=8", "steps_per_call=2"]
LONG = ["epochs=40", "checkpoint_every_steps=4", "patience=none"]
"""Settings of a run that goes on for a while after its third epoch."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("dataset"))
    build_dataset(root, **checkerboard(), num_shards=3, block_rows=20)
    return root


def start(preset: str, dataset: str, workdir: Path, *settings: str, cluster: Cluster | None = None) -> subprocess.Popen:
    command = ["train", "--preset", preset, "--data", dataset, "--workdir", str(workdir), *SETTINGS, *settings]
    environment = os.environ | ({"TF_CONFIG": tf_config(cluster)} if cluster else {})
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(preset: str, dataset: str, workdir: Path, *settings: str) -> list[subprocess.Popen]:
    """Two workers that train together."""
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
        hosts = tuple(f"127.0.0.1:{free.getsockname()[1]}" for free in (first, second))
    return [start(preset, dataset, workdir, *settings, cluster=Cluster(hosts, index)) for index in range(2)]


def finish(processes: Sequence[subprocess.Popen], status: int = 0) -> None:
    for process in processes:
        _, log = process.communicate(timeout=300)
        assert process.returncode == status, log


def wait_for(process: subprocess.Popen, text: str) -> None:
    """Reads the log up to a line with `text`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))


def assert_same(first: Path, second: Path) -> None:
    one, two = (checkpoint.read_weights(str(workdir), "last") for workdir in (first, second))
    for name, table in one.tables.items():
        np.testing.assert_array_equal(two.tables[name], table, err_msg=name)
    for weight, same in zip(one.dense, two.dense, strict=True):
        np.testing.assert_array_equal(same, weight)


@pytest.fixture(scope="module", params=["notebook-nn", "mf", "nn"])
def undisturbed(request: pytest.FixtureRequest, dataset: str, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A preset and the run of it that nothing ended."""
    workdir = tmp_path_factory.mktemp("whole")
    finish([start(request.param, dataset, workdir, *LONG)])
    return request.param, workdir


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGKILL, -signal.SIGKILL)], ids=["SIGTERM", "SIGKILL"]
)
def test_a_run_that_a_signal_ended_goes_on_to_the_same_tables(
    undisturbed: tuple[str, Path], number: int, status: int, dataset: str, tmp_path: Path
) -> None:
    preset, whole = undisturbed
    process = start(preset, dataset, tmp_path, *LONG)
    wait_for(process, "epoch 3:")
    process.send_signal(number)
    finish([process], status)
    finish([start(preset, dataset, tmp_path, *LONG)])
    assert_same(whole, tmp_path)


@pytest.mark.parametrize("preset", ["notebook-mf", "notebook-nn", "mf", "nn"])
def test_two_workers_train_as_one_process_with_two_replicas_does(preset: str, dataset: str, tmp_path: Path) -> None:
    finish([start(preset, dataset, tmp_path / "one", "epochs=2", "devices=2")])
    finish(start_two(preset, dataset, tmp_path / "two", "epochs=2"))
    assert_same(tmp_path / "one", tmp_path / "two")
    assert checkpoint.read_validations(str(tmp_path / "one")) == checkpoint.read_validations(str(tmp_path / "two"))


@pytest.fixture(scope="module")
def two_replicas(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long run of one process with two replicas."""
    workdir = tmp_path_factory.mktemp("two_replicas")
    finish([start("mf", dataset, workdir, *LONG, "devices=2")])
    return workdir


@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_lost_the_other_ends_as_preempted_and_both_go_on_together(
    lost: int, two_replicas: Path, dataset: str, tmp_path: Path
) -> None:
    workers = start_two("mf", dataset, tmp_path, *LONG)
    wait_for(workers[0], "epoch 3:")
    workers[lost].kill()
    _, log = workers[1 - lost].communicate(timeout=60)
    assert (workers[1 - lost].returncode, "started again together" in log) == (75, True), log
    workers[lost].communicate(timeout=60)
    again = start_two("mf", dataset, tmp_path, *LONG)
    wait_for(again[0], "going on from the checkpoint of step")
    finish(again)
    assert_same(two_replicas, tmp_path)
