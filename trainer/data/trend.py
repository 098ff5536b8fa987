"""The trend of an item: the logarithm of the share of its events that are recent.

    trend_i(t) = log((p_i(t) + 0.05) / (n_i(t) + 0.25))

n_i(t) is the number of events of item i before the moment t. p_i(t) is the sum of the weights of these events; a weight
is 1 at the time of the event and halves every `half_life_days` days. The constants limit the trends of rare items; an
item without events has the trend log(0.2).

Shapes: N events, M moments (times in milliseconds since 1970), I items of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.schema import Split
from contract.shards import read_timelines
from trainer.data.dataset import Dataset

DAY_MS = 24 * 60 * 60 * 1000
_MAX_MOMENTS = 64
_MAX_ENTRIES = 2**24
"""Maximum size of a table of trends, in moments × items (64 MiB); several tables are in memory at a time."""


@dataclass(frozen=True)
class ItemEvents:
    """All events of a dataset that have an item of the vocabulary, in order of time."""

    timestamp_ms: np.ndarray
    """[N] int64, ascending."""
    item: np.ndarray
    """[N] int64 item indices."""
    num_items: int
    """Number of items, I."""


@dataclass(frozen=True)
class Trends:
    """The trend of each item at several moments; the docstring of this module has the formula."""

    half_life_days: float
    """Half-life of the weight of an event, in days."""
    moment_ms: np.ndarray
    """[M] int64 moments, ascending; the trends at a moment depend only on the events before it."""
    recent: np.ndarray
    """[M, I] float32: p in the formula, the summed weights of the events before the moment."""
    total: np.ndarray
    """[M, I] float32: n in the formula, the number of events before the moment."""

    @property
    def values(self) -> np.ndarray:
        """[M, I] float32: the trend of each item at each moment."""
        return np.log((self.recent + np.float32(0.05)) / (self.total + np.float32(0.25)))


def read_item_events(dataset: Dataset) -> ItemEvents:
    """Reads the events of all splits, except those with an item outside the vocabulary."""
    times, items = [], []
    for split in dataset.manifest.splits:
        for shard in dataset.shards(Split(split)):
            rows = read_timelines([shard])
            is_event = (rows.is_target == 1) & (rows.item < dataset.num_items)
            times.append(rows.timestamp_ms[is_event])
            items.append(rows.item[is_event])
            dataset.on_progress()
    timestamp_ms, item = np.concatenate(times), np.concatenate(items)
    order = np.argsort(timestamp_ms, kind="stable")
    return ItemEvents(timestamp_ms[order], item[order], dataset.num_items)


def moments_of(timestamp_ms: np.ndarray, num_items: int) -> np.ndarray:
    """[M] int64: the moments, ascending, at which trends are computed for evaluation cases.

    The first moment is the time of the first case; the moments are evenly spaced, at least a day apart. A case uses the
    latest moment up to its time. M is at most `_MAX_MOMENTS`, and less for a large catalogue.

    Args:
      timestamp_ms: time of each case, in any order.
      num_items: the number of items, I.
    """
    first, last = int(timestamp_ms.min()), int(timestamp_ms.max())
    most = int(np.clip(_MAX_ENTRIES // num_items, 1, _MAX_MOMENTS))
    step = max(DAY_MS, -(-(last - first + 1) // most))
    return np.arange(first, last + 1, step)


def count_trends(events: ItemEvents, moment_ms: np.ndarray, half_life_days: float) -> Trends:
    """Computes the trend of each item at each moment. `moment_ms`: [M] int64, ascending."""
    recent = np.zeros((len(moment_ms), events.num_items), np.float32)
    total = np.zeros_like(recent)
    bounds = np.searchsorted(events.timestamp_ms, moment_ms)  # before the moment, not at it
    begin = 0
    for row, (end, moment) in enumerate(zip(bounds, moment_ms, strict=True)):
        item = events.item[begin:end]
        weight = np.exp2(-(moment - events.timestamp_ms[begin:end]) / (half_life_days * DAY_MS))
        recent[row] = np.bincount(item, weight, events.num_items)
        total[row] = np.bincount(item, minlength=events.num_items)
        if row:
            decay = np.exp2(-(moment - moment_ms[row - 1]) / (half_life_days * DAY_MS))
            recent[row] += recent[row - 1] * np.float32(decay)
            total[row] += total[row - 1]
        begin = end
    return Trends(half_life_days, moment_ms, recent, total)


def latest_trends(events: ItemEvents, half_lives_days: Sequence[float]) -> list[Trends]:
    """Returns, for each half-life, the trends of the items one millisecond after the last event."""
    return [count_trends(events, events.timestamp_ms[-1:] + 1, days) for days in half_lives_days]


def advance_trends(trends: Trends, events: ItemEvents) -> Trends:
    """Adds newer events to trends; returns the trends one millisecond after the last event.

    Args:
      trends: the trends at one moment; returned unchanged if no events are newer.
      events: events of the same items; events before the moment of `trends` are skipped.
    """
    first = int(np.searchsorted(events.timestamp_ms, trends.moment_ms[-1]))
    newer = ItemEvents(events.timestamp_ms[first:], events.item[first:], events.num_items)
    if not len(newer.item):
        return trends
    added = count_trends(newer, newer.timestamp_ms[-1:] + 1, trends.half_life_days)
    decay = np.exp2(-(added.moment_ms - trends.moment_ms[-1]) / (trends.half_life_days * DAY_MS))
    recent = added.recent + trends.recent * decay.astype(np.float32)
    return Trends(trends.half_life_days, added.moment_ms, recent, added.total + trends.total)
