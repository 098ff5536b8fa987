"""Runs with other numbers of replicas, interrupted and resumed runs, and compiled runs have the same result."""

import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from common import storage
from tests.trainer.tiny_runs import (
    STALLED,
    STEPS_PER_EPOCH,
    FinishedRuns,
    StopAfter,
    assert_same,
    checkerboard_dataset,
    losses,
    make_config,
    run,
)
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FinishedRuns:
    return FinishedRuns(dataset, tmp_path_factory.mktemp("finished"))


# Adagrad's first update has the size of the learning rate; with an accumulator of 1e-9, an entry with a gradient close
# to 0 would be updated by its rounding error
SETTINGS = {"nn": ["optimizer.initial_accumulator=0.01", "loss.max_in_batch_negatives=24"]}


def step_config(preset: str, *settings: str) -> RunConfig:
    """Returns the config of a run that logs each step. Without `settings`, most tests compare with this run."""
    return make_config(preset, "steps_per_execution=1", *SETTINGS.get(preset, []), *settings)


@pytest.mark.same_numbers
@pytest.mark.parametrize("preset", ["notebook-mf", "notebook-nn", "mf", pytest.param("nn", marks=pytest.mark.slow)])
def test_any_number_of_replicas_gives_the_same_losses_and_tables(
    preset: str, dataset: Dataset, finished: FinishedRuns, tmp_path: Path
) -> None:
    expected_run, _ = finished(step_config(preset))
    one = checkpoint.read_weights(str(expected_run), "last")
    run(step_config(preset, "devices=4"), dataset, tmp_path)
    found = losses(tmp_path)
    assert len(found) == 2 * STEPS_PER_EPOCH[preset]
    for step, loss in losses(expected_run).items():
        assert math.isclose(found[step], loss, rel_tol=1e-5), step
    other = checkpoint.read_weights(str(tmp_path), "last")
    for name, table in one.tables.items():
        if preset == "notebook-mf":  # sums have the same order
            np.testing.assert_array_equal(other.tables[name], table)
        assert np.linalg.norm(np.subtract(other.tables[name], table)) < 1e-5 * np.linalg.norm(table)
    # compared as one vector: Adam's update of a weight has the same size if its gradient is only a rounding error
    dense, expected = (np.concatenate([np.ravel(part) for part in [*w.dense, 0]]) for w in (other, one))
    assert np.linalg.norm(dense - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize(("preset", "steps_left"), [*((preset, 1) for preset in STEPS_PER_EPOCH), ("mf", 0)])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    preset: str,
    steps_left: int,
    dataset: Dataset,
    finished: FinishedRuns,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run is stopped within the first epoch, and at its end."""
    caplog.set_level("INFO")
    config, steps = step_config(preset), STEPS_PER_EPOCH[preset] - steps_left
    whole_run, whole = finished(config)
    with pytest.raises(Preempted, match=f"stopped at step {steps} of {2 * STEPS_PER_EPOCH[preset]}"):
        run(config, dataset, tmp_path / "stopped", stop_after=steps)
    assert checkpoint.last_step(str(tmp_path / "stopped")) == steps
    resumed = run(config, dataset, tmp_path / "stopped")
    assert_same(whole_run, tmp_path / "stopped")
    assert losses(whole_run) == losses(tmp_path / "stopped")
    if steps_left:  # the logged loss of the first epoch includes the steps before the stop
        of_epoch = [loss for step, loss in losses(whole_run).items() if step <= STEPS_PER_EPOCH[preset]]
        assert f"epoch 1: loss {np.mean(of_epoch):.4f}" in caplog.text
    for name in ("best_step", "best_validation", "steps"):
        assert resumed[name] == whole[name]


@pytest.mark.parametrize("preset", ["mf", pytest.param("nn", marks=pytest.mark.slow)])
def test_a_run_resumes_with_another_number_of_replicas_and_logs_it(
    preset: str, dataset: Dataset, finished: FinishedRuns, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole_run, first = finished(step_config(preset))
    with pytest.raises(Preempted):
        run(step_config(preset), dataset, tmp_path / "stopped", stop_after=3)
    with caplog.at_level(logging.INFO):
        second = run(step_config(preset, "devices=2", "steps_per_execution=5"), dataset, tmp_path / "stopped")
    assert "resuming with changed settings: devices: null, now 2" in caplog.text
    assert second["best_validation"] == pytest.approx(first["best_validation"], abs=1e-4)
    whole, stopped = (checkpoint.read_weights(str(folder)) for folder in (whole_run, tmp_path / "stopped"))
    for name, table in whole.tables.items():
        assert np.linalg.norm(np.subtract(stopped.tables[name], table)) < 1e-5 * np.linalg.norm(table)


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
    dataset: Dataset, finished: FinishedRuns, tmp_path: Path
) -> None:
    config = step_config("mf")
    whole_run, _ = finished(config)
    shutil.copytree(whole_run, tmp_path / "damaged")
    state = Path(RunLayout(str(tmp_path / "damaged")).checkpoint(12)) / "state.json"
    state.write_text("{")
    run(config, dataset, tmp_path / "damaged")
    assert_same(whole_run, tmp_path / "damaged")


def test_results_do_not_depend_on_steps_per_execution(finished: FinishedRuns) -> None:
    one, four = (finished(step_config("mf", f"steps_per_execution={steps}"))[0] for steps in (1, 4))
    assert_same(one, four)


@pytest.mark.parametrize("setting", ["jit_compile=true", "mixed_precision=true"])
@pytest.mark.parametrize(
    ("preset", "devices"), [("notebook-nn", 1), ("mf", 2), pytest.param("nn", 1, marks=pytest.mark.slow)]
)
def test_compilation_and_mixed_precision_change_the_loss_by_rounding_only(
    preset: str, setting: str, devices: int, dataset: Dataset, finished: FinishedRuns, tmp_path: Path
) -> None:
    plain_run, _ = finished(step_config(preset))
    run(step_config(preset, setting, f"devices={devices}"), dataset, tmp_path / "switched")
    # bfloat16 has 8 bits of precision
    tolerance = 1e-4 if setting.startswith("jit") else 0.02
    plain, switched = (
        np.reshape(list(losses(workdir).values()), [2, STEPS_PER_EPOCH[preset]]).mean(1)  # of each epoch
        for workdir in (plain_run, tmp_path / "switched")
    )
    np.testing.assert_allclose(switched, plain, rtol=tolerance)


def test_patience_is_kept_when_a_run_is_resumed(dataset: Dataset, finished: FinishedRuns, tmp_path: Path) -> None:
    """The run is stopped at the end of an epoch, between saving and validating."""
    config = make_config("mf", *STALLED)
    whole_run, _ = finished(config)
    # the run checks for a stop once per step, once after each of three checkpoints, and once in each of two validations
    with pytest.raises(Preempted, match="stopped at step 18 of 54"):
        run(config, dataset, tmp_path / "stopped", stop_after=18 + 3 + 2)
    result = run(config, dataset, tmp_path / "stopped")
    assert (result["best_step"], result["steps"], result["is_stopped_early"]) == (6, 18, True)
    assert_same(whole_run, tmp_path / "stopped")
    assert losses(whole_run) == losses(tmp_path / "stopped")


def test_a_run_in_a_store_stopped_and_resumed_equals_a_local_one(dataset: Dataset, finished: FinishedRuns) -> None:
    config = step_config("notebook-nn")
    local_run, _ = finished(config)
    data, workdir = "memory://shop/dataset", "memory://shop/run"
    storage.upload_all(dataset.root, storage.list_files(dataset.root), data)
    with pytest.raises(Preempted):
        train(config, data=data, workdir=workdir, stop=StopAfter(1))
    train(config, data=data, workdir=workdir, stop=StopRequest())
    local, stored = (checkpoint.read_weights(run_dir, "last") for run_dir in (str(local_run), workdir))
    for name, table in local.tables.items():
        np.testing.assert_array_equal(stored.tables[name], table, err_msg=name)
    names = storage.list_files(workdir)
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not any("checksums" in name or "partial" in name for name in names)
