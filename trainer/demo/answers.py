"""Checks and answers the queries of the demo page; takes and returns JSON values, without HTTP."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from trainer.demo.exports import Export, Ranked
from trainer.demo.shop import Item, Shop

MAX_HISTORY = 20_000
MAX_K = 100
_MAX_SUGGESTIONS = 40
_MAX_TITLES = 100  # for the latest items of a history; the page shows fewer


class Answers:
    """Answers queries with the exported models and the data of one shop."""

    def __init__(self, exports: list[Export], shop: Shop):
        """Stores the `exports`, at least one, and the data of the shop."""
        self._exports, self._shop = exports, shop
        self._known = dict.fromkeys(item for export in exports for item in export.items)
        self._visitors = dict.fromkeys(visitor for export in exports for visitor in export.visitors)

    def overview(self) -> dict[str, Any]:
        """Returns the names of the models, how many items and visitors they know, and some frequent visitors."""
        return {
            "models": [export.name for export in self._exports],
            "items": len(self._known),
            "visitors": len(self._visitors),
            "has_timelines": self._shop.timelines is not None,
            "examples": list(islice(self._visitors, 6)),
            "max_history": MAX_HISTORY,
        }

    def search(self, text: str) -> list[dict[str, Any]]:
        """Returns the most frequent items that are in the category `text`, or have an id that starts with `text`."""
        matches = (item for item in self._known if item.startswith(text) or (self._item(item).category or "") == text)
        return [self._describe(item) for item in islice(matches, _MAX_SUGGESTIONS)]

    def visitor(self, visitor_id: str) -> dict[str, Any]:
        """Returns a visitor's latest items and their titles, oldest first, and whether a model knows the visitor."""
        timelines = self._shop.timelines
        history = timelines.history(visitor_id)[-MAX_HISTORY:] if timelines else []
        return {"is_known": visitor_id in self._visitors, "history": history, "titles": self._titles(history)}

    def recommend(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the recommendations of each model for a visitor and their history.

        `query` has `visitor` ('' if new), `history` (item ids, oldest first), `k` (number of items) and `hide_seen`.
        Raises ValueError if a value is missing or invalid.
        """
        visitor, history, k = _text(query, "visitor"), _history(query), _k(query)
        hide_seen = _flag(query, "hide_seen")
        models = [
            self._list(export, export.recommend(visitor, history, k, hide_seen=hide_seen)) for export in self._exports
        ]
        unknown = list(dict.fromkeys(item for item in history if item not in self._known))
        return {
            "models": models,
            "titles": self._titles(history),
            "unknown": unknown[:_MAX_SUGGESTIONS],
            "num_unknown": len(unknown),
        }

    def similar(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Returns, for each model, the items most similar to an item, and whether any model knows the item.

        Args:
          query: `item` str, id of the item; `k` int, number of items to return.

        Raises:
          ValueError: a value is missing or invalid.
        """
        item, k = _text(query, "item"), _k(query)
        models = [self._list(export, export.similar(item, k)) for export in self._exports]
        return {"models": models, "is_known": item in self._known}

    def _list(self, export: Export, ranked: Ranked) -> dict[str, Any]:
        rows = zip(ranked.item_ids, ranked.scores, strict=True)
        items = [{**self._describe(item), "score": score} for item, score in rows]
        return {
            "name": export.name,
            "milliseconds": ranked.milliseconds,
            "offered": export.num_offered,
            "items": items,
        }

    def _describe(self, item_id: str) -> dict[str, Any]:
        item = self._item(item_id)
        return {"id": item_id, "title": item.title, "category": item.category, "is_available": item.is_available}

    def _titles(self, history: Sequence[str]) -> dict[str, str]:
        """Returns titles by id, for the latest `_MAX_TITLES` items of a history; skips items without a title."""
        titles = {item: self._item(item).title for item in history[-_MAX_TITLES:]}
        return {item: title for item, title in titles.items() if title}

    def _item(self, item_id: str) -> Item:
        return self._shop.items.get(item_id, _UNKNOWN_ITEM)


_UNKNOWN_ITEM = Item()


def _text(query: Mapping[str, Any], name: str) -> str:
    value = query.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r:.80}")
    return _check_encodable([value])[0]


def _history(query: Mapping[str, Any]) -> list[str]:
    value = query.get("history")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"history must be a list of item ids, got {value!r:.80}")
    if len(value) > MAX_HISTORY:
        raise ValueError(f"history must have at most {MAX_HISTORY} items, got {len(value)}; drop the oldest")
    return _check_encodable(item for item in value if item)


def _check_encodable(texts: Iterable[str]) -> list[str]:
    """Returns the texts; raises ValueError for a lone surrogate, which JSON allows but UTF-8 does not."""
    kept = list(texts)
    for text in kept:
        text.encode()
    return kept


def _k(query: Mapping[str, Any]) -> int:
    value = query.get("k")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_K:
        raise ValueError(f"k must be a whole number from 1 to {MAX_K}, got {value!r:.80}")
    return value


def _flag(query: Mapping[str, Any], name: str) -> bool:
    value = query.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r:.80}")
    return value
