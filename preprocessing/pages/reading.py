"""What was read and what was left out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.report.page import Block, Cell, Columns, Facts, Note, Part, Section, Table, share
from common.report.parts import Statistics, counts

_INPUTS = (("events", "events"), ("item_properties", "item properties"), ("category_tree", "category tree"))


def reading_section(statistics: Statistics) -> Section:
    """Rows, rejects with examples, duplicates, robots, and what is known of the items."""
    events, items = statistics["events"], statistics["items"]
    pairs, possible = events["funnel"]["pairs"], events["visitors"] * items["items"]
    facts = Facts(
        [
            ("rows read", events["rows"]),
            ("rejected", sum(events["rejected"].values())),
            ("exact duplicates", events["duplicates"]),
            ("robot visitors", events["robot_visitors"]),
            ("events of robots", events["robot_events"]),
            ("events kept", events["events"]),
            ("visitors", events["visitors"]),
            ("items", items["items"]),
            ("days", len(events["by_day"])),
            ("visitor-item pairs", pairs),
            ("sparsity", sparsity(pairs, possible)),
        ]
    )
    sparse = Note(
        f"Sparsity: of {possible:,} pairs of a visitor and an item {sparsity(pairs, possible)} have no event; "
        "a recommender guesses which of them would please."
    )
    columns = Columns([_inputs(statistics), _catalogue(statistics)])
    return Section("What was read", [facts, sparse, *_rejects(statistics), columns])


def comparison_section(comparison: Mapping[str, Any]) -> Section:
    """The checks of `comparison.json`, those outside of a limit marked."""
    checks = comparison["checks"]
    unlike = [check["name"] for check in checks if check["verdict"] != "ok"]
    rows = [[c["name"], c["baseline"], c["found"], c["distance"], c["warn"], c["fail"], c["verdict"]] for c in checks]
    marked = frozenset((row, 6) for row, check in enumerate(checks) if check["verdict"] != "ok")
    header = ["figure", "baseline", "this dataset", "distance", "warn above", "fail above", "verdict"]
    verdict = f"Unlike the baseline: {', '.join(unlike)}." if unlike else "All figures are within their limits."
    return Section(
        f"Compared with {comparison['baseline']}",
        [Note(verdict, is_warning=bool(unlike)), Block("Checks", Table(header, rows, marked))],
    )


def sparsity(pairs: int, possible: int) -> str:
    """`99.978%`: the share of possible pairs that have no event, to two digits of what lacks to 100%."""
    percent = 100 * pairs / possible
    return f"{100 - percent:.{max(1 - math.floor(math.log10(percent)), 1)}f}%"


def _rejects(statistics: Statistics) -> list[Part]:
    parts: list[Part] = []
    for key, name in _INPUTS:
        read = statistics[key]
        if read and read["rejected"]:
            examples = [
                [reason, found["file"], found["byte"], found["row"]]
                for reason, rows in read["reject_examples"].items()
                for found in rows
            ]
            parts += [
                counts(f"rejects-{key}", f"Rejected rows of the {name}, by reason", read["rejected"], "rejected rows"),
                Block(f"Examples of rejected rows: {name}", Table(["reason", "file", "byte", "row"], examples)),
            ]
    return parts or [Note("No row was rejected.")]


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
    known = statistics["catalogue"]
    rows: list[Sequence[Cell]] = [
        [name, known[key], share(known[key], known["items"])]
        for key, name in (
            ("items", "items"),
            ("outside_vocabulary", "not in the vocabulary"),
            ("without_training_events", "without a training event"),
            ("with_title", "with a title"),
            ("with_category", "with a category"),
            ("with_category_outside_tree", "with a category that the tree lacks"),
            ("with_price", "with a price"),
            ("invalid_prices", "with a price that is no number"),
            ("with_availability", "with an availability"),
            ("available", "available"),
        )
    ]
    tree = statistics["category_tree"]
    rows += [
        [f"category tree: {name}", tree[name], None] for name in ("categories", "roots", "levels", "cycles", "orphans")
    ]
    return Block("Catalogue, as known at the first cut", Table(["", "count", "share of items"], rows))
