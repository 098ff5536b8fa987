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
LONG = ["epochs=40", "checkpoint_every_steps=4"]
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
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
        hosts = tuple(f"127.0.0.1:{free.getsockname()[1]}" for free in (first, second))
    workers = [
        start(preset, dataset, tmp_path / "two", "epochs=2", cluster=Cluster(hosts, index)) for index in range(2)
    ]
    finish(workers)
    assert_same(tmp_path / "one", tmp_path / "two")
    assert checkpoint.read_validations(str(tmp_path / "one")) == checkpoint.read_validations(str(tmp_path / "two"))
