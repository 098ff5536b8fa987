"""Which items are touched, how unevenly, since when, and how many of a split's were never trained on.

Shapes: I items.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.schema import EVENT_KINDS, Split
from preprocessing.columns import by_count, decode_columns
from preprocessing.splits import SPLITS
from preprocessing.statistics.distributions import by_date, count_values, cross, describe_histogram
from preprocessing.timelines import MS_A_DAY, Timelines
from preprocessing.vocabularies import count_items

TOP = 20
_LORENZ_POINTS = 100
_COLUMNS = {"all": "count"} | dict(zip(EVENT_KINDS, ("views", "carts", "transactions"), strict=True))


def count_items_by_split(timelines: Timelines, splits: np.ndarray) -> pa.Table:
    """The item counts of all rows (see `count_items`), and beside them the events of each split."""
    counts = cross(timelines.item_code, splits, len(timelines.items), len(SPLITS))
    table = count_items(timelines, np.ones(len(timelines), bool))
    is_touched = counts.sum(1) > 0
    for place, split in enumerate(SPLITS):
        table = table.append_column(str(split), pa.array(counts[is_touched, place]))
    return table


def describe_items(encoded: bytes) -> dict[str, Any]:
    """The items touched, as JSON, from their encoded count table of `count_items_by_split`."""
    items = decode_columns(encoded)
    counts = items["count"].to_numpy()
    days = items["first_seen_ms"].to_numpy() // MS_A_DAY
    return {
        "items": len(items),
        "items_by_kind": {kind: int((items[_COLUMNS[kind]].to_numpy() > 0).sum()) for kind in EVENT_KINDS},
        "events_per_item": describe_histogram(count_values(counts)),
        "concentration": _describe_concentration(counts),
        "new_items_by_day": by_date(count_values(days)),
        "by_split": {str(split): _describe_split(items, split) for split in SPLITS},
        "top_items": {kind: _top_items(items, column) for kind, column in _COLUMNS.items()},
    }


def describe_categories(encoded: bytes, paths: Mapping[str, tuple[str, ...]]) -> list[dict[str, Any]]:
    """Training views by category, most viewed first, each with its path from the root, as JSON."""
    if not encoded:
        return []
    viewed = by_count(decode_columns(encoded))
    return [
        {"category_id": row["id"], "path": list(paths.get(row["id"], (row["id"],))), "views": row["count"]}
        for row in viewed.filter(pc.greater(viewed["count"], 0)).to_pylist()
    ]


def lorenz(counts: np.ndarray) -> tuple[list[float], float]:
    """Shares of all events that the least popular 0%, 1% … 100% of the items have, and the Gini coefficient.

    Args:
      counts: [I] events of each item, I > 0 and none of them 0.
    """
    ascending = np.sort(counts).astype(np.int64)
    below = np.append(0, np.cumsum(ascending))
    places = np.arange(_LORENZ_POINTS + 1) * len(ascending) / _LORENZ_POINTS
    shares = np.interp(places, np.arange(len(below)), below / below[-1])
    size, total = len(ascending), int(below[-1])
    weighted = int((ascending * np.arange(1, size + 1)).sum())
    return shares.round(6).tolist(), round((2 * weighted - (size + 1) * total) / (size * total), 6)


def _describe_concentration(counts: np.ndarray) -> dict[str, Any]:
    shares, gini = lorenz(counts)
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
    rows = by_count(items, column).slice(0, TOP).select(["id", column]).to_pylist()
    return [{"item_id": row["id"], "events": row[column]} for row in rows if row[column]]
