"""Trends of items at any moment: their recent events, compared with all their earlier events.

Shapes: N events, I items, B requests, M moments.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from trainer.data.dataset import Dataset
from trainer.data.trend import DAY_MS, read_item_events

_FLOOR = 0.02  # added to scores (10th best = 1) before the logarithm
_SCALE = 5.0  # factor of scores (10th best = 1) without the logarithm
_RANK = 10
_LEAST = 1e-9


@dataclass(frozen=True)
class EventLog:
    """N events in order of time."""

    timestamp_ms: np.ndarray
    """[N] int64, ascending."""
    item: np.ndarray
    """[N] item index of each event."""
    num_items: int
    """Number of items, I."""
    _kept: dict[tuple[float, int], np.ndarray] = field(default_factory=dict, compare=False)

    def recent(self, half_life_days: float, moment_ms: int) -> np.ndarray:
        """Returns the weighted number [I] of each item's events before the moment; results are cached.

        The weight of an event is 1 at first and halves every `half_life_days`.
        """
        key = (half_life_days, moment_ms)
        if key not in self._kept:
            end = np.searchsorted(self.timestamp_ms, moment_ms)  # events at the moment itself are not known yet
            age_days = (moment_ms - self.timestamp_ms[:end]) / DAY_MS
            weight = np.exp2(-age_days / half_life_days)
            self._kept[key] = np.bincount(self.item[:end], weight, minlength=self.num_items).astype(np.float32)
        return self._kept[key]

    def trends(self, half_life_days: float, moments_ms: np.ndarray) -> np.ndarray:
        """Returns the float32 trend [M, I] of each item at M moments: log((recent + .05) / (all + .25)).

        "all" is the number of the item's events before the moment; "recent" weights each of them by age, see `recent`.
        """
        rows = []
        for moment in moments_ms.tolist():
            everything = self.recent(np.inf, moment)
            rows.append(np.log((self.recent(half_life_days, moment) + 0.05) / (everything + 0.25)))
        return np.stack(rows).astype(np.float32)


def read_events(dataset: Dataset) -> EventLog:
    """Reads the events of all splits; skips items outside the vocabulary."""
    events = read_item_events(dataset)
    return EventLog(events.timestamp_ms, events.item, events.num_items)


class TrendSettings(NamedTuple):
    """How the trend of items is added to the scores of a peer."""

    link: Literal["log", "linear"]
    """`log` adds the trend to the logarithm of the scores, `linear` to the scores. The scores are first divided by the
    10th best.
    """
    half_life_days: float
    """Half-life of the weight of an event."""
    beta: float
    """Weight of the trend."""


def link_scores(scores: np.ndarray, link: Literal["log", "linear"]) -> np.ndarray:
    """Rescales scores [B, I] for adding a trend.

    Divides each row by its 10th best score or, if that is not positive, by its best. The link `log` then takes the
    logarithm.
    """
    linked = np.empty_like(scores)
    for row, of_row in enumerate(scores):
        top = np.partition(of_row, -_RANK)[-_RANK:] if len(of_row) > _RANK else of_row
        scale = top.min() if top.min() > 0 else max(top.max(), _LEAST)
        relative = of_row / scale
        linked[row] = np.log(np.maximum(relative, 0) + _FLOOR) if link == "log" else _SCALE * relative
    return linked
