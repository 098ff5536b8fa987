"""How active visitors are, how they get from a view to a purchase, and what their sessions are like."""

from common.report import charts
from common.report.drawing import compact
from common.report.page import Part, Picture, Section, Table, share
from common.report.parts import Statistics, durations, histogram, ranking

_TITLES = (("view", "views"), ("addtocart", "carts"), ("transaction", "transactions"))


def visitors_section(statistics: Statistics) -> Section:
    """Top visitors, activity, funnel, sessions and pauses, new visitors."""
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
                "visitors-histogram", "Events a visitor", events["events_per_visitor"], of="visitors", what="events"
            ),
            _pair_funnel(events["funnel"]),
            _visitor_funnel(events["visitors"], events["visitors_by_kind"]),
            histogram(
                "sessions",
                f"Events a session (a pause of {pause} minutes ends one)",
                sessions["events_per_session"],
                of="sessions",
                what="events",
                colour=2,
            ),
            durations("session-seconds", "How long a session lasts", sessions["seconds"], of="sessions", colour=2),
            durations("gaps", "Pauses between a visitor's events", events["gap_seconds"], of="pauses", colour=2),
            _new_visitors(events["new_visitors_by_day"]),
        ],
    )


def _pair_funnel(funnel: Statistics) -> Picture:
    viewed, carted, bought = (funnel["by_kind"][kind] for kind, _ in _TITLES)
    went_on, finished = funnel["carted_after_view"], funnel["bought_after_view_and_cart"]
    after_view = funnel["bought_after_view"]
    # each of the first three is a part of the one above it; what was bought after a view need not have been carted
    steps = [
        ("viewed", viewed, ""),
        ("… then carted", went_on, f" ({share(went_on, viewed)} of viewed)"),
        ("… then bought", finished, f" ({share(finished, went_on)} of these)"),
        ("viewed, then bought", after_view, f" ({share(after_view, viewed)} of viewed)"),
    ]
    return Picture(
        title="From view to cart to purchase, visitor-item pairs",
        summary=(
            f"Of {viewed:,} viewed pairs {went_on:,} ({share(went_on, viewed)}) went on to the cart, and of these "
            f"{finished:,} ({share(finished, went_on)}) to a purchase. Bought after a view, carted or not, were "
            f"{after_view:,} ({share(after_view, viewed)}). {share(went_on, carted)} of carts follow a view, "
            f"{share(funnel['bought_after_cart'], bought)} of purchases a cart."
        ),
        svg=charts.bars(
            "funnel",
            [name for name, _, _ in steps],
            [count for _, count, _ in steps],
            notes=[f"{compact(count)}{told}" for _, count, told in steps],
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
                ["bought after a view and then a cart", finished],
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
