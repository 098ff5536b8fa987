"""`--preset auto` tries a longer history for `nn` if a quarter of the validation cases have one and time is left."""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.trainer.dataset_builder import Event, build_dataset
from tests.trainer.workflows.fakes import FakeTraining
from trainer.config.models import TowersConfig
from trainer.config.presets import auto_trials
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.workflows.auto import _run_trials
from trainer.workflows.budget import Budget
from trainer.workflows.longer_histories import longer_history, slowdown
from trainer.workflows.trials import Trial, TrialRunner

NN = auto_trials()["nn"]
ORDINARY = ["walk", "session_knn", "als", "mf", "nn"]
SECONDS = dict.fromkeys([*ORDINARY, "nn_long"], 20.0)


def shop_of(root: Path, lengths: Sequence[int]) -> Dataset:
    """Builds a shop in which each visitor has a number of training events, and then one validation event."""
    train = [
        Event(f"v{visitor}", f"i{number % 3}", "view", number)
        for visitor, length in enumerate(lengths)
        for number in range(length)
    ]
    validation = [Event(f"v{visitor}", "i0", "view", 1000) for visitor in range(len(lengths))]
    visitors, items = [f"v{visitor}" for visitor in range(len(lengths))], ["i0", "i1", "i2"]
    return build_dataset(str(root), train=train, validation=validation, visitors=visitors, items=items)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([3] * 3 + [25], 25),  # one case of four has 25 events
        ([3] * 4 + [25], None),  # one of five is less than a quarter
        ([3] * 3 + [100, 30], 30),  # two of five have 30
        ([3] * 3 + [100], 40),  # at most four times the usual 10
        ([3] * 3 + [20], 20),
        ([3] * 3 + [19], None),  # less than twice the usual 10
    ],
)
def test_the_longer_history_is_one_that_a_quarter_of_the_cases_have(
    tmp_path: Path, lengths: Sequence[int], expected: int | None
) -> None:
    found = longer_history(NN, shop_of(tmp_path, lengths))
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.name, found.history_length) == ("nn_long", expected)


def test_three_times_the_history_takes_twice_the_time(tmp_path: Path) -> None:
    longer = longer_history(NN, shop_of(tmp_path, [3] * 3 + [30]))
    assert longer is not None
    assert slowdown(NN, longer) == 2


def test_without_validation_cases_no_longer_history_is_tried(tmp_path: Path) -> None:
    events = [("v0", f"i{number % 3}", "view", number) for number in range(30)]
    shop = {"train": events, "visitors": ["v0"], "items": ["i0", "i1", "i2"]}
    assert longer_history(NN, build_dataset(str(tmp_path / "a"), **shop)) is None
    newcomer = build_dataset(str(tmp_path / "b"), **shop, validation=[("v1", "i0", "view", 99)])
    assert longer_history(NN, newcomer) is None


def run_trials(
    dataset: Dataset, workdir: Path, training: FakeTraining, budget_seconds: float, request: StopRequest | None = None
) -> list[Trial]:
    training.now = 5.0
    runner = TrialRunner(str(workdir), dataset.root)
    budget = Budget.of_call(budget_seconds, 0.0, runner.trials, dataset)
    _run_trials(runner, auto_trials(), dataset, budget, request or StopRequest())
    return runner.trials


def test_long_histories_are_tried_after_all_other_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = FakeTraining(monkeypatch, SECONDS)
    dataset = shop_of(tmp_path / "dataset", [3] * 3 + [25])
    trials = run_trials(dataset, tmp_path / "run", training, 600)
    assert [(trial.name, trial.state) for trial in trials] == [(name, "trained") for name in [*ORDINARY, "nn_long"]]
    usual, longer = training.configs[-2:]
    assert isinstance(usual.model, TowersConfig)
    assert isinstance(longer.model, TowersConfig)
    assert (usual.model.history_length, longer.model.history_length) == (10, 25)
    # a repeated call reads the results, and trains nothing
    assert run_trials(dataset, tmp_path / "run", training, 600) == trials
    assert len(training.configs) == len(trials)


def test_a_longer_history_that_ended_the_process_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = shop_of(tmp_path / "dataset", [3] * 3 + [25])
    for name in ("nn", "nn_long"):
        (tmp_path / name).mkdir()
    # the files that a kill in the training of nn, and in that of nn_long, would leave
    training = FakeTraining(monkeypatch, SECONDS)
    training.during = {name: partial(copy_results, tmp_path / "run", tmp_path / name) for name in ("nn", "nn_long")}
    run_trials(dataset, tmp_path / "run", training, 600)
    training.during, training.configs = {}, []
    trials = run_trials(dataset, tmp_path / "nn_long", training, 600)
    assert training.configs == []
    assert (trials[-1].name, trials[-1].state) == ("nn_long", "failed")
    assert trials[-1].reason == "the process was killed, perhaps for lack of memory"
    # the usual trials are resumed
    run_trials(dataset, tmp_path / "nn", training, 600)
    assert [config.name for config in training.configs] == ["nn", "nn_long"]


def copy_results(source: Path, target: Path) -> None:
    shutil.copy(source / "auto.json", target / "auto.json")


def test_a_longer_history_is_resumed_after_a_requested_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, request = shop_of(tmp_path / "dataset", [3] * 3 + [25]), StopRequest()

    def stop() -> None:
        request.request()
        raise Preempted

    training = FakeTraining(monkeypatch, SECONDS, during={"nn_long": stop})
    with pytest.raises(Preempted):
        run_trials(dataset, tmp_path / "run", training, 600, request)
    training.during, training.configs = {}, []
    trials = run_trials(dataset, tmp_path / "run", training, 600)
    assert [config.name for config in training.configs] == ["nn_long"]
    assert (trials[-1].name, trials[-1].state) == ("nn_long", "trained")


def test_short_histories_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = FakeTraining(monkeypatch, SECONDS)
    trials = run_trials(shop_of(tmp_path / "dataset", [3] * 10), tmp_path / "run", training, 600)
    assert [trial.name for trial in trials] == ORDINARY


def test_a_longer_history_is_skipped_if_the_time_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = FakeTraining(monkeypatch, SECONDS)
    trials = run_trials(shop_of(tmp_path / "dataset", [3] * 3 + [25]), tmp_path / "run", training, 150)
    # of 150 s, 5 s + 5 * 20 s have passed; 1 s is for the report, 10 s + 12 cases * 2 ms for the blend; 95% of the
    # remaining 33.98 s are 32.3 s; the usual history took 20 s, and 2.5 times its length takes 1.75 times as long
    assert (trials[-1].name, trials[-1].state) == ("nn_long", "skipped")
    assert trials[-1].reason == "no time was left (32.3 of at least 35.0 s)"


def test_the_validation_cases_are_not_read_if_no_time_is_left_for_any_longer_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.workflows.longer_histories.build_cases", refuse)
    training = FakeTraining(monkeypatch, SECONDS)
    # as above, but 95% of 28.98 s are 27.5 s, and twice the usual history takes 1.5 * 20 s
    trials = run_trials(shop_of(tmp_path / "dataset", [3] * 3 + [25]), tmp_path / "run", training, 145)
    assert [(trial.name, trial.state) for trial in trials] == [(name, "trained") for name in ORDINARY]


def test_a_longer_history_needs_the_time_of_any_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.workflows.longer_histories.build_cases", refuse)
    training = FakeTraining(monkeypatch, {**SECONDS, "walk": 98.0, "nn": 2.0})
    # 5 s + 160 s of 180 s have passed, and 95% of the remaining 3.98 s suffice for 1.5 * 2 s, but not for 5 s
    trials = run_trials(shop_of(tmp_path / "dataset", [3] * 3 + [25]), tmp_path / "run", training, 180)
    assert [(trial.name, trial.state) for trial in trials] == [(name, "trained") for name in ORDINARY]


def test_no_longer_history_is_tried_if_the_usual_one_was_not_trained_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = FakeTraining(monkeypatch, SECONDS, stopped=["nn"])
    monkeypatch.setattr("trainer.workflows.longer_histories.build_cases", refuse)
    trials = run_trials(shop_of(tmp_path / "dataset", [3] * 3 + [25]), tmp_path / "run", training, 600)
    assert [trial.name for trial in trials] == ORDINARY
    assert trials[-1].state == "skipped"


def refuse(*_: object) -> None:
    raise AssertionError("the validation cases must not be read")
