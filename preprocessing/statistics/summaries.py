"""Mergeable summaries of the rows that were read, and of the events of each partition.

Shapes: S splits, K event kinds.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from preprocessing.histograms import Histogram, count_floats, merge_floats
from preprocessing.sources.rejects import Rejects
from preprocessing.splits import SPLITS, TRAIN, merge_times, summarize_times
from preprocessing.statistics.behaviour import Behaviour, describe_behaviour, measure_behaviour, merge_behaviours
from preprocessing.statistics.distributions import (
    count_values,
    cross_tabulate,
    describe_histogram,
    format_day,
    label_kinds,
)
from preprocessing.statistics.popularity import TOP
from preprocessing.timelines import MS_PER_DAY, Cleaning, SplitTimelines, Timelines, compute_gaps, find_human_rows
from preprocessing.validation import RejectReason

_MS_PER_HOUR = 3_600_000
_THURSDAY = 3  # the weekday of 1970-01-01; Monday is 0
_EXAMPLES = 3  # invalid rows per reason

Example = tuple[str, int, str]
"""An invalid row: file, position (byte of a text file or row number), and text."""


@dataclass(frozen=True)
class ReadingSummary:
    """Counts of the rows read from an input or a part of it."""

    rows: int = 0
    """Number of rows, valid or invalid, without blank lines."""
    blank_lines: int = 0
    """Number of empty lines."""
    rejects: Counter[str] = field(default_factory=Counter)
    """Number of invalid rows by reason."""
    filtered: Counter[str] = field(default_factory=Counter)
    """Number of valid rows that the settings exclude, by reason, such as a condition on a column."""
    examples: dict[str, tuple[Example, ...]] = field(default_factory=dict)
    """By reason, the first invalid rows (at most 3), ordered by file and position."""
    cleaning: Cleaning = field(default_factory=lambda: Cleaning(0, 0))
    """Counts of duplicates and robots. 0 for inputs other than events."""
    partitions: frozenset[int] = frozenset()
    """Numbers of the partitions that have rows."""
    times: Histogram = field(default_factory=lambda: merge_times([]))
    """Times of the events of visitors who are not robots. Empty for inputs other than events."""

    @property
    def num_events(self) -> int:
        """Number of events, excluding duplicates and events of robots."""
        return int(self.times.counts.sum())

    def reject_reasons(self) -> dict[str, RejectReason]:
        """Returns, by reason, the number of invalid rows and the first of these rows."""
        firsts = {
            reason: f"{path} at {position}: {text}" for reason, ((path, position, text), *_) in self.examples.items()
        }
        return {reason: RejectReason(count, firsts[reason]) for reason, count in self.rejects.items()}


def summarize_reading(
    num_valid: int, num_blank: int, rejects: Rejects, filtered: Counter[str] | None = None
) -> ReadingSummary:
    """Summarizes the rows of one batch. `filtered` counts the excluded rows by reason."""
    dropped = filtered or Counter()
    found: dict[str, list[Example]] = {}
    for position, reason, text in zip(rejects.positions, rejects.reasons, rejects.texts, strict=True):
        found.setdefault(reason, []).append((rejects.path, position, text))
    examples = {reason: tuple(sorted(rows)[:_EXAMPLES]) for reason, rows in found.items()}
    return ReadingSummary(
        rows=num_valid + len(rejects.reasons) + dropped.total(),
        blank_lines=num_blank,
        rejects=Counter(rejects.reasons),
        filtered=dropped,
        examples=examples,
    )


def summarize_cleaning(partition: int, timelines: Timelines, cleaning: Cleaning) -> ReadingSummary:
    """Summarizes the event times, duplicates and robots of a partition.

    `timelines` includes the events of robots; the summary of the times does not.
    """
    times = summarize_times(timelines.timestamp_ms[find_human_rows(timelines)])
    return ReadingSummary(cleaning=cleaning, times=times, partitions=frozenset([partition]))


def merge_readings(parts: Iterable[ReadingSummary]) -> ReadingSummary:
    """Adds up the summaries of several parts of an input. Keeps a few examples of invalid rows for each reason."""
    listed = list(parts)
    found: dict[str, list[Example]] = {}
    for part in listed:
        for reason, rows in part.examples.items():
            found.setdefault(reason, []).extend(rows)
    cleanings = [part.cleaning for part in listed]
    return ReadingSummary(
        rows=sum(part.rows for part in listed),
        blank_lines=sum(part.blank_lines for part in listed),
        rejects=sum((part.rejects for part in listed), Counter()),
        filtered=sum((part.filtered for part in listed), Counter()),
        examples={reason: tuple(sorted(rows)[:_EXAMPLES]) for reason, rows in found.items()},
        cleaning=Cleaning(
            sum(cleaning.duplicates for cleaning in cleanings),
            sum(cleaning.robot_visitors for cleaning in cleanings),
        ),
        partitions=frozenset().union(*(part.partitions for part in listed)),
        times=merge_times(part.times for part in listed),
    )


@dataclass(frozen=True)
class EventStatistics:
    """Statistics of the events of one or more partitions."""

    by_split: np.ndarray
    """[S, K] number of events by split and kind."""
    by_day: dict[int, np.ndarray]
    """[K] number of events by kind, for each day with events. A day is a number of days since 1970-01-01."""
    by_weekday_hour: np.ndarray
    """[7, 24] number of events by weekday and hour (UTC). Weekday 0 is Monday."""
    visitors: int
    """Number of visitors."""
    visitors_by_kind: np.ndarray
    """[K] number of visitors with at least one event of the kind."""
    events_per_visitor: Counter[int]
    """Number of visitors, by number of events of the visitor."""
    top_visitors: tuple[tuple[tuple[int, str], ...], ...]
    """Rankings of the most active visitors, as pairs (number of events, visitor id). The first ranking counts all
    events, and each of the others counts one event kind."""
    visitors_by_split: np.ndarray
    """[S] number of visitors with an event in the split."""
    new_visitors: np.ndarray
    """[S] number of visitors who have an event in the split but no training event."""
    events_of_new: np.ndarray
    """[S] number of events in the split by visitors without training events."""
    training_gaps: Histogram
    """Histogram of the seconds between consecutive training events of a visitor."""
    robot_events: int
    """Number of events of robots, which are excluded from all other counts."""
    weight_thousandths: int
    """Sum of all event weights, in thousandths. Each weight is rounded to thousandths first, so that the sum does not
    depend on the order."""
    behaviour: Behaviour
    """Funnel, sessions and pauses."""


def count_events(rows: SplitTimelines, num_kinds: int) -> EventStatistics:
    """Computes the statistics of one partition, without robots. There are K = `num_kinds` event kinds."""
    timelines, splits, robot_events = rows
    num_visitors, kind = len(timelines.visitors), timelines.event.astype(np.int64)
    by_visitor = cross_tabulate(timelines.visitor_code, kind, num_visitors, num_kinds)
    totals = by_visitor.sum(1)
    visitor_split = cross_tabulate(timelines.visitor_code, splits, num_visitors, len(SPLITS))
    in_split, is_new = visitor_split > 0, visitor_split[:, TRAIN] == 0
    days, day_indices = np.unique(timelines.timestamp_ms // MS_PER_DAY, return_inverse=True)
    hours = timelines.timestamp_ms // _MS_PER_HOUR
    return EventStatistics(
        by_split=cross_tabulate(splits, kind, len(SPLITS), num_kinds),
        by_day=dict(zip(days.tolist(), cross_tabulate(day_indices, kind, len(days), num_kinds), strict=True)),
        by_weekday_hour=cross_tabulate((hours // 24 + _THURSDAY) % 7, hours % 24, 7, 24),
        visitors=num_visitors,
        visitors_by_kind=(by_visitor > 0).sum(0),
        events_per_visitor=count_values(totals),
        top_visitors=tuple(_top(counts, timelines.visitors) for counts in (totals, *by_visitor.T)),
        visitors_by_split=in_split.sum(0),
        new_visitors=in_split[is_new].sum(0),
        events_of_new=visitor_split[is_new].sum(0),
        training_gaps=count_floats(compute_gaps(timelines, splits == TRAIN)),
        robot_events=robot_events,
        weight_thousandths=int(np.rint(timelines.weight.astype(np.float64) * 1000).astype(np.int64).sum()),
        behaviour=measure_behaviour(timelines, num_kinds),
    )


def merge_events(parts: Iterable[EventStatistics]) -> EventStatistics:
    """Merges the event statistics of several partitions."""
    listed = list(parts)
    by_day: dict[int, np.ndarray] = {}
    for part in listed:
        for day, counts in part.by_day.items():
            by_day[day] = by_day.get(day, 0) + counts
    return EventStatistics(
        by_split=np.sum([part.by_split for part in listed], axis=0),
        by_day=by_day,
        by_weekday_hour=np.sum([part.by_weekday_hour for part in listed], axis=0),
        visitors=sum(part.visitors for part in listed),
        visitors_by_kind=np.sum([part.visitors_by_kind for part in listed], axis=0),
        events_per_visitor=sum((part.events_per_visitor for part in listed), Counter()),
        top_visitors=tuple(
            tuple(sorted(chain.from_iterable(rankings), key=_by_activity)[:TOP])
            for rankings in zip(*(part.top_visitors for part in listed), strict=True)
        ),
        visitors_by_split=np.sum([part.visitors_by_split for part in listed], axis=0),
        new_visitors=np.sum([part.new_visitors for part in listed], axis=0),
        events_of_new=np.sum([part.events_of_new for part in listed], axis=0),
        training_gaps=merge_floats(part.training_gaps for part in listed),
        robot_events=sum(part.robot_events for part in listed),
        weight_thousandths=sum(part.weight_thousandths for part in listed),
        behaviour=merge_behaviours(part.behaviour for part in listed),
    )


def describe_reading(summary: ReadingSummary) -> dict[str, Any]:
    """Returns the numbers of read, invalid and excluded rows as JSON values."""
    return {
        "rows": summary.rows,
        "blank_lines": summary.blank_lines,
        "rejected": dict(sorted(summary.rejects.items())),
        "filtered": dict(sorted(summary.filtered.items())),
        "reject_examples": {
            reason: [{"file": path, "position": position, "row": text} for path, position, text in rows]
            for reason, rows in sorted(summary.examples.items())
        },
    }


def describe_events(statistics: EventStatistics, cleaning: Cleaning, kinds: Sequence[str]) -> dict[str, Any]:
    """Returns statistics of the events and visitors as JSON values.

    `kinds` are in funnel order.
    """
    top_visitors, *top_by_kind = map(_describe_ranking, statistics.top_visitors)
    num_events = int(statistics.by_split.sum())
    return {
        "duplicates": cleaning.duplicates,
        "robot_visitors": cleaning.robot_visitors,
        "robot_events": statistics.robot_events,
        "events": num_events,
        "mean_weight": round(statistics.weight_thousandths / 1000 / num_events, 6),
        "by_kind": label_kinds(statistics.by_split.sum(0), kinds),
        "by_split": {
            split: {
                "events": int(statistics.by_split[index].sum()),
                "by_kind": label_kinds(statistics.by_split[index], kinds),
                "visitors": int(statistics.visitors_by_split[index]),
                "new_visitors": int(statistics.new_visitors[index]),
                "events_of_new_visitors": int(statistics.events_of_new[index]),
            }
            for index, split in enumerate(SPLITS)
        },
        "by_day": {format_day(day): label_kinds(counts, kinds) for day, counts in sorted(statistics.by_day.items())},
        "by_weekday_hour": statistics.by_weekday_hour.tolist(),
        "visitors": statistics.visitors,
        "visitors_by_kind": label_kinds(statistics.visitors_by_kind, kinds),
        "events_per_visitor": describe_histogram(statistics.events_per_visitor),
        "top_visitors": top_visitors,
        "top_visitors_by_kind": dict(zip(kinds, top_by_kind, strict=True)),
        **describe_behaviour(statistics.behaviour, kinds),
    }


def _top(counts: np.ndarray, ids: pa.Array) -> tuple[tuple[int, str], ...]:
    # all ids that tie for the last rank are candidates: the id decides between them, not the partition
    floor = np.partition(counts, -TOP)[-TOP] if len(counts) > TOP else 0
    candidates = np.flatnonzero((counts >= floor) & (counts > 0))
    chosen = zip(counts[candidates].tolist(), ids.take(pa.array(candidates)).to_pylist(), strict=True)
    return tuple(sorted(chosen, key=_by_activity)[:TOP])


def _describe_ranking(ranking: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"visitor_id": visitor, "events": count} for count, visitor in ranking]


def _by_activity(entry: tuple[int, str]) -> tuple[int, str]:
    return -entry[0], entry[1]
