import logging
import math
from pathlib import Path

import numpy as np
import pytest

from common import storage
from common.settings import apply_settings
from contract.schema import EVENT_KINDS
from tests.trainer.dataset_builder import Event, build_dataset, checkerboard
from tests.trainer.tiny_runs import (
    STEPS_PER_EPOCH,
    StopAfter,
    assert_same,
    checkerboard_dataset,
    losses,
    make_config,
    run,
)
from trainer.config.presets import PRESETS
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.runs.record import read_record
from trainer.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


@pytest.mark.same_numbers
@pytest.mark.parametrize(
    ("preset", "settings"),
    [
        ("notebook-mf", []),
        ("notebook-nn", []),
        ("mf", []),
        # Adagrad's first update has the size of the learning rate; with an accumulator of 1e-9, an entry with a
        # gradient close to 0 would be updated by its rounding error
        ("nn", ["optimizer.initial_accumulator=0.01"]),
    ],
)
def test_any_number_of_replicas_gives_the_same_losses_and_tables(
    preset: str, settings: list[str], dataset: Dataset, tmp_path: Path
) -> None:
    for count in (1, 2, 4):
        run(make_config(preset, f"devices={count}", "steps_per_execution=1", *settings), dataset, tmp_path / str(count))
    one = checkpoint.read_weights(str(tmp_path / "1"), "last")
    for count in (2, 4):
        found = losses(tmp_path / str(count))
        assert len(found) == 2 * STEPS_PER_EPOCH[preset]
        for step, loss in losses(tmp_path / "1").items():
            assert math.isclose(found[step], loss, rel_tol=1e-5), step
        other = checkpoint.read_weights(str(tmp_path / str(count)), "last")
        for name, table in one.tables.items():
            if preset == "notebook-mf":  # sums have the same order
                np.testing.assert_array_equal(other.tables[name], table)
            assert np.linalg.norm(np.subtract(other.tables[name], table)) < 1e-5 * np.linalg.norm(table)
        # compared as one vector: Adam's update of a weight has the same size if its gradient is only a rounding error
        dense, expected = (np.concatenate([np.ravel(part) for part in [*w.dense, 0]]) for w in (other, one))
        assert np.linalg.norm(dense - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("steps_left", [1, 0])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    preset: str, steps_left: int, dataset: Dataset, tmp_path: Path
) -> None:
    """The run is stopped within the first epoch, and at its end."""
    config, steps = make_config(preset, "steps_per_execution=1"), STEPS_PER_EPOCH[preset] - steps_left
    whole = run(config, dataset, tmp_path / "whole")
    with pytest.raises(Preempted, match=f"stopped at step {steps} of {2 * STEPS_PER_EPOCH[preset]}"):
        run(config, dataset, tmp_path / "stopped", stop_after=steps)
    assert checkpoint.last_step(str(tmp_path / "stopped")) == steps
    resumed = run(config, dataset, tmp_path / "stopped")
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    for name in ("best_step", "best_validation", "steps"):
        assert resumed[name] == whole[name]


@pytest.mark.parametrize("preset", ["notebook-nn", "mf", "nn"])
def test_a_run_resumes_with_another_number_of_replicas_and_logs_it(
    preset: str, dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(make_config(preset), dataset, tmp_path / "whole")
    with pytest.raises(Preempted):
        run(make_config(preset, "steps_per_execution=1"), dataset, tmp_path / "stopped", stop_after=3)
    with caplog.at_level(logging.INFO):
        second = run(make_config(preset, "devices=4", "steps_per_execution=5"), dataset, tmp_path / "stopped")
    assert "resuming with devices: null, now 4" in caplog.text
    assert second["best_validation"] == pytest.approx(first["best_validation"], abs=1e-4)
    whole, stopped = (checkpoint.read_weights(str(tmp_path / name)) for name in ("whole", "stopped"))
    for name, table in whole.tables.items():
        assert np.linalg.norm(np.subtract(stopped.tables[name], table)) < 1e-5 * np.linalg.norm(table)


def test_a_finished_run_returns_its_result_again(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config("mf")
    first = run(config, dataset, tmp_path)
    metrics = Path(RunLayout(str(tmp_path)).metrics).read_text()
    second = run(config, dataset, tmp_path)
    assert second["best_validation"] == first["best_validation"]
    assert Path(RunLayout(str(tmp_path)).metrics).read_text() == metrics


def test_a_damaged_checkpoint_is_replaced_by_the_one_before(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config("mf", "checkpoint_every_steps=4")
    run(config, dataset, tmp_path / "whole")
    run(config, dataset, tmp_path / "damaged")
    state = Path(RunLayout(str(tmp_path / "damaged")).checkpoint(12)) / "state.json"
    state.write_text("{")
    run(config, dataset, tmp_path / "damaged")
    assert_same(tmp_path / "whole", tmp_path / "damaged")


def test_a_run_can_be_reproduced_from_its_record(dataset: Dataset, tmp_path: Path) -> None:
    run(make_config("mf", "seed=7"), dataset, tmp_path / "first")
    record = read_record(str(tmp_path / "first"))
    assert record.dataset_checksum == open_dataset(record.data).checksum
    train(record.config, data=record.data, workdir=str(tmp_path / "again"))
    assert_same(tmp_path / "first", tmp_path / "again")


def test_another_seed_gives_other_losses(dataset: Dataset, tmp_path: Path) -> None:
    for seed in (1, 2):
        run(make_config("mf", f"seed={seed}"), dataset, tmp_path / str(seed))
    assert losses(tmp_path / "1") != losses(tmp_path / "2")


def test_results_do_not_depend_on_steps_per_execution(dataset: Dataset, tmp_path: Path) -> None:
    run(make_config("mf", "steps_per_execution=1"), dataset, tmp_path / "one")
    run(make_config("mf", "steps_per_execution=4"), dataset, tmp_path / "four")
    assert_same(tmp_path / "one", tmp_path / "four")


@pytest.mark.parametrize("setting", ["jit_compile=true", "mixed_precision=true"])
@pytest.mark.parametrize("preset", ["notebook-nn", "mf", "nn"])
@pytest.mark.parametrize("devices", [1, 2])
def test_compilation_and_mixed_precision_change_the_loss_by_rounding_only(
    preset: str, setting: str, devices: int, dataset: Dataset, tmp_path: Path
) -> None:
    run(make_config(preset), dataset, tmp_path / "plain")
    run(make_config(preset, setting, f"devices={devices}"), dataset, tmp_path / "switched")
    # bfloat16 has 8 bits of precision
    tolerance = 1e-4 if setting.startswith("jit") else 0.02
    for step, loss in losses(tmp_path / "plain").items():
        assert math.isclose(losses(tmp_path / "switched")[step], loss, rel_tol=tolerance)


def test_another_config_or_dataset_is_refused_with_the_differences(dataset: Dataset, tmp_path: Path) -> None:
    run(make_config("mf"), dataset, tmp_path / "run")
    with pytest.raises(ValueError, match=r"model\.dim: 8, now 4; input\.batch_size: 64, now 32"):
        run(make_config("mf", "model.dim=4", "input.batch_size=32"), dataset, tmp_path / "run")
    other = build_dataset(str(tmp_path / "dataset"), **checkerboard(seed=1))
    with pytest.raises(ValueError, match=f"dataset: {dataset.checksum[:12]}…, now {other.checksum[:12]}…"):
        run(make_config("mf"), other, tmp_path / "run")


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch 66 does not divide among 4 replicas; use 64 or 68"):
        run(make_config("mf", "devices=4", "input.batch_size=66"), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_next_items_is_refused_for_the_towers(tmp_path: Path) -> None:
    rows = [Event(f"v{visitor}", "i0") for visitor in range(8)]
    visitors = [f"v{visitor}" for visitor in range(8)]
    dataset = build_dataset(str(tmp_path / "dataset"), train=rows, visitors=visitors, items=["i0"])
    with pytest.raises(ValueError, match=r"no visitor in the training split of .* has a second event"):
        run(make_config("nn"), dataset, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config("notebook-mf", "optimizer.learning_rate=1e25")
    message = (
        r"the loss is (inf|nan) at step 1; its batch has 64 rows \(64 view of weight 1, .*\), visitor indices .*; "
        r"visitor rows have norms up to .*lower optimizer.learning_rate \(now 1e\+25\)"
    )
    with pytest.raises(ValueError, match=message):
        run(config, dataset, tmp_path)
    assert checkpoint.last_step(str(tmp_path)) is None


def test_a_diverged_tower_model_is_reported_with_its_dense_learning_rate(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config("nn", "model.dense_learning_rate=1e20")
    message = (
        r"the loss is (inf|nan) at step .*; dense weights have entries up to .*"
        r"lower optimizer.learning_rate \(now 0.1\) or model.dense_learning_rate \(now 1e\+20\) or model.initial_stddev"
    )
    with pytest.raises(ValueError, match=message):
        run(config, dataset, tmp_path)


def test_a_loss_that_grows_stops_the_run_before_it_overwrites_a_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    # Adam moves each entry by about 10 per step, so that squared errors grow fast
    config = make_config("notebook-mf", "optimizer.learning_rate=10", "epochs=4")
    with pytest.raises(ValueError, match=r"the loss has grown to .* at step 19; its batch has 64 rows"):
        run(config, dataset, tmp_path)
    assert checkpoint.last_step(str(tmp_path)) == 18  # the end of the third epoch
    assert checkpoint.best_step(str(tmp_path)) is not None
    result = run(apply_settings(config, ["max_loss_growth=none"]), dataset, tmp_path)
    assert result["steps"] == 24


STALLED = ("optimizer.learning_rate=1e-12", "epochs=9", "patience=2", "steps_per_execution=1")
"""Settings that leave the weights unchanged: the first epoch stays the best, and the third is the last."""


def test_early_stopping_keeps_the_best_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    result = run(make_config("mf", *STALLED), dataset, tmp_path)
    assert (result["best_step"], result["steps"], result["epochs"]) == (6, 18, 3)
    assert result["is_stopped_early"]
    again = run(make_config("mf", *STALLED), dataset, tmp_path)
    assert (again["best_step"], again["steps"], again["is_stopped_early"]) == (6, 18, True)
    assert checkpoint.last_step(str(tmp_path)) == 18


@pytest.mark.parametrize("stop_after", [8, 12, 18])
def test_patience_is_kept_when_a_run_is_resumed(stop_after: int, dataset: Dataset, tmp_path: Path) -> None:
    """The run is stopped within an epoch, and at the end of an epoch between saving and validating."""
    config = make_config("mf", *STALLED)
    run(config, dataset, tmp_path / "whole")
    # the run checks for a stop once per step, and once in the validation of each earlier epoch of 6 steps
    checks = stop_after + (stop_after - 1) // 6
    with pytest.raises(Preempted, match=f"stopped at step {stop_after} of 54"):
        run(config, dataset, tmp_path / "stopped", stop_after=checks)
    result = run(config, dataset, tmp_path / "stopped")
    assert (result["best_step"], result["steps"], result["is_stopped_early"]) == (6, 18, True)
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")


def test_validates_every_n_epochs_and_at_the_end(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config("mf", "epochs=5", "validate_every_epochs=2")
    result = run(config, dataset, tmp_path)
    validated = checkpoint.read_validations(str(tmp_path)).values
    assert list(validated) == [12, 24, 30]  # the ends of epochs 2, 4 and 5, with 6 steps each
    assert result["best_step"] in validated


def test_without_a_validation_split_the_last_checkpoint_is_the_best(tmp_path: Path) -> None:
    arguments = checkerboard()
    arguments["validation"] = arguments["test"] = ()
    dataset = build_dataset(str(tmp_path / "dataset"), **arguments)
    result = run(make_config("mf"), dataset, tmp_path / "run")
    assert result["validation_metric"] is None
    assert result["best_step"] is None
    last = checkpoint.read_weights(str(tmp_path / "run"), "last")
    np.testing.assert_array_equal(
        checkpoint.read_weights(str(tmp_path / "run"), "best").tables["item"], last.tables["item"]
    )


def test_the_result_and_the_record_describe_the_training_rows(tmp_path: Path) -> None:
    kinds = ["view"] * 5 + ["addtocart"] * 2 + ["transaction"]
    rows = [Event(f"v{position % 4}", f"i{position}", kind, position) for position, kind in enumerate(kinds)]
    dataset = build_dataset(
        str(tmp_path / "dataset"), train=rows, validation=rows[:1], visitors=["v0", "v1"], items=["i0", "i1", "i2"]
    )
    result = run(make_config("notebook-mf", "epochs=1"), dataset, tmp_path / "run")
    assert result["training_rows"] == 8
    assert result["validation_metric"] == "mse"
    # (5 × 1 + 2 × 2 + 3) / 8, rows of unknown visitors and items included
    assert result["mean_event_weight"] == pytest.approx(1.5)
    record = read_record(str(tmp_path / "run"))
    assert record.events == dict(zip(EVENT_KINDS, [5, 2, 1], strict=True))
    assert {"python", "tensorflow", "keras", "numpy", "cartwheel"} == set(record.versions)


def test_a_run_in_a_store_stopped_and_resumed_equals_a_local_one(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config("notebook-nn")
    run(config, dataset, tmp_path)
    data, workdir = "memory://shop/dataset", "memory://shop/run"
    storage.upload_all(dataset.root, storage.list_files(dataset.root), data)
    with pytest.raises(Preempted):
        train(config, data=data, workdir=workdir, stop=StopAfter(1))
    train(config, data=data, workdir=workdir, stop=StopRequest())
    local, stored = (checkpoint.read_weights(run_dir, "last") for run_dir in (str(tmp_path), workdir))
    for name, table in local.tables.items():
        np.testing.assert_array_equal(stored.tables[name], table, err_msg=name)
    names = storage.list_files(workdir)
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not any("checksums" in name or "partial" in name for name in names)
