"""Tests workers that share a run of `mf`: one is lost, one hangs, and there are more workers than shards.

`test_devices_of_workers.py` kills workers that train nn.
"""

import json
import random
import signal
import time
from pathlib import Path

import pytest

from tests.integration.processes import (
    END_SECONDS,
    LONG,
    assert_close,
    assert_same,
    clusters,
    finish,
    slow_from,
    start,
    start_workers,
    train_alone,
    wait_for_step,
)
from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer.runs import checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.same_numbers, pytest.mark.slow]

SETTINGS = [*LONG, "epochs=20"]  # workers take longer per step than a single process
STEP_TIMEOUT = "step_timeout_seconds=30"
"""A timeout that no healthy worker reaches, even on a busy machine.

It is far above the time of a step, and above a fifth of the time of the first step.
"""

HANGING = """
import sys, time
import trainer.training.sgd
from trainer import cli

compile_steps = trainer.training.sgd.compile_steps

def compile_hanging(step, replicas):
    run = compile_steps(step, replicas)

    def run_or_hang(batches, first, count):
        if first >= 12:
            time.sleep(86_400)
        return run(batches, first, count)

    return run_or_hang

trainer.training.sgd.compile_steps = compile_hanging
sys.exit(cli.main(sys.argv[1:]))
"""
"""A program that hangs in Python while TensorFlow's threads keep sending heartbeats."""

REPORTING = """
import os, sys, time
import trainer.pages.report
from trainer import cli

write = trainer.pages.report.try_to_write_report

def write_slowly(*arguments, **options):
    {before}
    return write(*arguments, **options)

trainer.pages.report.try_to_write_report = write_slowly
sys.exit(cli.main(sys.argv[1:]))
"""
"""A program that runs `before` before it writes the report. Only the chief writes one."""


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("dataset"))
    build_dataset(root, **checkerboard(), num_shards=1)
    return root


@pytest.fixture(scope="module")
def undisturbed(one_shard: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of mf, trained by one process with two replicas."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    train_alone("mf", one_shard, workdir, *SETTINGS, "devices=2")
    return workdir


def test_workers_that_lose_the_chief_or_another_worker_exit_as_preempted_and_resume_together(
    one_shard: str, undisturbed: Path, tmp_path: Path
) -> None:
    choices = random.Random("mf")
    for part, lost in enumerate((1, 0)):
        step = choices.randrange(40 * part, 40 * part + 25)
        workers = start_workers(2, "mf", one_shard, tmp_path, *SETTINGS, program=slow_from(step + 12))
        wait_for_step(workers[0], tmp_path, step)
        time.sleep(choices.uniform(0, 0.1))
        workers[lost].kill()
        _, log = workers[1 - lost].communicate(timeout=END_SECONDS)
        assert (workers[1 - lost].returncode, "start all workers again" in log) == (75, True), log
        workers[lost].communicate(timeout=END_SECONDS)
    finish(start_workers(2, "mf", one_shard, tmp_path, *SETTINGS))
    assert_same(undisturbed, tmp_path)


@pytest.mark.parametrize("hanging", [0, 1])
def test_if_a_worker_hangs_with_heartbeats_the_other_exits_as_preempted_and_both_resume(
    hanging: int, one_shard: str, undisturbed: Path, tmp_path: Path
) -> None:
    endless = [*SETTINGS, "step_timeout_seconds=1e6"]
    workers = [
        start("mf", one_shard, tmp_path, *endless, cluster=cluster, program=("-c", HANGING))
        if index == hanging
        else start("mf", one_shard, tmp_path, *SETTINGS, STEP_TIMEOUT, cluster=cluster)
        for index, cluster in enumerate(clusters(2))
    ]
    try:
        wait_for_step(workers[0], tmp_path, 8)
        _, log = workers[1 - hanging].communicate(timeout=END_SECONDS)
        assert (workers[1 - hanging].returncode, "no progress for" in log) == (75, True), log
    finally:
        workers[hanging].kill()
        workers[hanging].communicate(timeout=END_SECONDS)
    assert json.loads((tmp_path / "starts.json").read_text())["starts"] == 1
    # the checkpoint of step 12 is written during the hanging call and may or may not have been published
    assert 8 <= (checkpoint.last_step(str(tmp_path)) or 0) <= 12
    finish(start_workers(2, "mf", one_shard, tmp_path, *SETTINGS))
    assert_same(undisturbed, tmp_path)


def test_if_a_worker_is_suspended_the_other_exits_as_preempted(one_shard: str, tmp_path: Path) -> None:
    workers = start_workers(2, "mf", one_shard, tmp_path, *SETTINGS, STEP_TIMEOUT)
    wait_for_step(workers[0], tmp_path, 12)
    workers[1].send_signal(signal.SIGSTOP)
    try:
        _, log = workers[0].communicate(timeout=END_SECONDS)
        assert workers[0].returncode == 75, log
        # a suspended process sends no heartbeats, so TensorFlow may notice before the step times out
        assert "start all workers again" in log
    finally:
        workers[1].kill()
        workers[1].communicate(timeout=END_SECONDS)
    assert checkpoint.last_step(str(tmp_path)) is not None


def test_workers_wait_for_the_report_of_the_chief(one_shard: str, tmp_path: Path) -> None:
    slow = ("-c", REPORTING.format(before="time.sleep(15)"))  # TensorFlow misses a worker after ten seconds
    workers = start_workers(2, "mf", one_shard, tmp_path, "epochs=2", program=slow)
    _, other_log = workers[1].communicate(timeout=END_SECONDS)
    assert (tmp_path / "result.json").exists(), other_log
    log = finish(workers[:1])
    for text in (log, other_log):
        assert "StartAbort" not in text
        assert "crashed" not in text


def test_workers_that_lose_the_chief_before_its_report_complete_the_run_together(
    one_shard: str, tmp_path: Path
) -> None:
    killed = ("-c", REPORTING.format(before="os.kill(os.getpid(), 9)"))
    workers = start_workers(2, "mf", one_shard, tmp_path, "epochs=2", program=killed)
    log = workers[1].communicate(timeout=END_SECONDS)[1]
    assert (workers[1].returncode, "at the end of the run" in log) == (75, True), log
    finish(workers[:1], status=-signal.SIGKILL)
    finish(start_workers(2, "mf", one_shard, tmp_path, "epochs=2"))
    assert (tmp_path / "result.json").exists()


def test_workers_are_refused_after_three_starts_without_a_checkpoint(one_shard: str, tmp_path: Path) -> None:
    (tmp_path / "starts.json").write_text('{"steps": [0], "starts": 3}')
    workers = start_workers(2, "mf", one_shard, tmp_path, *SETTINGS)
    log = finish(workers, status=1)
    assert f"none of the last 3 starts of {tmp_path} saved a checkpoint later than step 0" in log


def test_three_workers_share_one_shard_like_one_process_with_three_replicas(one_shard: str, tmp_path: Path) -> None:
    settings = ("epochs=2", "input.batch_size=66")  # the last setting applies: 22 rows per worker
    train_alone("mf", one_shard, tmp_path / "one", *settings, "devices=3")
    finish(start_workers(3, "mf", one_shard, tmp_path / "three", *settings))
    # a ring adds three numbers in a different order than one device
    assert_close(tmp_path / "one", tmp_path / "three")
