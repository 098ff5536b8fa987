"""Measures visitor behaviour: the funnel of event kinds, sessions and pauses.

A session ends when its visitor pauses for more than 30 minutes.

Shapes: N rows of a partition, P (visitor, item) pairs, K event kinds, B buckets of seconds.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocessing.statistics.distributions import count_values, describe_histogram, label_days, label_kinds
from preprocessing.timelines import MS_PER_DAY, NEVER, Timelines

SESSION_GAP_MS = 30 * 60_000
"""Longest pause between two events of a session."""

_BUCKETS = 34  # buckets of seconds; the last starts at 2**32, 136 years


@dataclass(frozen=True)
class Behaviour:
    """Counts that describe visitors' behaviour. The counts of several partitions can be added up."""

    pairs: int
    """Number of distinct (visitor, item) pairs."""
    pairs_by_kind: np.ndarray
    """[K] number of pairs with at least one event of the kind."""
    after_previous: np.ndarray
    """[K-1] for each kind but the first: the number of pairs in which the first event of this kind comes after the
    first event of the previous kind."""
    after_first: np.ndarray
    """[K-1] for each kind but the first: the number of pairs in which the first event of this kind comes after the
    first event of the first kind."""
    after_all: np.ndarray
    """[K-1] for each kind but the first: the number of pairs that have all kinds up to this kind, and in which the
    first events of these kinds are in funnel order."""
    events_per_session: Counter[int]
    """Number of sessions, by number of events in the session."""
    session_seconds: np.ndarray
    """[B] number of sessions by duration. Bucket 0 is [0, 1) seconds, and bucket b > 0 is [2**(b-1), 2**b) seconds."""
    gap_seconds: np.ndarray
    """[B] number of pauses by duration, in the buckets of `session_seconds`. A pause is between consecutive events of a
    visitor."""
    new_visitors_by_day: Counter[int]
    """Number of visitors by the day of their first event. Day 0 is 1970-01-01."""


def measure_behaviour(timelines: Timelines, num_kinds: int) -> Behaviour:
    """Measures the behaviour of the visitors of one partition.

    The K event kinds have indices in funnel order.
    """
    first = _first_rows(timelines, num_kinds)
    # a kind that does not occur is at NEVER, which must not count as after the other kinds
    follows_previous = first[:, :-1] < first[:, 1:]
    follows_previous &= first[:, 1:] < NEVER
    follows_first = (first[:, :1] < first[:, 1:]) & (first[:, 1:] < NEVER)
    times = timelines.timestamp_ms
    starts_timeline = np.diff(timelines.visitor_code, prepend=-1) != 0
    gaps = np.diff(times, prepend=0)
    starts = np.flatnonzero(starts_timeline | (gaps > SESSION_GAP_MS))
    ends = np.append(starts[1:], len(times)) - 1 if len(starts) else starts
    return Behaviour(
        pairs=len(first),
        pairs_by_kind=(first < NEVER).sum(0),
        after_previous=follows_previous.sum(0),
        after_first=follows_first.sum(0),
        after_all=np.logical_and.accumulate(follows_previous, axis=1).sum(0),
        events_per_session=count_values(ends - starts + 1),
        session_seconds=_bucket(times[ends] - times[starts]),
        gap_seconds=_bucket(gaps[~starts_timeline]),
        new_visitors_by_day=count_values(times[starts_timeline] // MS_PER_DAY),
    )


def merge_behaviours(parts: Iterable[Behaviour]) -> Behaviour:
    """Adds up the behaviour counts of several partitions."""
    listed = list(parts)
    no_times = np.zeros(_BUCKETS, np.int64)
    return Behaviour(
        pairs=sum(part.pairs for part in listed),
        pairs_by_kind=np.sum([part.pairs_by_kind for part in listed], axis=0),
        after_previous=np.sum([part.after_previous for part in listed], axis=0),
        after_first=np.sum([part.after_first for part in listed], axis=0),
        after_all=np.sum([part.after_all for part in listed], axis=0),
        events_per_session=sum((part.events_per_session for part in listed), Counter()),
        session_seconds=sum((part.session_seconds for part in listed), no_times),
        gap_seconds=sum((part.gap_seconds for part in listed), no_times),
        new_visitors_by_day=sum((part.new_visitors_by_day for part in listed), Counter()),
    )


def describe_behaviour(behaviour: Behaviour, kinds: Sequence[str]) -> dict[str, Any]:
    """Returns the funnel, sessions, pauses and new visitors as JSON values.

    `kinds` are in funnel order. With one kind, the funnel has no steps.
    """
    steps = zip(kinds[1:], behaviour.after_previous, behaviour.after_first, behaviour.after_all, strict=True)
    return {
        "funnel": {
            "pairs": behaviour.pairs,
            "by_kind": label_kinds(behaviour.pairs_by_kind, kinds),
            "steps": [
                {
                    "kind": kind,
                    "after_previous": int(after_previous),
                    "after_first": int(after_first),
                    "after_all": int(after_all),
                }
                for kind, after_previous, after_first, after_all in steps
            ],
        },
        "sessions": {
            "gap_minutes": SESSION_GAP_MS // 60_000,
            "sessions": behaviour.events_per_session.total(),
            "events_per_session": describe_histogram(behaviour.events_per_session),
            "seconds": _describe_buckets(behaviour.session_seconds),
        },
        "gap_seconds": _describe_buckets(behaviour.gap_seconds),
        "new_visitors_by_day": label_days(behaviour.new_visitors_by_day),
    }


def _first_rows(timelines: Timelines, num_kinds: int) -> np.ndarray:
    """Returns the index of the first row of each visitor-item pair and event kind, [P, K]; NEVER if there is no row."""
    pairs = timelines.visitor_code * len(timelines.items) + timelines.item_code
    distinct, pair = np.unique(pairs, return_inverse=True)
    first = np.full((len(distinct), num_kinds), NEVER)
    # the last assignment to a position wins, so rows are assigned from the last to the first
    rows = np.arange(len(timelines))[::-1]
    first[pair[rows], timelines.event[rows]] = rows
    return first


def _bucket(milliseconds: np.ndarray) -> np.ndarray:
    """Counts durations per bucket, [B]. Bucket 0 is below one second; bucket b starts at 2 ** (b - 1) seconds."""
    exponents = np.frexp((milliseconds // 1000).astype(np.float64))[
        1
    ]  # e with seconds in [2**(e-1), 2**e); 0 for 0 seconds
    return np.bincount(np.minimum(exponents, _BUCKETS - 1), minlength=_BUCKETS)


def _describe_buckets(counts: np.ndarray) -> dict[str, int]:
    """Returns the count of each bucket, keyed by the bucket's start in seconds. Omits empty buckets at the end."""
    filled = int(np.flatnonzero(counts).max(initial=-1)) + 1
    return {str(1 << bucket >> 1): int(counts[bucket]) for bucket in range(filled)}
