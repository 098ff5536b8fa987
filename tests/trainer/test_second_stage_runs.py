"""Whole runs with a second stage are interrupted and resumed, use other numbers of replicas, and are exported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from contract.schema import DEFAULT_KINDS, Split, Vocabulary
from tests.trainer.kills import kill_in
from tests.trainer.tiny_runs import SHORT, FinishedRuns, assert_same, checkerboard_dataset, make_config, run
from trainer.config.models import TowersConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.distributed.replicas import start_replicas
from trainer.evaluation.cases import build_cases, next_items
from trainer.export import export
from trainer.models.second_stage import RerankedTowers
from trainer.models.second_stage_file import SecondStageRecord, read_record_of_stage
from trainer.models.towers import TowersInference
from trainer.models.trained_run import open_trained_run
from trainer.ranking.topk import query_chunks, query_signature
from trainer.runs.layout import RunLayout
from trainer.train import train
from trainer.training import second_stage
from trainer.training.second_stage import add_second_stage, training_cases
from trainer.workflows.refit import refit

SETTINGS = ("model.second_stage_min_cases=10", "optimizer.initial_accumulator=0.01")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FinishedRuns:
    return FinishedRuns(dataset, tmp_path_factory.mktemp("finished"))


def stage_config(*settings: str) -> RunConfig:
    return make_config("nn", *SETTINGS, *settings)


def record_of(workdir: Path) -> SecondStageRecord:
    record = read_record_of_stage(str(workdir))
    assert record is not None
    return record


def write_comparison(workdir: Path, *, towers: float, second_stage: float) -> None:
    """Overwrites the recorded metrics of a run's towers and second stage."""
    path = Path(RunLayout(str(workdir)).second_stage)
    path.write_text(json.dumps({**json.loads(path.read_text()), "towers": towers, "second_stage": second_stage}))


@pytest.fixture
def copied_run(finished: FinishedRuns, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished(stage_config())[0], tmp_path / "run"))


def test_a_run_killed_in_its_second_stage_resumes_to_the_same_weights(
    dataset: Dataset, finished: FinishedRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, result = finished(stage_config())
    workdir = Path(shutil.copytree(whole, tmp_path / "run"))
    for path in (RunLayout(str(workdir)).second_stage, RunLayout(str(workdir)).second_stage_arrays):
        Path(path).unlink()
    stop, count_facts = StopRequest(), second_stage.count_facts

    def stop_then_count(*args):
        stop.request()
        return count_facts(*args)

    monkeypatch.setattr("trainer.training.second_stage.count_facts", stop_then_count)
    with pytest.raises(Preempted, match="run the same command again"):
        train(stage_config(), data=dataset.root, workdir=str(workdir), stop=stop)
    assert read_record_of_stage(str(workdir)) is None
    monkeypatch.undo()
    resumed = run(stage_config(), dataset, workdir)
    assert record_of(workdir) == record_of(whole)  # the checksum too
    assert resumed["second_stage"] is not None
    assert resumed["second_stage"] == result["second_stage"]
    assert_same(whole, workdir)


@pytest.mark.slow
def test_sigkill_in_the_second_stage_changes_nothing_either(
    dataset: Dataset, finished: FinishedRuns, copied_run: Path
) -> None:
    for path in (RunLayout(str(copied_run)).second_stage, RunLayout(str(copied_run)).second_stage_arrays):
        Path(path).unlink()
    changes = [*SHORT, "model.dim=8", "model.visitor_min_events=6", "blend=false", *SETTINGS]
    command = ["train", "--preset", "nn", "--data", dataset.root, "--workdir", str(copied_run), "--set", *changes]
    kill_in("trainer.training.second_stage.fit_layers", command)
    assert read_record_of_stage(str(copied_run)) is None
    run(stage_config(), dataset, copied_run)
    whole, _ = finished(stage_config())
    assert record_of(copied_run) == record_of(whole)  # the checksum too


def test_a_complete_run_does_not_train_its_second_stage_again(
    dataset: Dataset, finished: FinishedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, result = finished(stage_config())
    monkeypatch.delattr("trainer.training.second_stage.train_stage")
    assert run(stage_config(), dataset, whole)["second_stage"] == result["second_stage"]


@pytest.mark.slow
@pytest.mark.same_numbers
@pytest.mark.parametrize("devices", [2, 4])
def test_any_number_of_replicas_gives_the_same_second_stage(
    devices: int, dataset: Dataset, finished: FinishedRuns, tmp_path: Path
) -> None:
    expected, _ = finished(stage_config())
    run(stage_config(f"devices={devices}"), dataset, tmp_path)
    one, other = record_of(expected), record_of(tmp_path)
    assert (other.step, other.cases) == (one.step, one.cases)
    assert other.towers == pytest.approx(one.towers, abs=1e-3)
    assert other.second_stage == pytest.approx(one.second_stage, abs=1e-3)
    with np.load(RunLayout(str(expected)).second_stage_arrays) as first:
        second = np.load(RunLayout(str(tmp_path)).second_stage_arrays)
        for name in first.files:
            assert np.linalg.norm(second[name] - first[name]) <= 1e-3 * np.linalg.norm(first[name]), name


def test_a_run_ranks_by_its_towers_unless_the_second_stage_ranks_better(copied_run: Path) -> None:
    write_comparison(copied_run, towers=0.4, second_stage=0.4)
    assert isinstance(open_trained_run(str(copied_run)).model, TowersInference)
    write_comparison(copied_run, towers=0.4, second_stage=0.5)
    assert isinstance(open_trained_run(str(copied_run)).model, RerankedTowers)


def test_a_damaged_second_stage_is_an_error(copied_run: Path) -> None:
    write_comparison(copied_run, towers=0.4, second_stage=0.5)
    with open(RunLayout(str(copied_run)).second_stage_arrays, "ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"second_stage.npz is damaged; remove .*second_stage.json and run `train`"):
        open_trained_run(str(copied_run))


@pytest.mark.slow
def test_a_refit_keeps_the_second_stage(copied_run: Path, tmp_path: Path) -> None:
    write_comparison(copied_run, towers=0.4, second_stage=0.5)
    refit(str(copied_run), workdir=str(tmp_path / "refit"))
    before, after = record_of(copied_run), record_of(tmp_path / "refit")
    assert after == replace(before, step=after.step)
    assert isinstance(open_trained_run(str(tmp_path / "refit")).model, RerankedTowers)


def test_too_few_cases_or_none_give_no_second_stage(dataset: Dataset) -> None:
    few = stage_config("model.second_stage_min_cases=1000").model
    assert isinstance(few, TowersConfig)
    assert training_cases(few, (), dataset) is None
    off = stage_config("model.second_stage_cases=0")
    assert add_second_stage("no such run", off, dataset, start_replicas(1, None), lambda: None) is None


def test_an_export_with_a_second_stage_scores_as_measured(dataset: Dataset, copied_run: Path, tmp_path: Path) -> None:
    write_comparison(copied_run, towers=0.4, second_stage=0.5)
    export(workdir=str(copied_run), output=str(tmp_path / "export"))
    served = tf.saved_model.load(str(tmp_path / "export")).signatures["recommend_events"]
    model = open_trained_run(str(copied_run)).model
    cases = build_cases(dataset, Split.TEST, next_items)
    ((_, queries),) = query_chunks(cases.visitor, cases.history, cases.timestamp_ms, len(cases))
    expected = tf.function(model.catalogue_scores, input_signature=[query_signature(None)])(queries)
    is_entry = np.arange(queries.history.shape[1]) < queries.history_length.numpy()[:, None]
    items, kinds = np.array(dataset.vocabulary(Vocabulary.ITEMS)), np.array(DEFAULT_KINDS)
    answer = served(
        visitor_id=tf.constant([f"v{visitor}" for visitor in cases.visitor]),
        history=tf.constant(np.where(is_entry, items[queries.history], "")),
        history_event=tf.constant(np.where(is_entry, kinds[queries.history_event], "")),
        history_age_ms=queries.timestamp_ms[:, None] - queries.history_timestamp_ms,
        k=tf.constant([dataset.num_items]),
        exclude_seen=tf.constant([False]),
    )
    index = {name: number for number, name in enumerate(items)}
    ranked = np.array([[index[name.decode()] for name in row] for row in answer["item_id"].numpy()])
    np.testing.assert_array_equal(answer["score"], tf.gather(expected, ranked, batch_dims=1))
