"""The Events section: event kinds, days, hours and correlations."""

from collections.abc import Sequence

from common.report import charts
from common.report.page import Note, Part, Picture, Section, Table, share
from common.report.parts import Statistics, counts

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def events_section(statistics: Statistics, marks: Sequence[tuple[str, float]]) -> Section:
    """Charts event kinds, events per day and per hour of the week, and correlations.

    `marks` are the starts of validation and test, for the chart of days: (name of the split, days since 1970).
    """
    by_kind = statistics["events"]["by_kind"]
    return Section(
        "Events",
        [
            counts("actions", "Events by kind", by_kind, "events"),
            *([_other_kinds(by_kind), _shares(by_kind)] if len(by_kind) > 1 else []),
            _by_day(statistics["events"]["by_day"], marks),
            _by_hour(statistics["events"]["by_weekday_hour"]),
            _correlation(statistics["correlation"]),
        ],
    )


def _other_kinds(by_kind: Statistics) -> Part:
    """Charts the event kinds except the most frequent one, because its bar would make the other bars too short."""
    largest = max(by_kind, key=lambda kind: by_kind[kind])
    title = f"Events by kind, without {largest}"
    others = {kind: count for kind, count in by_kind.items() if kind != largest}
    return counts("other-kinds", title, others, "events") if any(others.values()) else Note(f"{title}: no data.")


def _shares(by_kind: Statistics) -> Picture:
    total = sum(by_kind.values())
    return Picture(
        title="Shares of event kinds",
        summary=", ".join(f"{share(count, total)} {kind}" for kind, count in by_kind.items()) + ".",
        svg=charts.shares("kinds", list(by_kind), list(by_kind.values())),
        table=Table(["kind", "events", "share"], [[kind, n, share(n, total)] for kind, n in by_kind.items()]),
    )


def _by_day(by_day: Statistics, marks: Sequence[tuple[str, float]]) -> Picture:
    busiest = max(by_day, key=lambda day: sum(by_day[day].values()))
    kinds = list(by_day[busiest])
    present = [kind for kind in kinds if any(counts[kind] for counts in by_day.values())]
    cuts = f" Dashed lines: start of {' and '.join(name for name, _ in marks)}." if marks else ""
    most = sum(by_day[busiest].values())
    return Picture(
        title="Events per day, by kind",
        summary=f"{_period(by_day)} (UTC). Most events: {most:,} on {busiest}.{cuts}",
        svg=charts.days(
            "by-day", [(kind, {day: counts[kind] for day, counts in by_day.items()}) for kind in present], marks=marks
        ),
        table=Table(["day", *kinds], [[day, *(n[kind] for kind in kinds)] for day, n in by_day.items()]),
        is_wide=True,
    )


def _period(by_day: Statistics) -> str:
    first, last = min(by_day), max(by_day)
    return f"From {first} to {last}" if first != last else f"On {first}"


def _by_hour(matrix: Sequence[Sequence[int]]) -> Picture:
    hours = [sum(row[hour] for row in matrix) for hour in range(24)]
    days = [sum(row) for row in matrix]
    return Picture(
        title="Events by weekday and hour (UTC)",
        summary=(
            f"Busiest: {_WEEKDAYS[days.index(max(days))]} and the hour from {hours.index(max(hours))}:00. "
            f"Quietest: {_WEEKDAYS[days.index(min(days))]} and the hour from {hours.index(min(hours))}:00."
        ),
        svg=charts.heat_map(
            "by-hour", [day[:3] for day in _WEEKDAYS], [str(hour) for hour in range(24)], matrix, height=380
        ),
        table=Table(
            ["", *(f"{hour}:00" for hour in range(24))],
            [[day, *row] for day, row in zip(_WEEKDAYS, matrix, strict=True)],
        ),
    )


def _correlation(correlation: Statistics) -> Picture:
    names, matrix = correlation["columns"], correlation["matrix"]
    return Picture(
        title="Correlation of columns",
        summary=(
            "Pearson's r over all events. Ranks start at the most frequent id, so rare visitors and items have high "
            "ranks. Visitors and items without training events have the highest ranks, and their events are late."
        ),
        svg=charts.heat_map("correlation", names, names, matrix, has_sign=True, height=380),
        table=Table(["", *names], [[name, *row] for name, row in zip(names, matrix, strict=True)]),
    )
