"""The Items section: most frequent items, concentration, categories and new items."""

from collections.abc import Sequence
from typing import Any

from common.report import charts
from common.report.page import Note, Part, Picture, Section, Table, share
from common.report.parts import Statistics, histogram, ranking

_MAX_CELLS = 120  # more rectangles would be too small to see
_OTHERS = "others"


def items_section(statistics: Statistics) -> Section:
    """Charts the top items, events per item, concentration, events by category and new items."""
    items = statistics["items"]
    by_kind = items["top_items_by_kind"]
    return Section(
        "Items",
        [
            *(
                ranking(f"items-{code}", f"Top items by {kind}", "item", _entries(rows), "events")
                for code, (kind, rows) in enumerate(by_kind.items() if len(by_kind) > 1 else ())
            ),
            ranking("items-top", "Top 5 items, all events", "item", _entries(items["top_items"]), "events", shown=5),
            histogram("items-histogram", "Events per item", items["events_per_item"], of="items", unit="events"),
            _concentration(items["concentration"]),
            _categories(statistics["catalogue"]["events_by_category"]),
            _new_items(items["new_items_by_day"]),
        ],
    )


def _entries(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["item_id"], row["events"]) for row in rows]


def _concentration(concentration: Statistics) -> Picture:
    shares = concentration["lorenz"]
    portions = [index / (len(shares) - 1) for index in range(len(shares))]
    gini = concentration["gini"]
    return Picture(
        title="Concentration of events on items (Lorenz curve)",
        summary=(
            f"The top 20% of the items have {concentration['top_20_percent_share']:.1%} of the events; the Gini "
            f"coefficient is {gini:.3f} (0: all items have equally many, 1: one item has all)."
        ),
        svg=charts.curve(
            "lorenz",
            portions,
            shares,
            x_label="share of the items, least popular first",
            y_label="share of the events",
            note=f"Gini {gini:.3f}",
        ),
        table=Table(
            ["least popular items", "their share of events"],
            [[f"{portion:.0%}", f"{shared:.2%}"] for portion, shared in zip(portions, shares, strict=True)],
        ),
    )


def _categories(categories: Sequence[dict[str, Any]]) -> Part:
    if not categories:
        return Note(
            "Events by category: no item with training events has a known category; categories come from "
            "--item-properties or an item table."
        )
    total = sum(entry["events"] for entry in categories)
    groups = _group(categories)
    name, parts = groups[0]
    return Picture(
        title="Events by category",
        summary=(
            f"{total:,} training events of items with a category, by root and the level below it. The largest root, "
            f"{name}, has {share(sum(events for _, events in parts), total)}."
        ),
        svg=charts.treemap("categories", groups),
        table=Table(
            ["category", "path from the root", "events"],
            [[entry["category_id"], " › ".join(entry["path"]), entry["events"]] for entry in categories[:200]],
        ),
        is_wide=True,
    )


def _group(categories: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Adds up events by root category and the category below it, largest first. Small categories become `others`."""
    events: dict[tuple[str, str], int] = {}
    for entry in categories:
        key = entry["path"][0], entry["path"][1] if len(entry["path"]) > 1 else entry["path"][0]
        events[key] = events.get(key, 0) + entry["events"]
    kept = sorted(events, key=lambda key: (-events[key], key))
    roots: dict[str, list[tuple[str, float]]] = {}
    for rank, (root, name) in enumerate(kept):
        is_drawn = rank < _MAX_CELLS
        roots.setdefault(root if is_drawn else _OTHERS, []).append((name, events[root, name]))
    rest = roots.pop(_OTHERS, [])
    if rest:
        roots[_OTHERS] = [(_OTHERS, sum(count for _, count in rest))]
    return sorted(roots.items(), key=lambda entry: -sum(count for _, count in entry[1]))


def _new_items(by_day: Statistics) -> Picture:
    return Picture(
        title="New items over time",
        summary=(
            f"{sum(by_day.values()):,} items by the day of their first event. All items count as new on the first day "
            "of the log."
        ),
        svg=charts.days("new-items", [("items seen for the first time", dict(by_day))], height=190),
        table=Table(["day", "new items"], list(by_day.items())),
        is_wide=True,
    )
