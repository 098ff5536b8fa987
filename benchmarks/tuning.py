"""Coordinate search on the validation window: tunes one setting at a time, and keeps the best values found so far.

A full grid search would fit each system hundreds of times.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """The settings that a coordinate search tries."""

    begin: Settings
    """Settings that the search starts from."""
    values: Mapping[str, Sequence[Any]]
    """Values of each setting, in tuning order."""


@dataclass(frozen=True)
class Trial:
    """Settings that a search has tried, and their metric."""

    settings: Settings
    """The settings."""
    validation: float
    """The metric on the validation window."""
    seconds: float
    """Seconds of the fit."""


def search(what: Search, measure: Callable[[Settings], tuple[float, float]]) -> list[dict[str, Any]]:
    """Runs a search and returns all trials in order of time, each as a dict with the fields of `Trial`.

    `measure` returns the metric of settings (higher is better) and the seconds of the fit.
    """
    trials = [Trial(what.begin, *measure(what.begin))]
    best = dict(what.begin)
    for name, values in what.values.items():
        for value in values:
            settings = best | {name: value}
            if all(settings != trial.settings for trial in trials):
                trials.append(Trial(settings, *measure(settings)))
        best = dict(max(trials, key=lambda trial: trial.validation).settings)
    return [asdict(trial) for trial in trials]


def best_of(trials: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the trial with the best metric; the first one if several tie."""
    return max(trials, key=lambda trial: trial["validation"])
