"""The time budget of `--preset auto`: limits of the trials, and the time reserved for the blend and the report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from contract.schema import Split
from trainer.data.dataset import Dataset
from trainer.evaluation.blend_weights import MAX_CASES
from trainer.runs.blend_record import RANKINGS
from trainer.workflows.trials import Trial

# A part of the work takes at least the SECONDS, and at least the SHARE of `Budget.start_seconds`.
_END_SECONDS, _END_SHARE = 1.0, 0.15  # to write the report and exit
_BLEND_START_SECONDS, _BLEND_START_SHARE = 10.0, 2.0  # to load the models and the events
_TRIAL_SECONDS, _TRIAL_SHARE = 5.0, 0.5  # to build and trace the model of a trial, which cannot be interrupted
# The time reserved for the report and the blend is limited to a share of the budget.
_LARGEST_END_SHARE = 0.1
_LARGEST_BLEND_SHARE = 0.3  # a validation with few cases measures mostly the start of a model, not its speed
_FIT_SECONDS = 0.004  # per case, to choose the weights after the ranking
# Shares of the remaining time that a trial may use:
_LARGEST_SHARE = 0.5  # if other trials follow
_LAST_SHARE = 0.95  # if it is the last one


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A time budget, from the start of the command to its end. Times are those of the clock `time.monotonic`."""

    seconds: float
    """Seconds of the budget."""
    start_seconds: float
    """Seconds from the start of the command to that of the trials, mostly for imports. They show how fast the
    machine is under its current load, so they scale the estimates that have no measurement of their own."""
    deadline: float
    """Time at which the blend must be complete; then only the report follows."""
    num_cases: int
    """Upper limit of the number of validation cases that a blend is fitted on."""

    @classmethod
    def of_call(cls, seconds: float, started: float, trials: Sequence[Trial], dataset: Dataset) -> "Budget":
        """Returns the budget of a call that starts its first trial now.

        Args:
          seconds: seconds of the budget.
          started: time at which the call started.
          trials: results of earlier calls; their seconds are subtracted from the budget.
          dataset: the dataset.
        """
        start_seconds = time.monotonic() - started
        end_seconds = min(max(_END_SECONDS, _END_SHARE * start_seconds), _LARGEST_END_SHARE * seconds)
        return cls(
            seconds=seconds,
            start_seconds=start_seconds,
            deadline=started + seconds - end_seconds - sum(trial.seconds for trial in trials),
            num_cases=_count_cases(dataset),
        )

    def limit(self, trials: Sequence[Trial], *, is_last: bool) -> float | None:
        """Returns the maximum seconds of the next trial; None: no limit, as for the first trial.

        Args:
          trials: results of the trials so far.
          is_last: whether no other trial needs time after the next one.
        """
        if not trials:
            return None
        left = self.deadline - time.monotonic() - min(self.blend_seconds(trials), _LARGEST_BLEND_SHARE * self.seconds)
        return left * (_LAST_SHARE if is_last else _LARGEST_SHARE)

    @property
    def least_trial_seconds(self) -> float:
        """Minimum of the remaining seconds; with less, no trial is started."""
        return max(_TRIAL_SECONDS, _TRIAL_SHARE * self.start_seconds)

    def blend_seconds(self, trials: Sequence[Trial]) -> float:
        """Predicts the seconds to blend the trained models and the model that is trained next.

        A model without validation is assumed to be as slow as the slowest other model.
        """
        seconds = [trial.case_seconds for trial in trials if trial.is_usable]
        slowest = max(seconds, default=0.0)
        case_seconds = sum(each or slowest for each in seconds) + slowest + _FIT_SECONDS
        return max(_BLEND_START_SECONDS, _BLEND_START_SHARE * self.start_seconds) + self.num_cases * case_seconds


def _count_cases(dataset: Dataset) -> int:
    splits = dataset.manifest.splits
    rows = splits[Split.VALIDATION].target_rows if Split.VALIDATION in splits else 0
    return len(RANKINGS) * min(MAX_CASES, rows)
