"""The Items section: most frequent items, concentration, categories and new items."""

from collections.abc import Sequence
from typing import Any

from common.report import charts
from common.report.page import Note, Part, Picture, Section, Table, share
from common.report.parts import Statistics, histogram, ranking

_TITLES = (("view", "viewed", "views"), ("addtocart", "carted", "carts"), ("transaction", "bought", "transactions"))
_MAX_CELLS = 120  # more rectangles would be too small to see
_OTHERS = "others"


def items_section(statistics: Statistics) -> Section:
    """Charts the top items, events per item, concentration, views by category and new items."""
    items = statistics["items"]
    top = {kind: [(row["item_id"], row["events"]) for row in rows] for kind, rows in items["top_items"].items()}
    return Section(
        "Items",
        [
            *(ranking(f"items-{kind}", f"Most {name} items", "item", top[kind], unit) for kind, name, unit in _TITLES),
            ranking("items-top", "Top 5 items, all events", "item", top["all"], "events", shown=5),
            histogram("items-histogram", "Events per item", items["events_per_item"], of="items", unit="events"),
            _concentration(items["concentration"]),
            _categories(statistics["catalogue"]["views_by_category"]),
            _new_items(items["new_items_by_day"]),
        ],
    )


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
        return Note("Views by category: no viewed item has a known category; categories come from --item-properties.")
    total = sum(entry["views"] for entry in categories)
    groups = _group(categories)
    name, parts = groups[0]
    return Picture(
        title="Views by category",
        summary=(
            f"{total:,} training views of items with a category, by root and the level below it. The largest root, "
            f"{name}, has {share(sum(views for _, views in parts), total)}."
        ),
        svg=charts.treemap("categories", groups),
        table=Table(
            ["category", "path from the root", "views"],
            [[entry["category_id"], " › ".join(entry["path"]), entry["views"]] for entry in categories[:200]],
        ),
        is_wide=True,
    )


def _group(categories: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Groups views by root and the level below it, descending; small groups are combined at the end."""
    views: dict[tuple[str, str], int] = {}
    for entry in categories:
        key = entry["path"][0], entry["path"][1] if len(entry["path"]) > 1 else entry["path"][0]
        views[key] = views.get(key, 0) + entry["views"]
    kept = sorted(views, key=lambda key: (-views[key], key))
    roots: dict[str, list[tuple[str, float]]] = {}
    for rank, (root, name) in enumerate(kept):
        is_drawn = rank < _MAX_CELLS
        roots.setdefault(root if is_drawn else _OTHERS, []).append((name, views[root, name]))
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
