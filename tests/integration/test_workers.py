"""Workers that share a run: what they rank together, more of them than shards, and one that hangs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.integration.test_training_processes import LONG, finish, start, wait_for
from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer import checkpoint
from trainer.cluster import Cluster, tf_config

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("dataset"))
    build_dataset(root, **checkerboard(), num_shards=1)
    return root


def clusters(count: int) -> list[Cluster]:
    """The same free ports for each of `count` workers."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        hosts = tuple(f"127.0.0.1:{free.getsockname()[1]}" for free in sockets)
    return [Cluster(hosts, index) for index in range(count)]


def run_together(count: int, *arguments: str) -> list[str]:
    """What each of so many workers printed."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "trainer", *arguments],
            env=os.environ | ({"TF_CONFIG": tf_config(cluster)} if count > 1 else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for cluster in clusters(count)
    ]
    results = [process.communicate(timeout=300) for process in processes]
    for process, (_, log) in zip(processes, results, strict=True):
        assert process.returncode == 0, log
    return [printed for printed, _ in results]


def read_lists(folder: Path) -> bytes:
    names: dict[str, Sequence[str]] = json.loads((folder / "recommendations.json").read_text())["files"]
    return b"".join(Path(name).read_bytes() for form in sorted(names) for name in names[form])


def test_three_workers_share_one_shard_and_rank_as_one_process(one_shard: str, tmp_path: Path) -> None:
    settings = ("epochs=2", "input.batch_size=66")  # the last given counts: 22 rows a worker
    finish([start("mf", one_shard, tmp_path / "one", *settings, "devices=3")])
    finish([start("mf", one_shard, tmp_path / "three", *settings, cluster=cluster) for cluster in clusters(3)])
    one, three = (checkpoint.read_weights(str(tmp_path / name), "last") for name in ("one", "three"))
    # a ring adds three numbers in another order than one device does
    assert np.linalg.norm(np.subtract(one.tables["item"], three.tables["item"])) < 1e-5 * np.linalg.norm(
        one.tables["item"]
    )

    run = str(tmp_path / "three")
    (alone,) = run_together(1, "evaluate", "--workdir", run)
    assert run_together(2, "evaluate", "--workdir", run) == [alone, alone]
    assert json.loads(alone)["protocols"]["returning_visitors"]["cases"]["cases"] == 60
    for count in (1, 3):
        run_together(count, "recommend", "--workdir", run, "--output", str(tmp_path / f"lists{count}"), "--k", "4")
    assert read_lists(tmp_path / "lists3") == read_lists(tmp_path / "lists1")


def test_sigterm_to_one_worker_saves_and_ends_all(one_shard: str, tmp_path: Path) -> None:
    workers = [start("mf", one_shard, tmp_path, *LONG, cluster=cluster) for cluster in clusters(2)]
    wait_for(workers[0], "epoch 3:")
    workers[1].send_signal(signal.SIGTERM)
    _, log = workers[0].communicate(timeout=60)
    assert (workers[0].returncode, "asked to stop" in log) == (75, True), log
    finish(workers[1:], 75)


def test_a_worker_that_hangs_ends_the_others_as_preempted(one_shard: str, tmp_path: Path) -> None:
    settings = (*LONG, "step_timeout_seconds=30")
    workers = [start("mf", one_shard, tmp_path, *settings, cluster=cluster) for cluster in clusters(2)]
    wait_for(workers[0], "epoch 3:")
    workers[1].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        _, log = workers[0].communicate(timeout=120)
        assert workers[0].returncode == 75, log
        # a process that is stopped sends no heartbeats either: TensorFlow may find out before the step takes too long
        assert "started again together" in log
        assert time.monotonic() - begin < 60
    finally:
        workers[1].kill()
        workers[1].communicate(timeout=60)
    assert checkpoint.last_step(str(tmp_path)) is not None
