"""Item popularity: most frequent items, concentration, new items by day, and items without training events by split.

Shapes: I items.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.schema import Split
from preprocessing.columns import EncodedTable, decode_columns, sort_by_count
from preprocessing.splits import SPLITS
from preprocessing.statistics.distributions import (
    count_values,
    cross_tabulate,
    describe_histogram,
    label_days,
    label_kinds,
)
from preprocessing.timelines import MS_PER_DAY, Timelines
from preprocessing.vocabularies import count_items, kind_columns, stack_kinds

TOP = 20
_LORENZ_POINTS = 100


def count_items_by_split(timelines: Timelines, splits: np.ndarray, num_kinds: int) -> pa.Table:
    """Counts the events of each item, in total, by kind and by split.

    Returns the columns of `count_items` and one column per split. `splits` [N]: index of each row's split in SPLITS.
    """
    counts = cross_tabulate(timelines.item_code, splits, len(timelines.items), len(SPLITS))
    table = count_items(timelines, np.ones(len(timelines), bool), num_kinds)
    has_events = counts.sum(1) > 0
    for index, split in enumerate(SPLITS):
        table = table.append_column(str(split), pa.array(counts[has_events, index]))
    return table


def describe_items(encoded: EncodedTable, kinds: Sequence[str]) -> dict[str, Any]:
    """Returns statistics of the items with events, as JSON values. `encoded`: the table from `count_items_by_split`."""
    items = decode_columns(encoded)
    counts = items["count"].to_numpy()
    days = items["first_seen_ms"].to_numpy() // MS_PER_DAY
    return {
        "items": len(items),
        "items_by_kind": label_kinds((stack_kinds(items) > 0).sum(0), kinds),
        "events_per_item": describe_histogram(count_values(counts)),
        "concentration": _describe_concentration(counts),
        "new_items_by_day": label_days(count_values(days)),
        "by_split": {str(split): _describe_split(items, split) for split in SPLITS},
        "top_items": _top_items(items, "count"),
        "top_items_by_kind": {
            kind: _top_items(items, column) for kind, column in zip(kinds, kind_columns(len(kinds)), strict=True)
        },
    }


def describe_categories(encoded: EncodedTable, paths: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Returns the path and the number of training events of each category, most frequent first.

    Args:
      encoded: number of training events by category id; empty bytes if there are no categories.
      paths: ids from the root to the category, by category id. A category without a path is a root.
    """
    if not encoded:
        return []
    ordered = sort_by_count(decode_columns(encoded))
    return [
        {"category_id": row["id"], "path": list(paths.get(row["id"], (row["id"],))), "events": row["count"]}
        for row in ordered.filter(pc.greater(ordered["count"], 0)).to_pylist()
    ]


def compute_lorenz(counts: np.ndarray) -> tuple[list[float], float]:
    """Computes how strongly the events are concentrated on the most popular items.

    Args:
      counts: [I] events per item, above 0; at least one item.

    Returns:
      The Lorenz curve and the Gini coefficient. The curve lists which share of the events belongs to the least popular
      0%, 1% … 100% of the items.
    """
    ascending = np.sort(counts).astype(np.int64)
    below = np.append(0, np.cumsum(ascending))
    positions = np.arange(_LORENZ_POINTS + 1) * len(ascending) / _LORENZ_POINTS
    shares = np.interp(positions, np.arange(len(below)), below / below[-1])
    size, total = len(ascending), int(below[-1])
    weighted = int((ascending * np.arange(1, size + 1)).sum())
    return shares.round(6).tolist(), round((2 * weighted - (size + 1) * total) / (size * total), 6)


def _describe_concentration(counts: np.ndarray) -> dict[str, Any]:
    shares, gini = compute_lorenz(counts)
    return {"gini": gini, "top_20_percent_share": round(1 - shares[80 * _LORENZ_POINTS // 100], 6), "lorenz": shares}


def _describe_split(items: pa.Table, split: Split) -> dict[str, int]:
    events = items[str(split)].to_numpy()
    is_new = items[str(Split.TRAIN)].to_numpy() == 0
    return {
        "items": int((events > 0).sum()),
        "new_items": int(((events > 0) & is_new).sum()),
        "events_of_new_items": int(events[is_new].sum()),
    }


def _top_items(items: pa.Table, column: str) -> list[dict[str, Any]]:
    rows = sort_by_count(items, column).slice(0, TOP).select(["id", column]).to_pylist()
    return [{"item_id": row["id"], "events": row[column]} for row in rows if row[column]]
