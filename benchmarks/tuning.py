"""Coordinate search on the validation window: tunes one setting after another, each with the best of those before.

A full grid would take some hundred fits per system.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """A search space."""

    begin: Settings
    """Settings that the search starts from."""
    values: Mapping[str, Sequence[Any]]
    """Values of each setting, in the order in which settings are tuned."""


@dataclass(frozen=True)
class Tried:
    """Settings, their validation metric and the seconds of their fit."""

    settings: Settings
    """The settings."""
    validation: float
    """Their metric on the validation window."""
    seconds: float
    """Seconds of the fit."""


def search(what: Search, measure: Callable[[Settings], tuple[float, float]]) -> list[dict[str, Any]]:
    """Runs a search and returns every trial, in order, as JSON values; `best_of` picks the best.

    Args:
      what: the search space.
      measure: returns the metric of settings, higher is better, and the seconds of the fit.
    """
    tried: list[Tried] = []
    best = dict(what.begin)
    for name, values in what.values.items():
        for value in values:
            settings = best | {name: value}
            if all(settings != one.settings for one in tried):
                tried.append(Tried(settings, *measure(settings)))
        best = dict(max(tried, key=lambda one: one.validation).settings)
    return [asdict(one) for one in tried]


def best_of(tried: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Returns the trial with the best metric, the first if several are equal."""
    return max(tried, key=lambda one: one["validation"])
