"""If a model of `--preset auto` runs out of memory, the others are still trained; a full disk ends the run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from common.storage.disk_space import DiskFullError
from tests.trainer.workflows.fakes import FakeTraining
from trainer.config.presets import auto_trials
from trainer.distributed.preemption import StopRequest
from trainer.workflows.trials import Trial, TrialRunner


def exhausted(message: str) -> tf.errors.ResourceExhaustedError:
    return tf.errors.ResourceExhaustedError(None, None, message)


def raising(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def run_two(workdir: Path) -> list[Trial]:
    runner = TrialRunner(str(workdir), "dataset")
    for name in ("walk", "als"):
        runner.run(name, auto_trials()[name], StopRequest(), limit=None, least_seconds=5.0)
    return runner.trials


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no events"), "no events"),
        (MemoryError(), "the machine ran out of memory"),
        (MemoryError("Unable to allocate 9 GiB"), "the machine ran out of memory (Unable to allocate 9 GiB)"),
        (exhausted("OOM when allocating\nshape[9]"), "the device ran out of memory (OOM when allocating shape[9])"),
    ],
)
def test_the_next_model_is_trained_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    training = FakeTraining(monkeypatch, {"walk": 20.0, "als": 30.0}, during={"walk": raising(error)})
    trials = run_two(tmp_path)
    assert trials == [
        Trial(name="walk", state="failed", seconds=20.0, reason=reason),
        Trial(name="als", state="trained", seconds=30.0),
    ]
    assert f"trial walk failed: {reason}" in caplog.text
    # a repeated call does not try it again
    assert run_two(tmp_path) == trials
    assert [config.name for config in training.configs] == ["walk", "als"]


def test_a_full_disk_is_no_failure_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = exhausted("/tmp/table; No space left on device")
    training = FakeTraining(monkeypatch, {"walk": 20.0, "als": 30.0}, during={"walk": raising(error)})
    with pytest.raises(DiskFullError, match="the disk of /tmp"):
        run_two(tmp_path)
    training.during = {}
    assert [trial.state for trial in run_two(tmp_path)] == ["trained", "trained"]
