"""The budget of `--preset auto` counts from the start of the command, and includes the blend and the report."""

from pathlib import Path

import pytest

from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.trainer.workflows.fakes import FakeTraining
from trainer.config.presets import auto_trials
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import StopRequest
from trainer.runs.layout import RunLayout
from trainer.runs.metrics_log import VALIDATION_RATE
from trainer.workflows.auto import _run_trials
from trainer.workflows.budget import Budget
from trainer.workflows.trials import Trial, TrialRunner, case_seconds

WALK = Trial(name="walk", state="trained", seconds=20.0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(str(tmp_path_factory.mktemp("dataset")), **checkerboard())


def make_budget(*, num_cases: int = 0, start_seconds: float = 5.0) -> Budget:
    return Budget(seconds=600.0, start_seconds=start_seconds, deadline=600.0, num_cases=num_cases)


def test_the_time_of_a_blend_is_predicted_from_the_validations_of_its_models() -> None:
    budget = make_budget(num_cases=1000)
    trials = [
        Trial(name=name, state="trained", seconds=9, case_seconds=each) for name, each in (("a", 0.01), ("b", 0.02))
    ]
    # 10 s to start; for each case, 4 ms for the weights, 30 ms for both models, and 20 ms for the next one
    assert budget.blend_seconds(trials) == pytest.approx(10 + 4 + 30 + 20)
    assert budget.blend_seconds([]) == pytest.approx(10 + 4)
    # a stopped model without a validation is as slow as the slowest one; a failed model is not blended
    trials += [Trial(name="c", state="stopped", seconds=9), Trial(name="d", state="failed", seconds=9)]
    assert budget.blend_seconds(trials) == pytest.approx(10 + 4 + 30 + 20 + 20)


def test_the_estimates_grow_if_the_command_starts_slowly() -> None:
    # a blend needs twice the time of the start, and at least 10 s
    assert make_budget(start_seconds=20.0).blend_seconds([]) == pytest.approx(40)
    assert make_budget(start_seconds=2.0).blend_seconds([]) == pytest.approx(10)
    # a trial needs half the time of the start, and at least 5 s
    assert make_budget(start_seconds=20.0).least_trial_seconds == 10
    assert make_budget(start_seconds=2.0).least_trial_seconds == 5


@pytest.mark.parametrize(
    ("start", "seconds", "end"),
    [
        (1, 600, 1),  # at least a second
        (20, 600, 3),  # 15% of the start
        (500, 600, 60),  # at most a tenth of the budget
    ],
)
def test_the_budget_counts_from_the_start_of_the_command_and_reserves_time_for_its_end(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, start: float, seconds: float, end: float
) -> None:
    training = FakeTraining(monkeypatch, {})
    training.now = 1000.0 + start
    budget = Budget.of_call(seconds, 1000.0, [WALK], dataset)
    assert budget.start_seconds == start
    # the trial of an earlier call took 20 s of the budget
    assert budget.deadline == 1000 + seconds - end - 20


def test_a_trial_may_use_half_of_the_time_that_the_blend_leaves_and_the_last_one_almost_all_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    FakeTraining(monkeypatch, {}).now = 200.0
    budget = make_budget()
    assert budget.limit([], is_last=False) is None
    # 600 s - 200 s - 10 s for the blend
    assert budget.limit([WALK], is_last=False) == pytest.approx(390 * 0.5)
    assert budget.limit([WALK], is_last=True) == pytest.approx(390 * 0.95)
    # 200,000 cases would need 400 s; at most 30% of the budget is reserved
    assert make_budget(num_cases=200_000).limit([WALK], is_last=True) == pytest.approx((600 - 200 - 180) * 0.95)


def test_trials_without_time_are_skipped_after_slow_ones(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = FakeTraining(monkeypatch, {"walk": 30.0, "session_knn": 40.0, "als": 4.0, "nn": 5.0})
    training.now = 5.0
    runner = TrialRunner(str(tmp_path), dataset.root)
    budget = Budget.of_call(100.0, 0.0, runner.trials, dataset)
    _run_trials(runner, auto_trials(), dataset, budget, StopRequest())
    # 99 s without the report, 75 s after session_knn; the blend takes 10 s + 180 cases * 4 ms = 10.72 s, so 13.28 s
    # remain, of which als may use half; the next 9.28 s are too few for mf (4.64 s), and nn may use 95% (8.82 s)
    assert [(trial.name, trial.state) for trial in runner.trials] == [
        ("walk", "trained"),
        ("session_knn", "trained"),
        ("als", "trained"),
        ("mf", "skipped"),
        ("nn", "trained"),
    ]
    assert runner.trials[3].reason == "no time was left (4.6 of at least 5.0 s)"


def test_a_validation_that_took_minutes_for_a_case_does_not_end_the_run(tmp_path: Path) -> None:
    metrics = Path(RunLayout(str(tmp_path)).metrics)
    metrics.write_text(f'{{"step": 1, "{VALIDATION_RATE}": 0.0}}\n')
    assert case_seconds(str(tmp_path)) == 0.0
    metrics.write_text(f'{{"step": 1, "{VALIDATION_RATE}": 0.004}}\n')
    assert case_seconds(str(tmp_path)) == pytest.approx(250)
