"""Searches are seeded, resumed, pruned and shared by processes. Most tests replace training by a function."""

import json
import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.trainer.kills import finish, start_command, start_to_be_killed
from tests.trainer.tiny_runs import checkerboard_dataset
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.runs import checkpoint
from trainer.runs.trials import SearchLayout
from trainer.workflows import tune as job
from trainer.workflows.tune import tune

SEARCH = ["optimizer.learning_rate=0.01..1:log", "model.dim=8,16,32"]
Curve = Callable[[RunConfig], list[float]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


def peak(config: RunConfig) -> list[float]:
    """Returns validation metrics that rise with the epochs, highest at a learning rate of 0.1 and a width of 16."""
    distance = abs(math.log10(config.optimizer.learning_rate) + 1) + abs(math.log2(config.model.dim) - 4)
    return [(0.5 + 0.1 * epoch) / (1 + distance) for epoch in range(3)]


class FakeTraining:
    """Replaces `train`. Validates with the metrics of a curve, and records the configs that it is called with."""

    def __init__(self, curve: Curve = peak) -> None:
        self.curve, self.configs, self.stop_in = curve, list[RunConfig](), -1

    def __call__(
        self, config: RunConfig, *, data: str, workdir: str, stop: StopRequest, on_validation: Callable
    ) -> dict[str, Any]:
        self.configs.append(config)
        values = self.curve(config)
        for epoch, value in enumerate(values, start=1):
            if len(self.configs) == self.stop_in and epoch == 2:
                raise Preempted("stopped")
            checkpoint.record_validation(workdir, epoch, value, metric="ndcg@20", is_higher_better=True)
            if on_validation(epoch, value):
                break
        return {"best_validation": max(values[:epoch])}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    training = FakeTraining()
    monkeypatch.setattr(job, "train", training)
    return training


def trials_of(workdir: Path) -> list[dict[str, Any]]:
    return json.loads((workdir / "trials.json").read_text())


def test_the_best_of_all_trials_is_written_with_its_commands(
    fake: FakeTraining, dataset: Dataset, tmp_path: Path
) -> None:
    result = tune("mf", SEARCH, data=dataset.root, workdir=str(tmp_path), trials=14, settings=["epochs=3"])
    trials = trials_of(tmp_path)
    assert [trial["number"] for trial in trials] == list(range(14))
    assert len(fake.configs) == 14
    assert all(config.epochs == 3 for config in fake.configs)
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["value"] == max(trial["value"] for trial in complete)
    chosen = trials[best["trial"]]["settings"]
    changes = f"optimizer.learning_rate={chosen['optimizer.learning_rate']} model.dim={chosen['model.dim']}"
    assert best["train"] == (
        f"cartwheel train --preset mf --data {dataset.root} --set epochs=3 --workdir RUN --set {changes}"
    )
    assert best["refit"] == f"cartwheel train --refit {tmp_path}/trials/{best['trial']:03d} --workdir RUN"
    assert (result["best"], sum(result["trials"].values())) == (best, 14)
    report = (tmp_path / "tune.html").read_text()
    assert "Trials by setting" in report
    assert f"{best['value']:.4f}" in report


def test_a_stopped_search_continues_as_an_uninterrupted_one(
    fake: FakeTraining, dataset: Dataset, tmp_path: Path
) -> None:
    settings = {"data": dataset.root, "trials": 13}
    tune("mf", SEARCH, workdir=str(tmp_path / "whole"), **settings)
    whole = fake.configs[:]
    fake.configs.clear()
    fake.stop_in = 12  # after the ten random trials
    with pytest.raises(Preempted):
        tune("mf", SEARCH, workdir=str(tmp_path / "stopped"), **settings)
    assert trials_of(tmp_path / "stopped")[-1]["state"] == "running"
    stopped = fake.configs[:-1]
    fake.configs.clear()
    fake.stop_in = -1
    tune("mf", SEARCH, workdir=str(tmp_path / "stopped"), **settings)
    assert stopped + fake.configs == whole, "the interrupted trial runs again, with the same settings"
    assert trials_of(tmp_path / "stopped") == trials_of(tmp_path / "whole")
    fake.configs.clear()
    tune("mf", SEARCH, workdir=str(tmp_path / "whole"), **settings)
    assert not fake.configs, "a finished search is not repeated"


def test_the_seed_determines_the_trials(fake: FakeTraining, dataset: Dataset, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        tune("mf", SEARCH, data=dataset.root, workdir=str(tmp_path / name), trials=3, seed=seed)
    one, other = fake.configs[:3], fake.configs[3:]
    assert one != other
    assert len({config.optimizer.learning_rate for config in fake.configs}) == 6


def test_a_trial_below_the_median_of_its_epoch_is_pruned(fake: FakeTraining, dataset: Dataset, tmp_path: Path) -> None:
    number = iter(range(6))
    # four trials of 0.5, then one that is worse from the first epoch on, then one that becomes worse at the third
    fake.curve = lambda _: [*[[0.5] * 3] * 4, [0.4, 0.9, 0.9], [0.6, 0.6, 0.1]][next(number)]
    tune("mf", SEARCH, data=dataset.root, workdir=str(tmp_path), trials=6)
    trials = trials_of(tmp_path)
    assert [trial["state"] for trial in trials] == ["complete"] * 4 + ["pruned", "complete"]
    assert trials[4]["validations"] == {"1": 0.4}
    assert json.loads((tmp_path / "best.json").read_text())["trial"] == 5


def test_trials_that_fail_are_recorded_and_the_others_continue(
    fake: FakeTraining, dataset: Dataset, tmp_path: Path
) -> None:
    def curve(config: RunConfig) -> list[float]:
        if config.model.dim == 16:
            raise ValueError("the loss is NaN")
        return [0.5]

    fake.curve = curve
    result = tune("mf", ["model.dim=16,32"], data=dataset.root, workdir=str(tmp_path), trials=6)
    assert result["trials"]["failed"] > 0
    for trial in trials_of(tmp_path):
        is_bad = trial["settings"]["model.dim"] == "16"
        assert (trial["state"], trial["problem"]) == (("failed", "the loss is NaN") if is_bad else ("complete", None))


def test_processes_share_the_trials(fake: FakeTraining, dataset: Dataset, tmp_path: Path) -> None:
    def slow(config: RunConfig) -> list[float]:
        time.sleep(0.2)
        return peak(config)

    fake.curve = slow
    # threads lock files as processes do
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(tune, "mf", SEARCH, data=dataset.root, workdir=str(tmp_path), trials=6, stop=StopRequest())
            for _ in range(2)
        ]
    for call in calls:
        call.result()
    assert len(fake.configs) == 6
    assert [trial["number"] for trial in trials_of(tmp_path)] == list(range(6))
    assert len({config.optimizer.learning_rate for config in fake.configs}) == 6


def test_a_job_runs_one_trial_of_a_database(fake: FakeTraining, dataset: Dataset, tmp_path: Path) -> None:
    settings = {"data": dataset.root, "trials": 3, "storage_url": f"sqlite:///{tmp_path}/trials.db"}
    for number in (2, 0, 0, 1):
        tune("mf", SEARCH, workdir=str(tmp_path / "search"), only=number, **settings)
    assert len(fake.configs) == 3
    assert [trial["state"] for trial in trials_of(tmp_path / "search")] == ["complete"] * 3


def test_another_search_and_an_invalid_workdir_or_trial_are_refused(
    fake: FakeTraining, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune("mf", SEARCH, data=dataset.root, workdir=str(tmp_path / "search"), trials=1)
    with pytest.raises(ValueError, match=r"differs from the requested one \(search: .*, now .*'model.dim=8,16'"):
        tune("mf", [SEARCH[0], "model.dim=8,16"], data=dataset.root, workdir=str(tmp_path / "search"), trials=1)
    with pytest.raises(ValueError, match="is in an object store, where processes can neither append to a file nor"):
        tune("mf", SEARCH, data=dataset.root, workdir="memory://search")
    with pytest.raises(ValueError, match=r"--trial must be from 0 to 2, as --trials is 3; got 3"):
        tune("mf", SEARCH, data=dataset.root, workdir=str(tmp_path / "other"), trials=3, only=3)
    unsplit = build_dataset(str(tmp_path / "dataset"), **{**checkerboard(), "validation": [], "test": []})
    with pytest.raises(ValueError, match="has no validation split to compare trials on"):
        tune("mf", SEARCH, data=unsplit.root, workdir=str(tmp_path / "other"))
    for url, message in (
        ("no-url", "--storage is not the URL of a database"),
        ("mysql://h/d", "needs a driver that is not installed: No module named"),
    ):
        with pytest.raises(ValueError, match=message):
            tune("mf", SEARCH, data=dataset.root, workdir=str(tmp_path / "other"), storage_url=url)
    monkeypatch.setattr(job, "join_cluster", object)
    with pytest.raises(ValueError, match="but TF_CONFIG describes several workers; unset TF_CONFIG"):
        tune("mf", SEARCH, data=dataset.root, workdir=str(tmp_path / "other"))


def test_a_search_trains_runs(dataset: Dataset, tmp_path: Path) -> None:
    result = tune("walk", ["model.num_neighbours=3..9"], data=dataset.root, workdir=str(tmp_path), trials=2)
    assert result["trials"]["complete"] == 2, "the combinations of a walk are not pruned"
    run = SearchLayout(str(tmp_path)).run(result["best"]["trial"])
    best = checkpoint.best_step(run)
    assert best is not None
    assert result["best"]["value"] == checkpoint.read_validations(run).values[best]
    assert result["best"]["metric"] == "ndcg@20"


def test_a_database_that_another_process_creates_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = ["unable to open database file", "table studies already exists", "table trials already exists"]

    def connect(url: str) -> str:
        if errors:
            raise OperationalError("CREATE TABLE", {}, Exception(errors.pop()))
        return url

    monkeypatch.setattr(job, "RDBStorage", connect)
    monkeypatch.setattr(job.time, "sleep", lambda _: None)
    with pytest.raises(OperationalError, match="unable to open"):
        job._open_database("sqlite:///a")
    assert job._open_database("sqlite:///a") == "sqlite:///a"


@pytest.mark.slow
def test_processes_share_a_database_and_replace_one_that_was_killed(
    fake: FakeTraining, dataset: Dataset, tmp_path: Path
) -> None:
    search, workdir = ["model.num_neighbours=3..9"], tmp_path / "search"
    fake.curve = lambda _: [0.5]
    tune("walk", search, data=dataset.root, workdir=str(tmp_path / "expected"), trials=4)
    command = ["tune", "--preset", "walk", "--data", dataset.root, "--workdir", str(workdir), "--search", *search]
    command += ["--trials", "4", "--storage", f"sqlite:///{tmp_path}/trials.db"]
    killed = start_to_be_killed("trainer.train.add_second_stage", command)  # after the epochs of its first trial
    other = start_command(command)
    finish(killed, -signal.SIGKILL)
    finish(other, 0)
    finish(start_command(command), 0)
    trials, expected = trials_of(workdir), trials_of(tmp_path / "expected")
    assert [trial["state"] for trial in trials] == ["complete"] * 4
    assert [(trial["number"], trial["settings"]) for trial in trials] == [
        (trial["number"], trial["settings"]) for trial in expected
    ]
    best = json.loads((workdir / "best.json").read_text())
    assert best["value"] == max(trial["value"] for trial in trials)
