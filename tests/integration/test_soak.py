"""Runs a short soak that sends each signal to each worker once, and tests the plan of kills."""

import random
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.processes import SMALL
from tests.integration.soak import Kill, Soak, SoakFailed, await_moment, plan_kills, soak
from tests.trainer.dataset_builder import build_dataset, checkerboard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SLOW = """
import sys, time
from trainer import cli
from trainer.runs.checkpoint_writer import CheckpointWriter

def after_pause(call):
    def pause_and_call(*arguments, **options):
        time.sleep(0.25)
        return call(*arguments, **options)
    return pause_and_call

CheckpointWriter.begin = after_pause(CheckpointWriter.begin)
CheckpointWriter.poll = after_pause(CheckpointWriter.poll)
sys.exit(cli.main(sys.argv[1:]))
"""
"""A trainer with slow steps and slow saves, so that a kill hits the planned moment even on a busy machine."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("dataset"))
    build_dataset(root, **checkerboard(), num_shards=3, block_rows=20)
    return root


def test_a_run_of_two_workers_ends_with_the_same_tables_despite_repeated_kills(dataset: str, tmp_path: Path) -> None:
    settings = [*SMALL, "epochs=30", "patience=none", "checkpoint_every_steps=10"]
    wanted = Soak(kills=4, seed=1, settings=settings, max_delay=0.2, end_seconds=900, program=("-c", SLOW))
    figures = soak(dataset, tmp_path, wanted)
    assert figures["same_tables"]
    assert figures["last_step"] == 30 * 6  # 360 rows in batches of 64
    counts = Counter(kind.rpartition(" ")[0] for kind in figures["by_kind"])
    assert counts == {"chief SIGKILL": 1, "chief SIGTERM": 1, "other SIGKILL": 1, "other SIGTERM": 1}
    assert sum(count for kind, count in figures["by_kind"].items() if kind.endswith("saving")) == 2
    assert figures["kills"] == 4


def test_planned_kills_alternate_in_kind_and_get_later() -> None:
    plan = plan_kills(30, 500, 1.0, random.Random(0))
    pairs = {(worker, number) for worker in (0, 1) for number in (signal.SIGKILL, signal.SIGTERM)}
    for first in range(0, 28, 4):
        four = plan[first : first + 4]
        assert {(kill.worker, kill.signal) for kill in four} == pairs
        assert sum(kill.is_saving for kill in four) == 2
    assert len({kill.kind() for kill in plan[:8]}) == 8
    assert [kill.step for kill in plan] == sorted({kill.step for kill in plan})
    assert len(plan) == 30
    assert plan[-1].step < 500


def test_a_run_too_short_for_its_kills_is_refused() -> None:
    with pytest.raises(ValueError, match="4 kills need 4 different steps, got 3"):
        plan_kills(4, 3, 1.0, random.Random(0))


def test_workers_that_end_before_the_kill_fail_the_soak(tmp_path: Path) -> None:
    processes = [subprocess.Popen(["true"]) for _ in range(2)]
    for process in processes:
        process.wait()
    with pytest.raises(SoakFailed, match=r"other SIGTERM between: ended with \[0, 0\] before its kill was due"):
        await_moment(processes, tmp_path, Kill(1, signal.SIGTERM, is_saving=False, step=6, delay=0), start_time=0)
