"""A refit trains on all events with the settings and epochs of its run, and its card shows the run's evaluation."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from contract.schema import Split, SplitMethod
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.trainer.tiny_runs import (
    StopAfter,
    assert_same,
    checkerboard_dataset,
    make_config,
    run,
    same_parity_share,
)
from trainer.config.models import WalkConfig
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted
from trainer.evaluate import evaluate
from trainer.export import describe_run as write_card
from trainer.models.trained_run import open_trained_run
from trainer.pages.report import write_report
from trainer.runs import checkpoint
from trainer.runs.blend_record import RANKINGS, BlendRecord, BlendWeights, write_blend
from trainer.runs.layout import RunLayout
from trainer.runs.record import read_record, write_record
from trainer.train import train
from trainer.workflows.refit import best_settings, refit

ALS = ("solver=als", "als.unobserved_weight=0.1", "model.dim=2", "epochs=8")
EVENTS = 60 * 8
"""60 visitors have 6 events for training, one for validation and one for testing."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of mf that was best after the first of two epochs, and its evaluation on the test split."""
    workdir = tmp_path_factory.mktemp("finished")
    run(make_config("mf"), dataset, workdir)
    path = Path(RunLayout(str(workdir)).checkpoints, "validations.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "values": {6: 0.5, 12: 0.25}}))
    evaluate(workdir=str(workdir))
    return workdir


@pytest.fixture(scope="module")
def refitted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("refitted")
    refit(str(finished), workdir=str(workdir))
    return workdir


def test_a_refit_trains_the_best_epochs_on_all_events_without_validation(finished: Path, refitted: Path) -> None:
    record, original = read_record(str(refitted)), read_record(str(finished))
    assert (record.training_rows, sum(record.events.values())) == (EVENTS, EVENTS)
    assert record.config == replace(original.config, epochs=1, patience=None)
    assert checkpoint.last_step(str(refitted)) == 8  # 480 rows in batches of 64
    assert checkpoint.read_validations(str(refitted)).values == {}
    assert record.refit_of is not None
    assert (record.refit_of["run"], record.refit_of["best_validation"]) == (str(finished), 0.5)
    opened = open_trained_run(str(refitted))
    assert opened.dataset.item_counts.sum() == EVENTS
    assert opened.model._visitor_items.sum() == EVENTS  # type: ignore[attr-defined]


def test_the_card_and_the_report_of_a_refit_name_the_evaluation(finished: Path, refitted: Path) -> None:
    figures = json.loads(Path(RunLayout(str(finished)).evaluation(Split.TEST)).read_text())
    value = figures["protocols"]["returning_visitors"]["rankings"]["seen_hidden"]["mf"]["ndcg@20"]["value"]
    card = write_card(str(refitted), open_trained_run(str(refitted)))
    sentence = f"NDCG@20 {value:.4f} on its test split (returning visitors)"
    report = Path(write_report(str(refitted))).read_text()
    for text in (card, report):
        assert f"refit of {finished}" in text
        assert sentence in text
    assert "### Returning visitors (test)" in card, "the tables of the run's evaluation"
    assert "the model was trained on all splits" in card


@pytest.mark.parametrize(
    ("preset", "settings"), [("mf", ALS), ("walk", ()), pytest.param("nn", (), marks=pytest.mark.slow)]
)
def test_every_solver_is_refitted(preset: str, settings: tuple[str, ...], dataset: Dataset, tmp_path: Path) -> None:
    run(make_config(preset, *settings), dataset, tmp_path / "run")
    best = checkpoint.choose_step(str(tmp_path / "run"))
    result = refit(str(tmp_path / "run"), workdir=str(tmp_path / "refit"))
    assert result["refit_of"]["step"] == best
    assert result["training_rows"] == EVENTS - (60 if preset == "nn" else 0)
    assert same_parity_share(dataset, tmp_path / "refit") > 0.9


def test_the_walk_keeps_its_best_powers() -> None:
    config = make_config("walk")
    best = best_settings(config, 2)
    assert isinstance(config.model, WalkConfig)
    assert isinstance(best.model, WalkConfig)
    assert best.model.combinations == [config.model.combinations[1]]


def test_an_interrupted_refit_resumes_without_the_run(finished: Path, refitted: Path, tmp_path: Path) -> None:
    settings = ["steps_per_execution=2"]
    with pytest.raises(Preempted):
        refit(str(finished), workdir=str(tmp_path), settings=settings, stop=StopAfter(2))
    moved = finished.rename(finished.with_name("moved"))
    try:
        refit(str(finished), workdir=str(tmp_path), settings=settings)
    finally:
        moved.rename(finished)
    assert_same(refitted, tmp_path)


def test_runs_that_cannot_be_refitted_are_refused(finished: Path, refitted: Path, tmp_path: Path) -> None:
    workdir, record = str(tmp_path / "refit"), read_record(str(finished))
    with pytest.raises(ValueError, match=r"has no run \(no run.json\)"):
        refit(str(tmp_path / "none"), workdir=workdir)
    write_record(record, str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="has no intact checkpoint; run its `train` command again"):
        refit(str(tmp_path / "empty"), workdir=workdir)
    with pytest.raises(ValueError, match=f"is itself a refit; refit its original run, {finished}"):
        refit(str(refitted), workdir=workdir)
    other = build_dataset(str(tmp_path / "other"), **checkerboard(seed=1))
    with pytest.raises(
        ValueError, match=r"was trained on the dataset .* \(checksum [0-9a-f]{12}…\), but .*; give the original dataset"
    ):
        refit(str(finished), workdir=workdir, data=other.root)
    with pytest.raises(
        ValueError, match=r"a refit has the settings of the original run, but --set changes model.dim=4"
    ):
        refit(str(finished), workdir=workdir, settings=["model.dim=4"])
    damaged = Path(RunLayout(str(finished)).evaluation(Split.VALIDATION))
    damaged.write_text("{}")
    with pytest.raises(ValueError, match=f"{damaged.name} is damaged .*; evaluate the run again, or remove the file"):
        refit(str(finished), workdir=workdir)
    damaged.unlink()
    assert not Path(workdir).exists()


def test_a_workdir_with_another_run_is_refused(finished: Path, refitted: Path, dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=f"has a refit of {finished}, not a refit of other"):
        refit("other", workdir=str(refitted))
    with pytest.raises(ValueError, match="has a run that is not a refit, not a refit of other"):
        refit("other", workdir=str(finished))
    with pytest.raises(ValueError, match=f"refit of: {finished}, now None"):
        train(read_record(str(refitted)).config, data=dataset.root, workdir=str(refitted))


def test_a_refit_cannot_be_evaluated(finished: Path, refitted: Path) -> None:
    with pytest.raises(ValueError, match=f"no events are left to evaluate it on; evaluate {finished}"):
        evaluate(workdir=str(refitted))


def test_a_dataset_without_held_out_splits_may_be_another_one(finished: Path, tmp_path: Path) -> None:
    board = checkerboard(num_visitors=30)
    events = [event for name in ("train", "validation", "test") for event in board[name]]
    later = build_dataset(
        str(tmp_path / "later"),
        train=events,
        visitors=board["visitors"],
        items=board["items"],
        split_method=SplitMethod.NONE,
    )
    result = refit(str(finished), workdir=str(tmp_path / "refit"), data=later.root)
    assert (result["training_rows"], read_record(str(tmp_path / "refit")).dataset_checksum) == (30 * 8, later.checksum)
    write_record(replace(read_record(str(finished)), dataset_checksum=later.checksum), str(tmp_path / "run"))
    with pytest.raises(ValueError, match="which has no held-out split; there is no need to refit"):
        refit(str(tmp_path / "run"), workdir=str(tmp_path / "needless"), data=later.root)


def test_the_refit_of_a_blend_does_not_replace_another_run(finished: Path, tmp_path: Path) -> None:
    blend, other = tmp_path / "blend", tmp_path / "other"
    weights = {ranking: BlendWeights(parts=(1.0,), half_life_days=7.0) for ranking in RANKINGS}
    write_blend(BlendRecord(parts=("parts/walk",), steps=(1,), weights=weights, validation={}), str(blend))
    write_record(read_record(str(finished)), str(other))
    with pytest.raises(ValueError, match=r"has a run that is not a refit, not a refit of .*give another --workdir"):
        refit(str(blend), workdir=str(other))
    assert [path.name for path in other.iterdir()] == ["run.json"]
