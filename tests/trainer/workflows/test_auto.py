"""`--preset auto` is never worse in validation than the best baseline, stays within its budget, and can be resumed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from contract.schema import Split
from tests.trainer.dataset_builder import Event, build_dataset, checkerboard
from tests.trainer.tiny_runs import make_config, run
from trainer.config.presets import auto_trials
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.evaluate import evaluate
from trainer.models.trained_run import open_trained_run
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.runs.metrics_log import VALIDATION_RATE
from trainer.workflows.auto import Trial, _best_model, _blend_seconds, _case_seconds, train_auto

DAY = 24 * 60 * 60 * 1000
SMALL = ["input.batch_size=256", "input.window_blocks=4"]


def random_shop() -> dict:
    """Builds a shop with visitors who view random items."""
    rng = np.random.default_rng(0)
    return shop_of(lambda _visitor, _position: int(rng.integers(40)))


def repeating_shop() -> dict:
    """Builds a shop in which each visitor alternates between two items."""
    return shop_of(lambda visitor, position: (visitor * 7 + 11 * (position % 2)) % 40)


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
    for protocol in result["protocols"].values():
        ranking = protocol["rankings"][protocol["primary"]] or {"auto": {"ndcg@20": {"value": 0.0}}}  # no cases
        values = {name: figures["ndcg@20"]["value"] for name, figures in ranking.items()}
        own = values.pop("auto")
        assert own >= max((value for name, value in values.items() if name != "random"), default=0.0) - 1e-9, values


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(str(tmp_path_factory.mktemp("dataset")), **checkerboard())


class StopAfterTrials(StopRequest):
    """Requests a stop once a number of trials is recorded."""

    def __init__(self, workdir: Path, count: int) -> None:
        self._file, self._count = workdir / "auto.json", count

    @property
    def is_requested(self) -> bool:  # type: ignore[override]
        return self._file.exists() and len(json.loads(self._file.read_text())) >= self._count


def test_a_small_budget_skips_trials_and_the_blend_and_says_so(
    dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = train_auto(data=dataset.root, workdir=str(tmp_path), budget_seconds=0.001, settings=SMALL)
    states = [trial["state"] for trial in result["trials"]]
    # the first is trained in any case
    assert states == ["trained"] + ["skipped"] * (len(auto_trials()) - 1)
    assert result["trials"][1]["reason"] == "no time was left"
    assert result["trials"][0]["case_seconds"] > 0
    run = open_trained_run(str(tmp_path))
    assert run.record.config.name == "auto"
    assert run.blend is not None
    assert run.blend.parts == ("parts/walk",)
    assert {weights.to_array().tolist() == [1.0] + [0.0] * 6 for weights in run.blend.weights.values()} == {True}
    assert "the budget is too short to choose the weights of a blend (no time is left), so walk is used" in caplog.text


def test_the_time_of_a_blend_is_predicted_from_the_validations_of_its_models() -> None:
    trials = [
        Trial(name=name, state="trained", seconds=9, case_seconds=each) for name, each in (("a", 0.01), ("b", 0.02))
    ]
    # 10 s to start; for each case, 2 ms for the weights, 30 ms for both models, and 20 ms for the next one
    assert _blend_seconds(trials, 1000) == pytest.approx(10 + 2 + 30 + 20)
    assert _blend_seconds([], 1000) == pytest.approx(10 + 2)
    # a stopped model without a validation is as slow as the slowest one; a failed model is not blended
    trials += [Trial(name="c", state="stopped", seconds=9), Trial(name="d", state="failed", seconds=9)]
    assert _blend_seconds(trials, 1000) == pytest.approx(10 + 2 + 30 + 20 + 20)


def test_a_validation_that_took_minutes_for_a_case_does_not_end_the_run(tmp_path: Path) -> None:
    metrics = Path(RunLayout(str(tmp_path)).metrics)
    metrics.write_text(f'{{"step": 1, "{VALIDATION_RATE}": 0.0}}\n')
    assert _case_seconds(str(tmp_path)) == 0.0
    metrics.write_text(f'{{"step": 1, "{VALIDATION_RATE}": 0.004}}\n')
    assert _case_seconds(str(tmp_path)) == pytest.approx(250)


def test_the_best_model_is_chosen_among_those_with_the_same_task(dataset: Dataset, tmp_path: Path) -> None:
    for name, value in {"walk": 0.2, "als": 0.3, "mf": 0.1, "nn": 0.9}.items():
        checkpoint.record_validation(str(tmp_path / "parts" / name), 1, value, metric="ndcg@20", is_higher_better=True)
    # nn is validated on next items, and all others on returning visitors
    assert _best_model(str(tmp_path), ["walk", "als", "mf", "nn"], auto_trials(), dataset) == "als"
    assert _best_model(str(tmp_path), ["nn"], auto_trials(), dataset) == "nn"


@pytest.mark.slow
def test_a_killed_search_resumes_and_is_not_below_the_best_baseline_either(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        train_auto(data=dataset.root, workdir=str(tmp_path), settings=SMALL, stop=StopAfterTrials(tmp_path, 2))
    before = json.loads((tmp_path / "auto.json").read_text())
    result = train_auto(data=dataset.root, workdir=str(tmp_path), settings=SMALL)
    assert result["trials"][:2] == before
    assert len(result["trials"]) == len(auto_trials())
    assert_not_below_baselines(tmp_path)


def test_ease_is_tried_only_if_visitors_have_dozens_of_events() -> None:
    assert list(auto_trials()) == ["walk", "session_knn", "als", "mf", "nn"]
    assert list(auto_trials(is_dense=True)) == ["walk", "session_knn", "ease", "als", "mf", "nn"]


def test_a_setting_that_a_model_lacks_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"preset auto applies each setting to all its models, and walk does not accept it"
    ):
        auto_trials(["model.dim=8"])


def test_the_run_of_another_preset_is_not_replaced(dataset: Dataset, tmp_path: Path) -> None:
    run(make_config("walk"), dataset, tmp_path)
    with pytest.raises(ValueError, match="has a run of the preset walk; use another --workdir for --preset auto"):
        train_auto(data=dataset.root, workdir=str(tmp_path))
