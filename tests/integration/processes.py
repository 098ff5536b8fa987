"""Training in processes of its own: started alone or as workers, waited for, compared."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from contract.layout import RunLayout, checkpoint_step
from trainer import checkpoint
from trainer.cluster import Cluster, tf_config

SMALL = ["input.batch_size=64", "model.dim=8", "steps_per_call=2"]
"""Settings of a run on a few rows."""


def clusters(count: int) -> list[Cluster]:
    """The same free ports of this host for each of `count` workers."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        hosts = tuple(f"127.0.0.1:{free.getsockname()[1]}" for free in sockets)
    return [Cluster(hosts, index) for index in range(count)]


def environment(cluster: Cluster | None) -> dict[str, str]:
    """This process's environment, and what makes a worker of the one that gets it."""
    return os.environ | ({"TF_CONFIG": tf_config(cluster)} if cluster else {})


def train_arguments(preset: str, dataset: str, workdir: Path, settings: Sequence[str]) -> list[str]:
    return ["train", "--preset", preset, "--data", dataset, "--workdir", str(workdir), "--set", *settings]


def start(
    preset: str,
    dataset: str,
    workdir: Path,
    *settings: str,
    cluster: Cluster | None = None,
    program: Sequence[str] = ("-m", "trainer"),
) -> subprocess.Popen:
    """Training of a small run; what it logs is to be read from its standard error."""
    return subprocess.Popen(
        [sys.executable, *program, *train_arguments(preset, dataset, workdir, [*SMALL, *settings])],
        env=environment(cluster),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_workers(count: int, preset: str, dataset: str, workdir: Path, *settings: str) -> list[subprocess.Popen]:
    """So many workers that train together; the first is the chief."""
    return [start(preset, dataset, workdir, *settings, cluster=cluster) for cluster in clusters(count)]


def finish(processes: Sequence[subprocess.Popen], status: int = 0) -> str:
    """Waits for all, which must end with a status; what the first of them logged."""
    logs = [process.communicate(timeout=300)[1] for process in processes]
    for process, log in zip(processes, logs, strict=True):
        assert process.returncode == status, log
    return logs[0]


def wait_for(process: subprocess.Popen, text: str) -> None:
    """Reads the log up to a line with `text`."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))


def saved_step(workdir: Path) -> int:
    """The step of the latest checkpoint published, 0 before the first."""
    try:
        names = os.listdir(RunLayout(str(workdir)).checkpoints)
    except FileNotFoundError:
        return 0
    return max((checkpoint_step(name) or 0 for name in names), default=0)


def last_state(workdir: Path) -> checkpoint.State:
    """Of the last checkpoint, verified: with the checksum of every file, so of accumulators and optimizer too."""
    return checkpoint.read_state(str(workdir), checkpoint.choose_step(str(workdir), "last"))


def assert_same(first: Path, second: Path) -> None:
    """The last checkpoints are the same, bit for bit."""
    one, two = (checkpoint.read_weights(str(workdir), "last") for workdir in (first, second))
    for name, table in one.tables.items():
        np.testing.assert_array_equal(two.tables[name], table, err_msg=name)
    for weight, same in zip(one.dense, two.dense, strict=True):
        np.testing.assert_array_equal(same, weight)
    assert last_state(first) == last_state(second)  # the optimizer's variables too
