"""Reads titles, categories and availability of items, and timelines of visitors, from a dataset.

Shapes: N rows of all timelines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from contract.schema import Vocabulary
from trainer.data.dataset import Dataset
from trainer.data.visitors import VisitorTimelines, read_visitor_timelines


@dataclass(frozen=True)
class Item:
    """Properties of an item, as known at the end of the training split; None: unknown."""

    title: str | None = None
    category: str | None = None
    is_available: bool | None = None


@dataclass(frozen=True)
class Shop:
    """Items and timelines of a shop, from its dataset."""

    items: dict[str, Item]
    """Items by id; empty without a dataset."""
    timelines: "Timelines | None"
    """Timelines of the visitors; None without a dataset."""


class Timelines:
    """Finds the items that a visitor interacted with, in all splits."""

    def __init__(self, timelines: VisitorTimelines, items: Sequence[str]):
        """Indexes the visitors; `items` are the ids of the item vocabulary."""
        self._items = items
        self._index = {visitor: index for index, visitor in enumerate(timelines.ids)}
        self._visitor, self._item = timelines.rows.visitor, timelines.rows.item

    def history(self, visitor_id: str) -> list[str]:
        """Returns the known items of a visitor, oldest first; empty if the visitor is unknown."""
        index = self._index.get(visitor_id)
        if index is None:
            return []
        start, end = np.searchsorted(self._visitor, [index, index + 1])
        return [self._items[item] for item in self._item[start:end] if item < len(self._items)]


def open_shop(dataset: Dataset | None) -> Shop:
    """Reads the catalogue and timelines of a dataset; None: the shop is empty."""
    if dataset is None:
        return Shop({}, None)
    columns = ("item_id", "title", "category_id", "is_available")
    rows = zip(*(dataset.catalogue[name].to_pylist() for name in columns), strict=True)
    items = {item: Item(title, category, is_available) for item, title, category, is_available in rows}
    return Shop(items, Timelines(read_visitor_timelines(dataset), dataset.vocabulary(Vocabulary.ITEMS)))
