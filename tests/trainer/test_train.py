import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from common import storage
from common.settings import apply_settings
from common.storage.owner_record import Owner
from common.storage.processes import current_process
from contract.schema import DEFAULT_KINDS
from tests.trainer.dataset_builder import Event, build_dataset, checkerboard
from tests.trainer.tiny_runs import (
    STALLED,
    FinishedRuns,
    assert_same,
    checkerboard_dataset,
    losses,
    make_config,
    run,
)
from trainer import cli
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.watchdog import Watchdog
from trainer.export import export
from trainer.models.trained_run import open_trained_run
from trainer.recommend import recommend
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.runs.record import read_record
from trainer.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FinishedRuns:
    return FinishedRuns(dataset, tmp_path_factory.mktemp("finished"))


def test_a_finished_run_returns_its_result_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is started twice.

    Each start pings the watchdog for each file and window of the dataset, and while it fills the tables.
    """
    pings: list[int] = []
    monkeypatch.setattr(Watchdog, "ping", lambda _: pings.append(1))
    config = make_config("mf")
    first = run(config, dataset, tmp_path)
    num_pings = len(pings)
    assert num_pings > len(dataset.manifest.files) + 1
    metrics = Path(RunLayout(str(tmp_path)).metrics).read_text()
    second = run(config, dataset, tmp_path)
    assert len(pings) - num_pings > len(dataset.manifest.files) + 1
    assert second["best_validation"] == first["best_validation"]
    assert Path(RunLayout(str(tmp_path)).metrics).read_text() == metrics


def test_a_run_can_be_reproduced_from_its_record(finished: FinishedRuns, tmp_path: Path) -> None:
    workdir, _ = finished(make_config("mf", "seed=7"))
    record = read_record(str(workdir))
    assert record.dataset_checksum == open_dataset(record.data).checksum
    train(record.config, data=record.data, workdir=str(tmp_path / "again"))
    assert_same(workdir, tmp_path / "again")


def test_another_seed_gives_other_losses(finished: FinishedRuns) -> None:
    one, other = (finished(make_config("mf", *seed))[0] for seed in ((), ("seed=7",)))
    assert losses(one) != losses(other)


def test_another_config_or_dataset_is_refused_with_the_differences(
    dataset: Dataset, finished: FinishedRuns, tmp_path: Path
) -> None:
    workdir, _ = finished(make_config("mf"))
    with pytest.raises(ValueError, match=r"model\.dim: 8, now 4; input\.batch_size: 64, now 32"):
        run(make_config("mf", "model.dim=4", "input.batch_size=32"), dataset, workdir)
    other = build_dataset(str(tmp_path / "dataset"), **checkerboard(seed=1))
    with pytest.raises(ValueError, match=f"dataset: {dataset.checksum[:12]}…, now {other.checksum[:12]}…"):
        run(make_config("mf"), other, workdir)


def test_a_run_without_its_record_resumes_only_with_its_own_settings(
    dataset: Dataset, finished: FinishedRuns, tmp_path: Path
) -> None:
    whole, first = finished(make_config("mf"))
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    path = Path(RunLayout(str(tmp_path)).run)
    record = path.read_text()
    path.unlink()
    with pytest.raises(ValueError, match=r"run.json of that run is missing or was replaced\..* give another --workdir"):
        run(make_config("mf", "seed=5", "optimizer.learning_rate=0.02"), dataset, tmp_path)
    assert not path.exists()
    again = run(make_config("mf", "step_timeout_seconds=60"), dataset, tmp_path)
    assert (again["steps"], again["best_validation"]) == (first["steps"], first["best_validation"])
    assert read_record(str(tmp_path)).dataset_checksum == dataset.checksum
    path.write_text(record.replace('"seed": 0', '"seed": 5'))
    with pytest.raises(ValueError, match=r"run.json of that run is missing or was replaced"):
        open_trained_run(str(tmp_path))


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_written(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"input.batch_size=66 is not divisible by 4 replicas; use 64 or 68"):
        run(make_config("mf", "devices=4", "input.batch_size=66"), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_next_items_is_refused_for_the_towers(tmp_path: Path) -> None:
    rows = [Event(f"v{visitor}", "i0") for visitor in range(8)]
    visitors = [f"v{visitor}" for visitor in range(8)]
    dataset = build_dataset(str(tmp_path / "dataset"), train=rows, visitors=visitors, items=["i0"])
    with pytest.raises(ValueError, match=r"no visitor in the training split of .* has more than one event"):
        run(make_config("nn"), dataset, tmp_path / "run")


@pytest.mark.parametrize("command", [export, recommend], ids=["export", "recommend"])
def test_a_second_command_with_an_output_is_refused_before_any_work(
    command: Callable[..., object], tmp_path: Path
) -> None:
    (tmp_path / ".output.owner.json").write_bytes(living_owner())
    with pytest.raises(storage.InUseError, match=rf"output is in use by process {os.getpid()} on host"):
        command(workdir="no run", output=str(tmp_path / "output"))


def living_owner() -> bytes:
    """Returns the owner record of a process that is alive: this process, with another token."""
    owner = Owner("other", current_process(), "2026-11-30 01:02:03 UTC")
    return json.dumps(asdict(owner)).encode()


def test_a_second_train_in_a_workdir_ends_with_73_and_changes_nothing(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / storage.OWNER).write_bytes(living_owner())
    (tmp_path / "run.json").write_bytes(b"{}")
    before = contents(tmp_path)
    assert cli.main(["train", "--preset", "mf", "--data", dataset.root, "--workdir", str(tmp_path)]) == 73
    assert re.search(
        rf"is in use by process {os.getpid()} on host .*; wait until that process ends", caplog.messages[-1]
    )
    assert contents(tmp_path) == before


def test_a_run_that_was_suspended_and_taken_over_writes_nothing_more(dataset: Dataset, tmp_path: Path) -> None:
    before = {}

    def take_over(epoch: int, value: float) -> bool:
        storage.write_bytes(str(tmp_path / storage.OWNER), living_owner())
        before.update(contents(tmp_path))
        return False

    with pytest.raises(storage.OwnershipLostError, match=rf"was taken over by process {os.getpid()} on host"):
        train(make_config("mf"), data=dataset.root, workdir=str(tmp_path), on_validation=take_over)
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "tensorboard"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


def test_early_stopping_keeps_the_best_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    result = run(make_config("mf", *STALLED), dataset, tmp_path)
    assert (result["best_step"], result["steps"], result["epochs"]) == (6, 18, 3)
    assert result["is_stopped_early"]
    again = run(make_config("mf", *STALLED), dataset, tmp_path)
    assert (again["best_step"], again["steps"], again["is_stopped_early"]) == (6, 18, True)
    assert checkpoint.last_step(str(tmp_path)) == 18


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
    assert record.events == dict(zip(DEFAULT_KINDS, [5, 2, 1], strict=True))
    assert {"python", "tensorflow", "keras", "numpy", "cartwheel"} == set(record.versions)
