import json
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import tensorflow as tf

from trainer.distributed.preemption import Preempted
from trainer.distributed.replicas import start_replicas
from trainer.runs.checkpoint import STATE
from trainer.runs.layout import RunLayout
from trainer.runs.starts import counting_starts


def start(workdir: Path, during: Callable[[], object] = lambda: None, *, part: Path | None = None) -> None:
    parts = [str(part)] if part else []
    with counting_starts(str(workdir), parts, start_replicas(1, None)):
        during()


def fail_with(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


def lose_worker(workdir: Path, part: Path | None = None) -> None:
    with pytest.raises(tf.errors.UnavailableError):
        start(workdir, fail_with(tf.errors.UnavailableError(None, None, "Socket closed")), part=part)


def save(workdir: Path, step: int) -> None:
    state = Path(RunLayout(str(workdir)).checkpoint(step)) / STATE
    state.parent.mkdir(parents=True)
    state.touch()


def test_the_fourth_start_after_three_without_a_new_checkpoint_is_refused_and_the_fifth_allowed(tmp_path: Path) -> None:
    save(tmp_path, 12)
    for _ in range(3):
        lose_worker(tmp_path)
    with pytest.raises(
        ValueError, match=r"none of the last 3 starts of .* saved a checkpoint later than step 12: .* run the same"
    ):
        start(tmp_path)
    for _ in range(3):
        lose_worker(tmp_path)
    with pytest.raises(ValueError, match="the last 3 starts"):
        start(tmp_path)


@pytest.mark.parametrize("where", ["run", "part"])
def test_a_new_checkpoint_of_the_run_or_of_a_part_ends_the_count(where: str, tmp_path: Path) -> None:
    part = tmp_path / "parts" / "walk"
    for _ in range(3):
        lose_worker(tmp_path, part)
    save(tmp_path if where == "run" else part, 4)
    for _ in range(3):
        lose_worker(tmp_path, part)


def test_a_killed_process_counts_as_a_start(tmp_path: Path) -> None:
    seen = []
    start(tmp_path, lambda: seen.append(json.loads(Path(RunLayout(str(tmp_path)).starts).read_text())))
    # this file is what a kill would leave
    assert seen == [{"steps": [0], "starts": 1}]
    assert not Path(RunLayout(str(tmp_path)).starts).exists()


@pytest.mark.parametrize("error", [Preempted("stopped"), KeyboardInterrupt(), ValueError("diverged")])
def test_a_requested_stop_or_an_error_of_the_run_does_not_count(error: BaseException, tmp_path: Path) -> None:
    for _ in range(2):
        lose_worker(tmp_path)
    for _ in range(4):
        with pytest.raises(type(error)):
            start(tmp_path, fail_with(error))
    lose_worker(tmp_path)
    with pytest.raises(ValueError, match="the last 3 starts"):
        start(tmp_path)
