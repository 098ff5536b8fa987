"""Two sections: the Input section (rows, rejects and catalogue), and the comparison with a baseline."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.report.page import Block, Cell, Columns, Facts, Note, Part, Section, Table, share
from common.report.parts import Statistics, counts

_INPUTS = (("events", "events"), ("item_properties", "item properties"), ("category_tree", "category tree"))


def reading_section(statistics: Statistics) -> Section:
    """Shows statistics of the inputs and the catalogue, and the numbers of excluded and rejected rows."""
    events, items = statistics["events"], statistics["items"]
    pairs, possible = events["funnel"]["pairs"], events["visitors"] * items["items"]
    facts = Facts(
        [
            ("rows read", events["rows"]),
            ("rejected", sum(events["rejected"].values())),
            ("filtered", sum(events["filtered"].values())),
            ("exact duplicates", events["duplicates"]),
            ("robot visitors", events["robot_visitors"]),
            ("robot events", events["robot_events"]),
            ("events kept", events["events"]),
            ("visitors", events["visitors"]),
            ("items", items["items"]),
            ("days", len(events["by_day"])),
            ("visitor-item pairs", pairs),
            ("sparsity", format_sparsity(pairs, possible)),
            *([("mean weight of events", events["mean_weight"])] if events["mean_weight"] != 1 else []),
        ]
    )
    sparse = Note(
        f"Sparsity: {format_sparsity(pairs, possible)} of the {possible:,} visitor-item pairs have no events. "
        "A recommender predicts which items each visitor would like."
    )
    columns = Columns([_inputs(statistics), _catalogue(statistics)])
    return Section("Input", [facts, sparse, *_filtered(events["filtered"]), *_rejects(statistics), columns])


def comparison_section(comparison: Mapping[str, Any]) -> Section:
    """Shows `comparison.json` in a table, and marks the distances from the baseline that exceed a limit."""
    checks = comparison["checks"]
    outside = [check["name"] for check in checks if check["verdict"] != "ok"]
    rows = [[c["name"], c["baseline"], c["found"], c["distance"], c["warn"], c["fail"], c["verdict"]] for c in checks]
    marked = frozenset((row, 6) for row, check in enumerate(checks) if check["verdict"] != "ok")
    header = ["figure", "baseline", "this dataset", "distance", "warn above", "fail above", "verdict"]
    verdict = f"Outside the limits: {', '.join(outside)}." if outside else "All figures are within their limits."
    return Section(
        f"Compared with {comparison['baseline']}",
        [Note(verdict, is_warning=bool(outside)), Block("Checks", Table(header, rows, marked))],
    )


def format_sparsity(pairs: int, possible: int) -> str:
    """Formats the share of visitor-item pairs without events, such as `99.978%`.

    Args:
      pairs: number of pairs with events.
      possible: number of all pairs.
    """
    percent = 100 * pairs / possible
    return f"{100 - percent:.{max(1 - math.floor(math.log10(percent)), 1)}f}%"


def _filtered(filtered: Mapping[str, int]) -> list[Part]:
    if not filtered:
        return []
    rows: list[Sequence[Cell]] = [[condition, count] for condition, count in filtered.items()]
    return [Block("Filtered rows: events", Table(["condition", "rows"], rows))]


def _rejects(statistics: Statistics) -> list[Part]:
    parts: list[Part] = []
    for key, name in _INPUTS:
        read = statistics[key]
        if read and read["rejected"]:
            examples = [
                [reason, found["file"], found["position"], found["row"]]
                for reason, rows in read["reject_examples"].items()
                for found in rows
            ]
            parts += [
                counts(f"rejects-{key}", f"Rejected rows: {name}", read["rejected"], "rejected rows"),
                Block(f"Examples of rejected rows: {name}", Table(["reason", "file", "position", "row"], examples)),
            ]
    return parts or [Note("No rows were rejected.")]


def _inputs(statistics: Statistics) -> Block:
    rows: list[Sequence[Cell]] = []
    for key, name in _INPUTS:
        read = statistics[key]
        if not read or not read["rows"]:
            rows.append([name, "not given", None, None])
            continue
        rejected = sum(read["rejected"].values())
        rows.append([name, read["rows"], rejected, read["blank_lines"]])
    return Block("Inputs", Table(["input", "rows", "rejected", "blank lines"], rows))


def _catalogue(statistics: Statistics) -> Block:
    catalogue = statistics["catalogue"]
    rows: list[Sequence[Cell]] = [
        [name, catalogue[key], share(catalogue[key], catalogue["items"])]
        for key, name in (
            ("items", "items"),
            ("outside_vocabulary", "not in the vocabulary"),
            ("without_training_events", "without training events"),
            ("with_title", "with a title"),
            ("with_category", "with a category"),
            ("with_category_outside_tree", "with a category missing from the tree"),
            ("with_price", "with a price"),
            ("invalid_prices", "with an invalid price"),
            ("with_availability", "with an availability"),
            ("available", "available"),
        )
    ]
    tree = statistics["category_tree"]
    rows += [
        [f"category tree: {name}", tree[name], None] for name in ("categories", "roots", "levels", "cycles", "orphans")
    ]
    return Block("Catalogue for training", Table(["", "count", "share of items"], rows))
