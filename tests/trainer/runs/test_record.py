import dataclasses
import json
import logging
from pathlib import Path

import pytest

from tests.trainer.dataset_builder import build_dataset
from trainer.config.presets import PRESETS
from trainer.data.dataset import Dataset
from trainer.runs.layout import RunLayout
from trainer.runs.record import (
    RunRecord,
    check_same_run,
    current_commit,
    current_versions,
    has_run,
    read_record,
    write_record,
)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return build_dataset(str(tmp_path / "dataset"), train=[("v", "i")], visitors=["v"], items=["i"])


def make_record(dataset: Dataset) -> RunRecord:
    return RunRecord(
        config=PRESETS["mf"],
        data=dataset.root,
        dataset_checksum=dataset.checksum,
        training_rows=1,
        events={"view": 1, "addtocart": 0, "transaction": 0},
        mean_event_weight=1.0,
        commit=current_commit(),
        versions=current_versions(),
    )


def test_a_record_is_read_as_it_was_written(dataset: Dataset, tmp_path: Path) -> None:
    workdir = str(tmp_path / "run")
    assert not has_run(workdir)
    write_record(make_record(dataset), workdir)
    assert has_run(workdir)
    assert read_record(workdir) == make_record(dataset)


def test_a_folder_without_a_run_is_refused_with_the_command_that_starts_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no run .*cartwheel train"):
        read_record(str(tmp_path))


@pytest.mark.parametrize("damage", ["cut", "field", "config"])
def test_a_damaged_record_is_refused(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    write_record(make_record(dataset), str(tmp_path))
    path = Path(RunLayout(str(tmp_path)).run)
    values = json.loads(path.read_text())
    match damage:
        case "cut":
            path.write_text(path.read_text()[:-20])
        case "field":
            path.write_text(json.dumps({**values, "machine": "fast"}))
        case "config":
            path.write_text(json.dumps({**values, "config": {**values["config"], "speed": 3}}))
    with pytest.raises(ValueError, match="is damaged or was written by another version"):
        read_record(str(tmp_path))


def test_a_run_resumes_with_the_same_config_and_dataset(dataset: Dataset) -> None:
    check_same_run("run", make_record(dataset), PRESETS["mf"], dataset)


def test_settings_that_do_not_change_the_result_may_change_and_are_logged(
    dataset: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    changed = dataclasses.replace(PRESETS["mf"], devices=4, steps_per_execution=3, checkpoint_every_steps=10)
    with caplog.at_level(logging.INFO):
        check_same_run("run", make_record(dataset), changed, dataset)
    assert "devices: null, now 4" in caplog.text


@pytest.mark.parametrize("change", [{"seed": 5}, {"epochs": 99}, {"mixed_precision": True}, {"patience": 9}])
def test_a_change_of_a_setting_that_changes_the_result_is_refused(dataset: Dataset, change: dict[str, int]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=f"the run in run differs .*\\({name}: .*give another --workdir"):
        check_same_run("run", make_record(dataset), dataclasses.replace(PRESETS["mf"], **change), dataset)


def test_the_error_for_another_preset_does_not_list_all_settings(dataset: Dataset) -> None:
    record = make_record(dataset)
    with pytest.raises(ValueError, match=r"^run has a run of the preset mf, not of walk; .*`--preset mf`$"):
        check_same_run("run", record, PRESETS["walk"], dataset)
    with pytest.raises(ValueError, match=r"^run has a refit of first; give another --workdir$"):
        check_same_run("run", dataclasses.replace(record, refit_of={"run": "first"}), PRESETS["walk"], dataset)
