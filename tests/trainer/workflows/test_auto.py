"""`--preset auto` is never worse in validation than the best baseline, stays within its budget, and can be resumed."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from contract.schema import Split
from tests.trainer.dataset_builder import Event, build_dataset, checkerboard
from tests.trainer.kills import kill_in
from tests.trainer.ranking.fakes import queries_of
from tests.trainer.tiny_runs import make_config, run
from trainer.config.presets import auto_trials
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.evaluate import evaluate
from trainer.evaluation.blend_weights import OutOfTimeError
from trainer.export import export
from trainer.models.trained_run import open_trained_run
from trainer.ranking.topk import visible_scores
from trainer.runs import checkpoint
from trainer.runs.blend_record import BlendRecord, BlendWeights
from trainer.runs.record import RunRecord, write_record
from trainer.workflows import auto
from trainer.workflows.auto import _best_model, _blend, train_auto
from trainer.workflows.refit import refit

DAY = 24 * 60 * 60 * 1000
SMALL = ["input.batch_size=256", "input.window_blocks=4"]


def random_shop() -> dict:
    """Builds a shop with visitors who view random items."""
    rng = np.random.default_rng(0)
    return shop_of(lambda _visitor, _position: int(rng.integers(40)))


def repeating_shop() -> dict:
    """Builds a shop in which each visitor alternates between two items; one in four has a new item for validation."""
    return shop_of(
        lambda visitor, position: (visitor * 7 + 11 * (position % 2) + 3 * (position == 6 and visitor % 4 == 0)) % 40
    )


def shop_of(choose) -> dict:
    """Builds a shop of 80 visitors with an event on each of 8 days; the last two are the validation and test window."""
    rows = [
        Event(f"v{visitor}", f"i{choose(visitor, position)}", "view", position * DAY + visitor)
        for position in range(8)
        for visitor in range(80)
    ]
    return {
        "train": rows[: 6 * 80],
        "validation": rows[6 * 80 : 7 * 80],
        "test": rows[7 * 80 :],
        "visitors": [f"v{visitor}" for visitor in range(80)],
        "items": [f"i{item}" for item in range(40)],
    }


@pytest.mark.slow
@pytest.mark.parametrize("shop", [random_shop, repeating_shop])
def test_it_is_never_below_the_best_baseline_in_validation(shop: Callable[[], dict], tmp_path: Path) -> None:
    build_dataset(str(tmp_path / "dataset"), **shop())
    train_auto(data=str(tmp_path / "dataset"), workdir=str(tmp_path / "run"), settings=SMALL)
    assert_not_below_baselines(tmp_path / "run")


def assert_not_below_baselines(workdir: Path) -> None:
    result = evaluate(workdir=str(workdir), split=Split.VALIDATION)
    assert list(result["protocols"]) == ["returning_visitors", "next_item"]
    for protocol in result["protocols"].values():
        ranking = protocol["rankings"][protocol["primary"]]
        assert ranking is not None, "the shop has cases in both protocols"
        values = {name: figures["ndcg@20"]["value"] for name, figures in ranking.items() if name != "random"}
        own = values.pop("auto")
        assert len(values) == 4
        assert own >= max(values.values()) - 1e-9, values


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(str(tmp_path_factory.mktemp("dataset")), **checkerboard())


@pytest.fixture(scope="module")
def finished(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed run of `auto` on the checkerboard."""
    workdir = tmp_path_factory.mktemp("finished")
    train_auto(data=dataset.root, workdir=str(workdir), settings=SMALL)
    return workdir


class StopAfterTrials(StopRequest):
    """Requests a stop once a number of trials is recorded."""

    def __init__(self, workdir: Path, count: int) -> None:
        self._file, self._count = workdir / "auto.json", count

    @property
    def is_requested(self) -> bool:  # type: ignore[override]
        return self._file.exists() and len(read_json(self._file)) >= self._count


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_small_budget_skips_all_models_but_the_first_one(dataset: Dataset, tmp_path: Path) -> None:
    result = train_auto(data=dataset.root, workdir=str(tmp_path), budget_seconds=0.001, settings=SMALL)
    states = [trial["state"] for trial in result["trials"]]
    # the first is trained in any case
    assert states == ["trained"] + ["skipped"] * (len(auto_trials()) - 1)
    assert result["trials"][1]["reason"] == "no time was left (0.0 of at least 5.0 s)"
    assert result["trials"][0]["case_seconds"] > 0
    run = open_trained_run(str(tmp_path))
    assert run.record.config.name == "auto"
    assert run.blend is not None
    assert run.blend.parts == ("parts/walk",)
    # its trend and its other weights are chosen nevertheless: each of the 60 visitors has one next item, which is new
    figures = run.blend.validation
    assert {name: each and each["cases"] for name, each in figures.items()} == {
        "new_items": 60,
        "returning": None,
        "in_session": 60,
    }


def test_a_finished_run_trains_nothing_with_a_larger_budget(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_auto(data=dataset.root, workdir=str(tmp_path), budget_seconds=0.001, settings=SMALL)
    monkeypatch.setattr(auto, "_run_trials", None)  # a call would fail
    with caplog.at_level(logging.INFO):
        second = train_auto(data=dataset.root, workdir=str(tmp_path), budget_seconds=1000, settings=SMALL)
    assert {**second, "seconds": 0} == {**first, "seconds": 0}
    assert f"{tmp_path} has a finished run; to try more with a larger --budget, give another --workdir" in caplog.text


def test_the_best_model_is_chosen_among_those_with_the_same_task(dataset: Dataset, tmp_path: Path) -> None:
    for name, value in {"walk": 0.2, "als": 0.3, "mf": 0.1, "nn": 0.9}.items():
        write_part(tmp_path, auto_trials()[name], value)
    # nn is validated on next items, and all others on returning visitors
    assert _best_model(str(tmp_path), ["walk", "als", "mf", "nn"], dataset) == "als"
    assert _best_model(str(tmp_path), ["nn"], dataset) == "nn"


def test_a_longer_history_of_an_earlier_call_can_be_the_best_model(dataset: Dataset, tmp_path: Path) -> None:
    # a later call may lack the time to choose the longer history again, so only the record has the settings
    write_part(tmp_path, auto_trials()["nn"], 0.3)
    write_part(tmp_path, replace(auto_trials()["nn"], name="nn_long"), 0.4)
    assert _best_model(str(tmp_path), ["nn", "nn_long"], dataset) == "nn_long"


def write_part(workdir: Path, config: RunConfig, value: float) -> None:
    """Writes the record and a validation of a trained model, without its checkpoint."""
    record = RunRecord(
        config=config,
        data="dataset",
        dataset_checksum="",
        training_rows=1,
        events={},
        mean_event_weight=1.0,
        commit=None,
        versions={},
    )
    part = workdir / "parts" / config.name
    part.mkdir(parents=True)
    write_record(record, str(part))
    checkpoint.record_validation(str(part), 1, value, metric="ndcg@20", is_higher_better=True)


def test_the_best_model_gets_a_trend_if_the_time_is_too_short_for_the_other_models(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"walk": 0.2, "session_knn": 0.3}.items():
        write_part(tmp_path, auto_trials()[name], value)
    calls = []

    def blend_late(workdir: str, parts: Sequence[str], *_: Any, is_forced: bool, **options: Any) -> BlendRecord:
        calls.append((list(parts), options["deadline"], is_forced))
        if not is_forced:
            raise OutOfTimeError("no time is left")
        weights = BlendWeights(parts=(1.0,), half_life_days=7.0)
        return BlendRecord(parts=tuple(parts), steps=(1,), weights={"new_items": weights}, validation={})

    monkeypatch.setattr("trainer.workflows.auto.blend_runs", blend_late)
    blend = _blend(str(tmp_path), ["walk", "session_knn"], auto_trials(), dataset, 5.0)
    best = "parts/session_knn"
    assert calls == [(["parts/walk", best], 5.0, False), ([best], 5.0, True)]
    assert blend.parts == (best,)
    assert (
        "the budget is too short to choose the weights of a blend (no time is left), so session_knn is" in caplog.text
    )
    # a single model is not tried twice
    _blend(str(tmp_path), ["walk"], auto_trials(), dataset, 5.0)
    assert calls[2:] == [(["parts/walk"], 5.0, True)]


@pytest.mark.slow
def test_the_third_shop_is_not_below_the_best_baseline_either(finished: Path) -> None:
    assert_not_below_baselines(finished)


@pytest.mark.slow
def test_a_run_stopped_once_and_killed_in_a_trial_and_in_its_blend_equals_an_undisturbed_one(
    dataset: Dataset, finished: Path, tmp_path: Path
) -> None:
    command = ["train", "--preset", "auto", "--data", dataset.root, "--workdir", str(tmp_path), "--set", *SMALL]
    kill_in("trainer.train.add_second_stage", command)  # after the epochs of the first trial
    assert not (tmp_path / "auto.json").exists()
    with pytest.raises(Preempted):
        train_auto(data=dataset.root, workdir=str(tmp_path), settings=SMALL, stop=StopAfterTrials(tmp_path, 2))
    before = read_json(tmp_path / "auto.json")
    assert len(before) == 2
    kill_in("trainer.evaluation.blending.write_blend", command)
    assert not (tmp_path / "blend.json").exists()
    result = train_auto(data=dataset.root, workdir=str(tmp_path), settings=SMALL)
    assert result["trials"][:2] == before
    trials, expected = read_json(tmp_path / "auto.json"), read_json(finished / "auto.json")
    assert [(trial["name"], trial["state"]) for trial in trials] == [(name, "trained") for name in auto_trials()]
    assert [(trial["name"], trial["state"]) for trial in expected] == [(name, "trained") for name in auto_trials()]
    assert read_json(tmp_path / "blend.json") == read_json(finished / "blend.json")


@pytest.mark.slow
def test_an_export_scores_as_measured(dataset: Dataset, finished: Path, tmp_path: Path) -> None:
    export(workdir=str(finished), output=str(tmp_path / "export"))
    histories, hides_seen = [[4, 2], [4, 2]], [True, False]
    answer = tf.saved_model.load(str(tmp_path / "export")).signatures["recommend"](
        visitor_id=tf.constant(["new", "new"]),
        history=tf.constant([[f"i{item}" for item in row] for row in histories]),
        k=tf.constant([dataset.num_items] * 2),
        exclude_seen=tf.constant(hides_seen),
    )
    queries = queries_of([dataset.num_visitors] * 2, histories)
    model = open_trained_run(str(finished)).model
    for row, is_hidden in enumerate(hides_seen):
        count = dataset.num_items - 2 * is_hidden
        items = [int(name.decode().removeprefix("i")) for name in answer["item_id"].numpy()[row, :count]]
        assert len(set(items)) == count
        measured = visible_scores(model, queries, is_hidden).numpy()[row]
        np.testing.assert_allclose(answer["score"].numpy()[row, :count], measured[items], rtol=1e-4)


@pytest.mark.slow
def test_a_refit_trains_the_models_of_the_blend_on_all_events(dataset: Dataset, finished: Path, tmp_path: Path) -> None:
    result = refit(str(finished), workdir=str(tmp_path))
    assert (result["name"], result["refit_of"]["run"]) == ("auto", str(finished))
    before, after = read_json(finished / "blend.json"), read_json(tmp_path / "blend.json")
    assert (after["parts"], after["weights"]) == (before["parts"], before["weights"])
    opened = open_trained_run(str(tmp_path))
    assert opened.dataset.item_counts.sum() == 60 * 8  # 6 events of each visitor for training, 2 held out
    assert len(opened.checkpoints) == len(before["parts"])


def test_ease_is_tried_only_if_visitors_have_dozens_of_events() -> None:
    assert list(auto_trials()) == ["walk", "session_knn", "als", "mf", "nn"]
    assert list(auto_trials(is_dense=True)) == ["walk", "session_knn", "ease", "als", "mf", "nn"]


def test_a_setting_that_a_model_lacks_is_refused() -> None:
    message = (
        r"auto applies all settings to all its models, but walk, session_knn cannot use seed=1, model.dim=8; train"
    )
    with pytest.raises(ValueError, match=message):
        auto_trials(["seed=1", "model.dim=8"])


def test_a_setting_that_no_model_has_is_an_error_with_the_right_name() -> None:
    with pytest.raises(ValueError, match=r"^unknown setting `epoch`; did you mean `epochs`\?$"):
        auto_trials(["epoch=3"])


def test_the_run_of_another_preset_is_not_replaced(dataset: Dataset, tmp_path: Path) -> None:
    run(make_config("walk"), dataset, tmp_path)
    with pytest.raises(ValueError, match="has a run of the preset walk; use another --workdir for --preset auto"):
        train_auto(data=dataset.root, workdir=str(tmp_path))


def test_models_of_another_dataset_are_not_blended(dataset: Dataset, tmp_path: Path) -> None:
    write_part(tmp_path, auto_trials()["als"], 0.3)  # with the checksum of no dataset
    with pytest.raises(ValueError, match=r"were trained on the dataset dataset \(checksum .*give the original dataset"):
        train_auto(data=dataset.root, workdir=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
