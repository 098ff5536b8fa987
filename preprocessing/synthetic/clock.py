"""Draws the time of each event, with realistic sessions, gaps, hours of the day and days of the week.

A session ends after 30 minutes without an event.

Shapes: V visitors, D interests (visitor-item pairs), E events, S sessions.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.draws import group_starts, interpolated_quantiles, position_in_group
from preprocessing.synthetic.journeys import ADD_TO_CART, TRANSACTION, VIEW, Events, Interests
from preprocessing.synthetic.scale import BEGIN_MS, END_MS
from preprocessing.synthetic.visitors import ROBOT_EVENTS_A_DAY

_SESSION_GAP_MS = 1_800_000
_MINUTE_MS = 60_000
_HOUR_MS = 3_600_000

# share of a day's events per hour (UTC); the visitors live in the Americas
_HOURS = (
    *(0.0515, 0.0535, 0.0560, 0.0560, 0.0530, 0.0420, 0.0270, 0.0165, 0.0095, 0.0066, 0.0058, 0.0067),
    *(0.0105, 0.0195, 0.0340, 0.0480, 0.0575, 0.0640, 0.0650, 0.0660, 0.0687, 0.0660, 0.0620, 0.0547),
)
_WEEKDAYS = (1.08, 1.10, 1.08, 1.06, 0.99, 0.84, 0.85)  # from Monday
_DAY_NOISE = 0.07

# probability that a session ends before an event: a Beta-distributed tendency per visitor, times a factor per kind
_BREAK_TENDENCY = (0.62, 1.17)
# a visitor with n times as many events as _BUSY has n ** -0.5 times the tendency
_BUSY, _BUSY_BREAKS_LESS = 5, 0.5
_BREAK_FACTOR = {VIEW: 1.0, ADD_TO_CART: 0.25, TRANSACTION: 0.25}

# (probability, seconds) of a gap within a session, by the kind of the event after it
_GAPS_S = {
    VIEW: ((0, 2), (0.1, 17), (0.25, 29), (0.5, 67), (0.75, 164), (0.9, 440), (0.97, 1150), (1, 1795)),
    ADD_TO_CART: ((0, 0.5), (0.1, 10), (0.25, 35), (0.5, 95), (0.75, 200), (0.9, 450), (1, 1795)),
    TRANSACTION: ((0, 20), (0.1, 75), (0.25, 135), (0.5, 268), (0.75, 460), (0.9, 800), (1, 1795)),
}
_ORDER_LINE_GAP_S = 0.004
_ROBOT_GAP_S = 5.0
_LARGEST_SESSION = 417
_ROBOT_SESSION_STEP = 7  # each robot has smaller sessions than the one before, by this number of events

# (probability, hours of average activity) between two sessions of a visitor
_WAITS_HOURS = (
    *((0, 0.65), (0.1, 1.1), (0.2, 1.9), (0.3, 3.3), (0.4, 6.5), (0.48, 14), (0.56, 36)),
    *((0.62, 80), (0.7, 155), (0.8, 350), (0.9, 840), (0.95, 1370), (1, 2900)),
)
_LONGEST_STAY = 0.97  # from a visitor's first session to the last, as a share of the period


@dataclass(frozen=True)
class Times:
    """The time and session of each event."""

    timestamp_ms: np.ndarray
    """[E] milliseconds since 1970 (UTC)."""

    session: np.ndarray
    """[E] number of the event's session. Sessions are numbered over all visitors, from 0 and in the order of the
    events."""


@dataclass(frozen=True)
class _Calendar:
    """Converts cumulative activity to time.

    The unit of activity is an hour of mean activity. Thus an hour at a busy time has more than one unit.
    """

    edges_ms: np.ndarray
    """Ascending times, in milliseconds since 1970."""

    hours: np.ndarray
    """Activity from the start of the log to each of these times, in hours of mean activity."""

    @property
    def total_hours(self) -> float:
        return float(self.hours[-1])

    def to_ms(self, hours: np.ndarray) -> np.ndarray:
        return np.interp(hours, self.hours, self.edges_ms).astype(np.int64)


def draw_times(interests: Interests, events: Events, is_robot: np.ndarray, random: np.random.Generator) -> Times:
    """Draws the times and sessions of all events. A visitor's events keep their order. `is_robot` [V] marks robots."""
    visitor = interests.visitor[events.interest]
    is_start = _draw_session_starts(visitor, events.kind, is_robot, random)
    is_same_order = _continues_order(interests.order[events.interest], events.kind)
    is_start &= ~is_same_order
    gap_ms = _draw_gaps_ms(events.kind, is_start, is_same_order, is_robot[visitor], random)
    session = np.cumsum(is_start) - 1
    first = np.flatnonzero(is_start)
    elapsed = np.cumsum(gap_ms)
    offset_ms = elapsed - elapsed[first][session]
    duration_ms = offset_ms[np.append(first[1:], len(visitor)) - 1]
    starts_ms = _draw_starts(visitor[first], duration_ms, is_robot, random)
    timestamp_ms = starts_ms[session] + offset_ms
    # the log starts and ends at Retailrocket's times
    timestamp_ms[np.argmin(timestamp_ms)], timestamp_ms[np.argmax(timestamp_ms)] = BEGIN_MS, END_MS
    return Times(timestamp_ms, session)


def first_times(times: Times, events: Events, num_interests: int) -> Times:
    """Returns the time and session of the first event of each interest (visitor-item pair), [D]."""
    first = np.empty(num_interests, np.int64)
    backwards = np.arange(len(events.interest))[::-1]
    first[events.interest[backwards]] = backwards  # the last assignment wins: the first event
    return Times(times.timestamp_ms[first], times.session[first])


def _draw_session_starts(
    visitor: np.ndarray, kind: np.ndarray, is_robot: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Draws which events start a session, a mask [E]. Events are sorted by visitor. `is_robot` [V] marks robots."""
    num_events = np.bincount(visitor, minlength=len(is_robot))
    tendency = random.beta(*_BREAK_TENDENCY, size=len(is_robot))
    tendency *= np.maximum(num_events / _BUSY, 1) ** -_BUSY_BREAKS_LESS
    factor = np.array([_BREAK_FACTOR[code] for code in (VIEW, ADD_TO_CART, TRANSACTION)])
    is_start = random.random(len(visitor)) < tendency[visitor] * factor[kind]
    is_start |= np.diff(visitor, prepend=-1) > 0

    of_robot = np.flatnonzero(is_robot[visitor])
    _, robot, sizes = np.unique(visitor[of_robot], return_inverse=True, return_counts=True)
    session_size = np.maximum(_LARGEST_SESSION - _ROBOT_SESSION_STEP * np.arange(len(sizes)), ROBOT_EVENTS_A_DAY + 1)
    # the busiest robot has the largest session
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    is_start[of_robot] = position_in_group(sizes) % session_size[rank[robot]] == 0
    return is_start


def _continues_order(order: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Returns a mask [E] of the purchases that directly follow a purchase of the same order.

    `order` [E] is the index of the order (one checkout) that contains the event's item, or -1.
    """
    is_line = kind == TRANSACTION
    return np.r_[False, is_line[1:] & is_line[:-1] & (order[1:] == order[:-1])]


def _draw_gaps_ms(
    kind: np.ndarray, is_start: np.ndarray, is_same_order: np.ndarray, is_robot: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Draws the milliseconds between each event and the previous event of the session, [E].

    The gap is 0 for the first event of a session, and at least 1 for other events. All arrays are [E].
    """
    uniform = random.random(len(kind))
    seconds = np.empty(len(kind))
    for code, knots in _GAPS_S.items():
        seconds[kind == code] = interpolated_quantiles(uniform[kind == code], knots)
    seconds[is_robot] = -_ROBOT_GAP_S * np.log1p(-uniform[is_robot])
    seconds[is_same_order] = _ORDER_LINE_GAP_S
    milliseconds = np.maximum(np.round(seconds * 1000).astype(np.int64), 1)
    milliseconds[is_start] = 0
    return milliseconds


def _draw_starts(
    visitor: np.ndarray, duration_ms: np.ndarray, is_robot: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """Draws the start of each session, [S], in milliseconds since 1970. Sessions are sorted by visitor."""
    calendar = _draw_calendar(random)
    sizes = np.bincount(visitor, minlength=len(is_robot))
    wait = interpolated_quantiles(random.random(len(visitor)), _WAITS_HOURS)
    even = calendar.total_hours / (sizes + 1)
    wait = np.where(is_robot[visitor], even[visitor], wait)
    wait[group_starts(sizes)] = 0
    since_first = np.cumsum(wait)
    since_first -= since_first[group_starts(sizes)][visitor]
    stay = since_first[np.cumsum(sizes) - 1]
    longest = calendar.total_hours * _LONGEST_STAY
    since_first *= np.minimum(1, longest / np.maximum(stay, 1e-9))[visitor]
    # the first session starts early enough for the last to be within the period
    first = random.random(len(sizes)) * (calendar.total_hours - np.minimum(stay, longest))
    return _keep_apart(visitor, calendar.to_ms(first[visitor] + since_first), duration_ms, sizes)


def _keep_apart(visitor: np.ndarray, start_ms: np.ndarray, duration_ms: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Moves session starts [S]: over 30 minutes pass between two sessions of a visitor, and all end within the log.

    Sessions are sorted by visitor. `sizes` [V] is the number of sessions per visitor.
    """
    blocked = duration_ms + _SESSION_GAP_MS + _MINUTE_MS
    before = np.cumsum(blocked) - blocked
    before -= before[group_starts(sizes)][visitor]
    # a running maximum per visitor: the lift puts each visitor above the one before
    lift = visitor * 4 * (END_MS - BEGIN_MS)
    start_ms = np.maximum.accumulate(start_ms - before + lift) - lift + before
    last = np.cumsum(sizes) - 1
    overrun = np.maximum(start_ms[last] + duration_ms[last] - END_MS, 0)
    return start_ms - overrun[visitor]


def _draw_calendar(random: np.random.Generator) -> _Calendar:
    edges_ms = np.append(np.arange(BEGIN_MS, END_MS, _MINUTE_MS), END_MS)
    hour, day = edges_ms // _HOUR_MS % 24, edges_ms // (24 * _HOUR_MS)
    weekday = (day + 3) % 7  # 1970-01-01 was a Thursday
    noise = random.lognormal(sigma=_DAY_NOISE, size=int(day[-1] - day[0]) + 1)
    rate = np.array(_HOURS)[hour] * np.array(_WEEKDAYS)[weekday] * noise[day - day[0]]
    busy = np.append(0, np.cumsum(rate[:-1] * np.diff(edges_ms)))
    return _Calendar(edges_ms, busy / busy[-1] * (END_MS - BEGIN_MS) / _HOUR_MS)
