"""The best settings of a system on the validation window: one after the other, each beside the best of those before.

A grid of all of them would be some hundred fits of each system.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Search:
    """What is tried.

    begin    the settings that the search begins with
    values   of a setting, in the order in which settings are chosen
    """

    begin: Settings
    values: Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Tried:
    """Settings, the figure that they reached in validation, and the seconds that fitting them took."""

    settings: Settings
    validation: float
    seconds: float


def search(what: Search, measure: Callable[[Settings], tuple[float, float]]) -> list[dict[str, Any]]:
    """Every setting that was tried, in its order, as JSON values; `best_of` has the best.

    Args:
      measure: a setting's figure, of which more is better, and the seconds of its fit.
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
    """What `search` tried with the highest figure; the first of equals."""
    return max(tried, key=lambda one: one["validation"])
