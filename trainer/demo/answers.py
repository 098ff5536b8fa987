"""What the page asks, checked, and what it is told: JSON values in and out, no HTTP."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from trainer.demo.exports import Export, Ranked
from trainer.demo.shop import Item, Shop

MOST_HISTORY = 20_000
MOST_SHOWN = 100
_SUGGESTED = 40


class Answers:
    """Answers for one shop and its exports."""

    def __init__(self, exports: list[Export], shop: Shop):
        """Takes at least one export."""
        self._exports, self._shop = exports, shop
        self._known = dict.fromkeys(item for export in exports for item in export.items)
        self._visitors = dict.fromkeys(visitor for export in exports for visitor in export.visitors)

    def overview(self) -> dict[str, Any]:
        """What the page shows before anything is asked."""
        return {
            "models": [export.name for export in self._exports],
            "items": len(self._known),
            "visitors": len(self._visitors),
            "has_catalogue": bool(self._shop.items),
            "has_timelines": self._shop.timelines is not None,
            "examples": list(islice(self._visitors, 6)),
            "most_history": MOST_HISTORY,
        }

    def search(self, text: str) -> list[dict[str, Any]]:
        """Items whose id begins with the text, or whose category it is, most frequent first."""
        found = (item for item in self._known if item.startswith(text) or (self._item(item).category or "") == text)
        return [self._describe(item) for item in islice(found, _SUGGESTED)]

    def visitor(self, visitor_id: str) -> dict[str, Any]:
        """Whether a visitor is known, and the latest items of his timeline, oldest first."""
        timelines = self._shop.timelines
        history = timelines.history(visitor_id)[-MOST_HISTORY:] if timelines else []
        return {"is_known": visitor_id in self._visitors, "history": history}

    def recommend(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Each model's list for a visitor and his history.

        Args:
          asked: `visitor` str, '' for a new one; `history` list of ids, oldest first; `k`; `hide_seen` and
            `only_available`, bools.

        Raises:
          ValueError: a value is missing or not what it should be.
        """
        visitor, history, k = _text(asked, "visitor"), _history(asked), _k(asked)
        hide_seen, only_available = _flag(asked, "hide_seen"), _flag(asked, "only_available")

        def ask(export: Export, count: int) -> Ranked:
            return export.recommend(visitor, history, count, hide_seen=hide_seen)

        models = []
        for export in self._exports:
            ranked = self._available(export, ask, k) if only_available else ask(export, k)
            models.append(self._list(export, ranked))
        unknown = list(dict.fromkeys(item for item in history if item not in self._known))
        return {"models": models, "unknown": unknown[:_SUGGESTED], "num_unknown": len(unknown)}

    def similar(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Each model's items most like `item`."""
        item, k = _text(asked, "item"), _k(asked)
        models = [self._list(export, export.similar(item, k)) for export in self._exports]
        return {"models": models, "is_known": item in self._known}

    def _available(self, export: Export, ask: Any, k: int) -> Ranked:
        """Asks for longer lists until k of the items are available, or there are no more."""
        count, milliseconds = 4 * k, 0.0
        while True:
            ranked = ask(export, count)
            milliseconds += ranked.milliseconds
            rows = list(zip(ranked.item_ids, ranked.scores, strict=True))
            kept = [row for row in rows if self._item(row[0]).is_available][:k]
            if len(kept) == k or count >= len(export.items):
                return Ranked([item for item, _ in kept], [score for _, score in kept], milliseconds)
            count *= 8

    def _list(self, export: Export, ranked: Ranked) -> dict[str, Any]:
        rows = zip(ranked.item_ids, ranked.scores, strict=True)
        items = [{**self._describe(item), "score": score} for item, score in rows]
        return {"name": export.name, "milliseconds": ranked.milliseconds, "items": items}

    def _describe(self, item_id: str) -> dict[str, Any]:
        item = self._item(item_id)
        return {"id": item_id, "category": item.category, "is_available": item.is_available}

    def _item(self, item_id: str) -> Item:
        return self._shop.items.get(item_id, _UNTOLD)


_UNTOLD = Item()


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {value!r:.80}")
    return _encodable([value])[0]


def _history(asked: Mapping[str, Any]) -> list[str]:
    value = asked.get("history")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"history must be a list of item ids, got {value!r:.80}")
    if len(value) > MOST_HISTORY:
        raise ValueError(f"history must have at most {MOST_HISTORY} items, got {len(value)}; leave out the oldest")
    return _encodable(item for item in value if item)


def _encodable(texts: Iterable[str]) -> list[str]:
    """The texts; half a surrogate pair, which JSON can hold and UTF-8 cannot, is a ValueError here."""
    kept = list(texts)
    for text in kept:
        text.encode()
    return kept


def _k(asked: Mapping[str, Any]) -> int:
    value = asked.get("k")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_SHOWN:
        raise ValueError(f"k must be a whole number from 1 to {MOST_SHOWN}, got {value!r:.80}")
    return value


def _flag(asked: Mapping[str, Any], name: str) -> bool:
    value = asked.get(name)
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r:.80}")
    return value
