"""The numbers that describe a dataset: gathered a partition at a time, merged as Beam combiners merge.

Shapes: S splits, K event kinds.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from contract.schema import EVENT_KINDS
from preprocessing.sources.csv_files import Rejects
from preprocessing.splits import SPLITS, TRAIN, TimeSummary, merge_times, summarize_times
from preprocessing.statistics.behaviour import Behaviour, describe_behaviour, merge_behaviours, observe
from preprocessing.statistics.distributions import by_kind, count_values, cross, date, describe_histogram
from preprocessing.statistics.popularity import TOP
from preprocessing.timelines import MS_A_DAY, Cleaning, Timelines, by_people
from preprocessing.validation import RejectReason

_MS_AN_HOUR = 3_600_000
_THURSDAY = 3  # 1970-01-01 was one; Monday is 0
_NUM_KINDS = len(EVENT_KINDS)
_EXAMPLES = 3  # bad rows shown of each reason

Example = tuple[str, int, str]
"""A bad row: file, byte, text."""


@dataclass(frozen=True)
class ReadingSummary:
    """What came of reading an input, or a part of it.

    rows       lines that are not blank, good and bad
    rejects    by reason
    examples   of each reason the first few bad rows, by file and byte
    cleaning   what was left out after reading
    partitions that hold anything
    times      when events of people happened
    """

    rows: int = 0
    blank_lines: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[Example, ...]] = field(default_factory=dict)
    cleaning: Cleaning = field(default_factory=lambda: Cleaning(0, 0))
    partitions: frozenset[int] = frozenset()
    times: TimeSummary = field(default_factory=lambda: merge_times([]))

    @property
    def num_events(self) -> int:
        """Events of people, duplicates left out."""
        return int(self.times.counts.sum())

    def reject_reasons(self) -> dict[str, RejectReason]:
        """Counts and first examples by reason."""
        firsts = {
            reason: f"{path} at byte {byte}: {text}" for reason, ((path, byte, text), *_) in self.examples.items()
        }
        return {reason: RejectReason(count, firsts[reason]) for reason, count in self.rejects.items()}


def summarize_reading(num_good: int, num_blank: int, rejects: Rejects) -> ReadingSummary:
    """The summary of one chunk."""
    found: dict[str, list[Example]] = {}
    for position, reason, text in zip(rejects.positions, rejects.reasons, rejects.texts, strict=True):
        found.setdefault(reason, []).append((rejects.path, position, text))
    examples = {reason: tuple(sorted(rows)[:_EXAMPLES]) for reason, rows in found.items()}
    return ReadingSummary(num_good + len(rejects.reasons), num_blank, Counter(rejects.reasons), examples)


def summarize_cleaning(partition: int, timelines: Timelines, cleaning: Cleaning) -> ReadingSummary:
    """The summary of one assembled partition."""
    times = summarize_times(timelines.timestamp_ms[by_people(timelines)])
    return ReadingSummary(cleaning=cleaning, times=times, partitions=frozenset([partition]))


def merge_readings(parts: Iterable[ReadingSummary]) -> ReadingSummary:
    """One summary of several; the examples of a reason are the least, whatever the order of the parts."""
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
        examples={reason: tuple(sorted(rows)[:_EXAMPLES]) for reason, rows in found.items()},
        cleaning=Cleaning(
            sum(cleaning.duplicates for cleaning in cleanings),
            sum(cleaning.robot_visitors for cleaning in cleanings),
        ),
        partitions=frozenset().union(*(part.partitions for part in listed)),
        times=merge_times([part.times for part in listed]),
    )


@dataclass(frozen=True)
class EventStatistics:
    """Counts over the events of one or more partitions; visitors are never shared between partitions.

    by_split             [S, K] events
    by_day               day since 1970 to [K] events
    by_weekday_hour      [7, 24] events, Monday first, UTC
    visitors             visitors
    visitors_by_kind     [K] visitors with at least one event of the kind
    events_per_visitor   number of events to number of visitors with as many
    top_visitors         for all kinds together, then for each, (events, id) of the most active
    visitors_by_split    [S] visitors with a row in the split
    new_visitors         [S] of these, the ones without a training row
    events_of_new        [S] events of the new visitors
    training_gaps        pairs of neighbouring training events of a visitor
    robot_events         events left out with their visitors
    behaviour            how the visitors move
    """

    by_split: np.ndarray
    by_day: dict[int, np.ndarray]
    by_weekday_hour: np.ndarray
    visitors: int
    visitors_by_kind: np.ndarray
    events_per_visitor: Counter
    top_visitors: tuple[tuple[tuple[int, str], ...], ...]
    visitors_by_split: np.ndarray
    new_visitors: np.ndarray
    events_of_new: np.ndarray
    training_gaps: int
    robot_events: int
    behaviour: Behaviour


def count_events(timelines: Timelines, splits: np.ndarray, robot_events: int) -> EventStatistics:
    """The statistics of one partition, given the split of each row, and how many rows were left out as robots'."""
    num_visitors, kind = len(timelines.visitors), timelines.event.astype(np.int64)
    by_visitor = cross(timelines.visitor_code, kind, num_visitors, _NUM_KINDS)
    totals = by_visitor.sum(1)
    visitor_split = cross(timelines.visitor_code, splits, num_visitors, len(SPLITS))
    in_split, is_new = visitor_split > 0, visitor_split[:, TRAIN] == 0
    days, day_places = np.unique(timelines.timestamp_ms // MS_A_DAY, return_inverse=True)
    hours = timelines.timestamp_ms // _MS_AN_HOUR
    return EventStatistics(
        by_split=cross(splits, kind, len(SPLITS), _NUM_KINDS),
        by_day=dict(zip(days.tolist(), cross(day_places, kind, len(days), _NUM_KINDS), strict=True)),
        by_weekday_hour=cross((hours // 24 + _THURSDAY) % 7, hours % 24, 7, 24),
        visitors=num_visitors,
        visitors_by_kind=(by_visitor > 0).sum(0),
        events_per_visitor=count_values(totals),
        top_visitors=tuple(_top(counts, timelines.visitors) for counts in (totals, *by_visitor.T)),
        visitors_by_split=in_split.sum(0),
        new_visitors=in_split[is_new].sum(0),
        events_of_new=visitor_split[is_new].sum(0),
        training_gaps=int((splits == TRAIN).sum() - in_split[:, TRAIN].sum()),
        robot_events=robot_events,
        behaviour=observe(timelines),
    )


def merge_events(parts: Iterable[EventStatistics]) -> EventStatistics:
    """One set of statistics of several partitions'."""
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
            tuple(sorted((entry for part in listed for entry in part.top_visitors[place]), key=_by_activity)[:TOP])
            for place in range(1 + _NUM_KINDS)
        ),
        visitors_by_split=np.sum([part.visitors_by_split for part in listed], axis=0),
        new_visitors=np.sum([part.new_visitors for part in listed], axis=0),
        events_of_new=np.sum([part.events_of_new for part in listed], axis=0),
        training_gaps=sum(part.training_gaps for part in listed),
        robot_events=sum(part.robot_events for part in listed),
        behaviour=merge_behaviours(part.behaviour for part in listed),
    )


def describe_reading(summary: ReadingSummary) -> dict[str, Any]:
    """What was read and left out, as JSON."""
    return {
        "rows": summary.rows,
        "blank_lines": summary.blank_lines,
        "rejected": dict(sorted(summary.rejects.items())),
        "reject_examples": {
            reason: [{"file": path, "byte": byte, "row": text} for path, byte, text in rows]
            for reason, rows in sorted(summary.examples.items())
        },
    }


def describe_events(statistics: EventStatistics, cleaning: Cleaning) -> dict[str, Any]:
    """The events and visitors, as JSON."""
    return {
        "duplicates": cleaning.duplicates,
        "robot_visitors": cleaning.robot_visitors,
        "robot_events": statistics.robot_events,
        "events": int(statistics.by_split.sum()),
        "by_kind": by_kind(statistics.by_split.sum(0)),
        "by_split": {
            split: {
                **by_kind(statistics.by_split[place]),
                "visitors": int(statistics.visitors_by_split[place]),
                "new_visitors": int(statistics.new_visitors[place]),
                "events_of_new_visitors": int(statistics.events_of_new[place]),
            }
            for place, split in enumerate(SPLITS)
        },
        "by_day": {date(day): by_kind(counts) for day, counts in sorted(statistics.by_day.items())},
        "by_weekday_hour": statistics.by_weekday_hour.tolist(),
        "visitors": statistics.visitors,
        "visitors_by_kind": by_kind(statistics.visitors_by_kind),
        "events_per_visitor": describe_histogram(statistics.events_per_visitor),
        "top_visitors": {
            kind: [{"visitor_id": visitor, "events": count} for count, visitor in statistics.top_visitors[place]]
            for place, kind in enumerate(("all", *EVENT_KINDS))
        },
        **describe_behaviour(statistics.behaviour),
    }


def _top(counts: np.ndarray, ids: pa.Array) -> tuple[tuple[int, str], ...]:
    # every id that ties with the last place, so that the id decides and not the partition
    floor = np.partition(counts, -TOP)[-TOP] if len(counts) > TOP else 0
    places = np.flatnonzero((counts >= floor) & (counts > 0))
    chosen = zip(counts[places].tolist(), ids.take(pa.array(places)).to_pylist(), strict=True)
    return tuple(sorted(chosen, key=_by_activity)[:TOP])


def _by_activity(entry: tuple[int, str]) -> tuple[int, str]:
    return -entry[0], entry[1]
