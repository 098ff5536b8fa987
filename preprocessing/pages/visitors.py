"""The Visitors section: activity, funnel, sessions and new visitors."""

from collections.abc import Sequence

from common.report import charts
from common.report.drawing import compact, shorten
from common.report.page import Part, Picture, Section, Table, share
from common.report.parts import Statistics, counted, durations, histogram, ranking


def visitors_section(statistics: Statistics) -> Section:
    """Charts the top visitors, events per visitor, the funnel, sessions, pauses and new visitors."""
    events = statistics["events"]
    # a log of purchases may have the default kinds, of which only one occurs
    has_funnel = sum(count > 0 for count in events["visitors_by_kind"].values()) > 1
    sessions = events["sessions"]
    pause = sessions["gap_minutes"]
    return Section(
        "Visitors",
        [
            *(
                ranking(f"visitors-{code}", f"Top visitors by {kind}", "visitor", _entries(rows), "events")
                for code, (kind, rows) in enumerate(events["top_visitors_by_kind"].items())
            ),
            ranking(
                "visitors-top",
                "Top 5 visitors, all events",
                "visitor",
                _entries(events["top_visitors"]),
                "events",
                shown=5,
            ),
            histogram(
                "visitors-histogram", "Events per visitor", events["events_per_visitor"], of="visitors", unit="events"
            ),
            *([_pair_funnel(events["funnel"])] if has_funnel else []),
            *([_visitor_funnel(events["visitors"], events["visitors_by_kind"])] if has_funnel else []),
            histogram(
                "sessions",
                f"Events per session (a pause above {pause} minutes ends it)",
                sessions["events_per_session"],
                of="sessions",
                unit="events",
                colour=2,
            ),
            durations("session-seconds", "Session durations", sessions["seconds"], of="sessions", colour=2),
            durations("gaps", "Pauses between a visitor's events", events["gap_seconds"], of="pauses", colour=2),
            _new_visitors(events["new_visitors_by_day"]),
        ],
    )


def _entries(rows: Sequence[Statistics]) -> list[tuple[str, int]]:
    return [(row["visitor_id"], row["events"]) for row in rows]


def _pair_funnel(funnel: Statistics) -> Picture:
    by_kind, steps = funnel["by_kind"], funnel["steps"]
    first, last = next(iter(by_kind)), steps[-1]["kind"]
    chain = [by_kind[first], *(step["after_all"] for step in steps)]
    # each bar is a part of the one above; the pairs of the last bar may lack the kinds in between
    bars = [(first, chain[0], "")]
    for step, before, count in zip(steps, chain[:-1], chain[1:], strict=True):
        bars.append((f"… then {step['kind']}", count, f" ({share(count, before)} of these)"))
    if len(steps) > 1:
        direct = steps[-1]["after_first"]
        bars.append((f"{first}, then {last}", direct, f" ({share(direct, chain[0])} of {shorten(first)})"))
    return Picture(
        title=f"From {first} to {last}, visitor-item pairs",
        summary=f"{counted(chain[0], 'pairs')} with {first}: "
        + "; ".join(f"{name.removeprefix('… ')} {count:,}{part}" for name, count, part in bars[1:])
        + ".",
        svg=charts.bars(
            "funnel",
            [name for name, _, _ in bars],
            [count for _, count, _ in bars],
            notes=[f"{compact(count)}{part}" for _, count, part in bars],
        ),
        table=Table(
            [
                "event kind",
                "pairs",
                "after the previous kind",
                "after the first kind",
                "after all kinds before, in order",
            ],
            [
                [first, chain[0], None, None, None],
                *(
                    [s["kind"], by_kind[s["kind"]], s["after_previous"], s["after_first"], s["after_all"]]
                    for s in steps
                ),
            ],
        ),
    )


def _visitor_funnel(visitors: int, by_kind: Statistics) -> Picture:
    shares = {kind: share(count, visitors) for kind, count in by_kind.items()}
    return Picture(
        title="Visitors by event kind",
        summary=f"{visitors:,} visitors. With events: {', '.join(f'{kind} {part}' for kind, part in shares.items())}.",
        svg=charts.bars(
            "visitor-funnel",
            list(by_kind),
            list(by_kind.values()),
            notes=[f"{compact(count)} ({shares[kind]})" for kind, count in by_kind.items()],
        ),
        table=Table(
            ["event kind", "visitors", "share"], [[kind, count, shares[kind]] for kind, count in by_kind.items()]
        ),
    )


def _new_visitors(by_day: Statistics) -> Part:
    return Picture(
        title="New visitors over time",
        summary=f"{sum(by_day.values()):,} visitors by the day of their first event.",
        svg=charts.days("new-visitors", [("visitors seen for the first time", dict(by_day))], height=190),
        table=Table(["day", "new visitors"], list(by_day.items())),
        is_wide=True,
    )
