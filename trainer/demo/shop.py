"""What a dataset tells of items and visitors, by id: categories, availability, timelines.

Shapes: N rows of all timelines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.schema import Split, Vocabulary
from contract.shards import read_timelines
from contract.timelines import TimelineRows
from trainer.data.dataset import Dataset


@dataclass(frozen=True)
class Item:
    """What is known of an item; None: never told before the first cut."""

    category: str | None = None
    is_available: bool | None = None


@dataclass(frozen=True)
class Shop:
    """Items by id, and the items of known visitors' timelines; both empty without a dataset."""

    items: dict[str, Item]
    timelines: "Timelines | None"


class Timelines:
    """The timelines of the visitors of the vocabulary, over all splits."""

    def __init__(self, rows: TimelineRows, visitors: Sequence[str], items: Sequence[str]):
        """Takes rows of all splits, in their order: what happened at one time stays in it."""
        self._items = items
        self._place = {visitor: place for place, visitor in enumerate(visitors)}
        order = np.lexsort([rows.timestamp_ms, rows.visitor])
        self._visitor, self._item = rows.visitor[order], rows.item[order]

    def history(self, visitor_id: str) -> list[str]:
        """The items a visitor touched, oldest first, those of the vocabulary; an unknown visitor has none."""
        place = self._place.get(visitor_id)
        if place is None:
            return []
        begin, end = np.searchsorted(self._visitor, [place, place + 1])
        return [self._items[item] for item in self._item[begin:end] if item < len(self._items)]


def open_shop(dataset: Dataset | None) -> Shop:
    """Reads catalogue and timelines of a dataset, if there is one."""
    if dataset is None:
        return Shop({}, None)
    columns = ("item_id", "category_id", "is_available")
    rows = zip(*(dataset.catalogue()[name].to_pylist() for name in columns), strict=True)
    items = {item: Item(category, is_available) for item, category, is_available in rows}
    splits = [split for split in Split if split in dataset.manifest.splits]
    timelines = [read_timelines(dataset.shards(split)) for split in splits]
    own = TimelineRows.concatenate([part[part.is_target == 1] for part in timelines])
    ids = (dataset.vocabulary(name) for name in (Vocabulary.VISITORS, Vocabulary.ITEMS))
    return Shop(items, Timelines(own, *ids))
