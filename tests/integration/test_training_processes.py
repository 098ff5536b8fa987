"""Runs that real signals ended are resumed, by one process or by another number of workers."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.integration.processes import (
    EVERY_MODEL,
    LONG,
    assert_same,
    finish,
    saved_step,
    slow_from,
    start,
    start_workers,
    train_alone,
    wait_for,
    wait_for_step,
    wait_until_saved,
)
from tests.trainer.tiny_runs import checkerboard_dataset
from trainer.runs import checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.same_numbers, pytest.mark.slow]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset"))).root


@pytest.mark.parametrize("preset", EVERY_MODEL)
def test_a_run_killed_twice_and_stopped_once_ends_with_the_same_tables(
    preset: str, dataset: str, tmp_path: Path
) -> None:
    whole, killed, choices = tmp_path / "whole", tmp_path / "killed", random.Random(preset)
    train_alone(preset, dataset, whole, *LONG)
    kills = [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)]
    choices.shuffle(kills)
    for part, (number, status) in enumerate(kills):
        step = choices.randrange(50 * part, 50 * part + 30)
        process = start(preset, dataset, killed, *LONG, program=slow_from(step + 12))
        # one in each third of the run, a few steps late, so that no kill waits for a checkpoint
        wait_for_step(process, killed, step)
        time.sleep(choices.uniform(0, 0.1))
        process.send_signal(number)
        finish([process], status)
    finish([start(preset, dataset, killed, *LONG)])
    assert_same(whole, killed)
    assert checkpoint.read_validations(str(whole)) == checkpoint.read_validations(str(killed))


@pytest.mark.parametrize("preset", [*EVERY_MODEL, "mf-als", "walk", "session_knn"])
def test_two_workers_train_like_one_process_with_two_replicas(preset: str, dataset: str, tmp_path: Path) -> None:
    settings = ["epochs=2", *(["blend=true"] if preset == "mf" else [])]  # with a companion, also on two workers
    train_alone(preset, dataset, tmp_path / "one", *settings, "devices=2")
    finish(start_workers(2, preset, dataset, tmp_path / "two", *settings))
    assert_same(tmp_path / "one", tmp_path / "two")
    assert checkpoint.read_validations(str(tmp_path / "one")) == checkpoint.read_validations(str(tmp_path / "two"))


@pytest.mark.parametrize("preset", ["notebook-nn", "mf"])
def test_two_workers_stopped_by_sigterm_resume_as_one_and_then_as_two_with_a_metric_within_1e_4(
    preset: str, dataset: str, tmp_path: Path
) -> None:
    """The bound applies to the validation metric: NDCG, or squared error for the notebook's network."""
    whole, changed, choices = tmp_path / "whole", tmp_path / "changed", random.Random(preset)
    train_alone(preset, dataset, whole, *LONG, "devices=2")

    step = choices.randrange(50)
    workers = start_workers(2, preset, dataset, changed, *LONG, program=slow_from(step + 12))
    wait_for_step(workers[0], changed, step)
    workers[1].send_signal(signal.SIGTERM)
    assert "stop requested" in finish(workers, 75)
    saved = saved_step(changed)
    assert 0 < saved < 100

    step = saved + choices.randrange(1, 50)
    alone = start(preset, dataset, changed, *LONG, program=slow_from(step + 12))
    assert "resuming with 1 replicas" in wait_for(alone, "replicas")
    wait_until_saved(alone, changed, step)
    alone.send_signal(signal.SIGTERM)
    finish([alone], 75)

    again = start_workers(2, preset, dataset, changed, *LONG)
    assert "resuming with 2 replicas" in wait_for(again[0], "replicas")
    finish(again)
    expected, found = (checkpoint.read_validations(str(workdir)) for workdir in (whole, changed))
    assert found.metric == expected.metric
    assert found.values == pytest.approx(expected.values, abs=1e-4 if expected.is_higher_better else 0, rel=1e-4)
