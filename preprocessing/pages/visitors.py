"""The Visitors section: activity, funnel, sessions and new visitors."""

from common.report import charts
from common.report.drawing import compact
from common.report.page import Part, Picture, Section, Table, share
from common.report.parts import Statistics, durations, histogram, ranking

_TITLES = (("view", "views"), ("addtocart", "carts"), ("transaction", "transactions"))


def visitors_section(statistics: Statistics) -> Section:
    """Charts the top visitors, events per visitor, the funnel, sessions, pauses and new visitors."""
    events = statistics["events"]
    top = {kind: [(row["visitor_id"], row["events"]) for row in rows] for kind, rows in events["top_visitors"].items()}
    sessions = events["sessions"]
    pause = sessions["gap_minutes"]
    return Section(
        "Visitors",
        [
            *(
                ranking(f"visitors-{kind}", f"Top visitors by {unit}", "visitor", top[kind], unit)
                for kind, unit in _TITLES
            ),
            ranking("visitors-top", "Top 5 visitors, all events", "visitor", top["all"], "events", shown=5),
            histogram(
                "visitors-histogram", "Events per visitor", events["events_per_visitor"], of="visitors", unit="events"
            ),
            _pair_funnel(events["funnel"]),
            _visitor_funnel(events["visitors"], events["visitors_by_kind"]),
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


def _pair_funnel(funnel: Statistics) -> Picture:
    viewed, carted, bought = (funnel["by_kind"][kind] for kind, _ in _TITLES)
    then_carted, then_bought = funnel["carted_after_view"], funnel["bought_after_view_and_cart"]
    after_view = funnel["bought_after_view"]
    # the second and third bar are parts of the one above; pairs bought after a view may lack a cart
    steps = [
        ("viewed", viewed, ""),
        ("… then carted", then_carted, f" ({share(then_carted, viewed)} of viewed)"),
        ("… then bought", then_bought, f" ({share(then_bought, then_carted)} of these)"),
        ("viewed, then bought", after_view, f" ({share(after_view, viewed)} of viewed)"),
    ]
    return Picture(
        title="From view to cart to purchase, visitor-item pairs",
        summary=(
            f"Of {viewed:,} viewed pairs, {then_carted:,} ({share(then_carted, viewed)}) were carted later, and "
            f"{then_bought:,} ({share(then_bought, then_carted)}) of these were bought. {after_view:,} "
            f"({share(after_view, viewed)}) were bought after a view, carted or not. {share(then_carted, carted)} of "
            f"carted pairs were viewed before, and {share(funnel['bought_after_cart'], bought)} of bought pairs carted."
        ),
        svg=charts.bars(
            "funnel",
            [name for name, _, _ in steps],
            [count for _, count, _ in steps],
            notes=[f"{compact(count)}{part}" for _, count, part in steps],
        ),
        table=Table(
            ["step", "pairs"],
            [
                ["pairs", funnel["pairs"]],
                ["viewed", viewed],
                ["carted", carted],
                ["carted after a view", funnel["carted_after_view"]],
                ["bought", bought],
                ["bought after a view", funnel["bought_after_view"]],
                ["bought after a cart", funnel["bought_after_cart"]],
                ["bought after a view and then a cart", then_bought],
            ],
        ),
    )


def _visitor_funnel(visitors: int, by_kind: Statistics) -> Picture:
    counts = [by_kind[kind] for kind, _ in _TITLES]
    labels = ["viewed", "carted", "bought"]
    return Picture(
        title="Visitors who viewed, carted, bought",
        summary=f"Of {visitors:,}, {share(counts[1], visitors)} carted and {share(counts[2], visitors)} bought.",
        svg=charts.bars(
            "visitor-funnel",
            labels,
            counts,
            notes=[f"{compact(count)} ({share(count, visitors)})" for count in counts],
        ),
        table=Table(
            ["visitors who", "visitors", "share"],
            [[label, count, share(count, visitors)] for label, count in zip(labels, counts, strict=True)],
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
