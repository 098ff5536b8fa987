"""A few visitors to look at: what each did, what each then turned to, and what every system would have shown.

Shapes: S visitors shown, I items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from contract.schema import EVENT_KINDS, Vocabulary
from trainer.data.dataset import Dataset
from trainer.evaluation.cases import Cases
from trainer.models.interface import Scorer
from trainer.ranking.topk import query_chunks, refusing_diverged, top_k, visible_scores

NUM_VISITORS = 10
LIST_LENGTH = 10
_MAX_ROWS = 20  # of a history, and of what a visitor then turned to


@dataclass(frozen=True)
class _Names:
    """Ids by index, and the category of each item; None where the catalogue tells none."""

    visitors: Sequence[str]
    items: Sequence[str]
    categories: Sequence[str | None]

    @classmethod
    def of(cls, dataset: Dataset) -> "_Names":
        categories = dataset.catalogue()["category_id"].to_pylist()
        return cls(dataset.vocabulary(Vocabulary.VISITORS), dataset.vocabulary(Vocabulary.ITEMS), categories)

    def item(self, index: int) -> dict[str, str | None]:
        """Its id and category; both None for an item that the vocabulary lacks."""
        if index >= len(self.items):
            return {"item_id": None, "category_id": None}
        return {"item_id": self.items[index], "category_id": self.categories[index]}


def sample_recommendations(
    systems: Mapping[str, Scorer], cases: Cases, dataset: Dataset, *, seed: int
) -> list[dict[str, Any]]:
    """The lists of all systems for a case of each of some visitors, drawn whoever is served well or badly.

    Returns:
      Of each visitor, as JSON: `visitor_id`, None for one that the vocabulary lacks; `moment`; the latest rows of his
      `history` and `history_rows`, how many there are; the `relevant` items, or the first of them, and
      `relevant_items`, how many there are; and of each of `systems` its list, best first, with what `is_hit`.
    """
    shown, names = cases.take(_draw(cases.timeline, seed)), _Names.of(dataset)
    samples = [_describe(shown, place, names) for place in range(len(shown))]
    for name, scorer in systems.items():
        for place, ranked in enumerate(_ranked_items(scorer, shown)):
            relevant = set(shown.relevant.padded(place, place + 1)[0].tolist())
            samples[place]["systems"][name] = [names.item(item) | {"is_hit": item in relevant} for item in ranked]
    return samples


def _draw(timeline: np.ndarray, seed: int) -> np.ndarray:
    """[S] places, ascending, of one case of each of some visitors."""
    order = np.random.default_rng(seed).permutation(len(timeline))
    _, first = np.unique(timeline[order], return_index=True)
    return np.sort(order[np.sort(first)[:NUM_VISITORS]])


def _ranked_items(scorer: Scorer, cases: Cases) -> list[list[int]]:
    """[S] lists of the best items that may be shown, best first."""
    k = min(LIST_LENGTH, cases.num_items)
    ((_, queries),) = query_chunks(cases.visitor, cases.history, cases.timestamp_ms, len(cases))
    with refusing_diverged():
        top = top_k(visible_scores(scorer, queries, is_seen_hidden=cases.hides_seen), k)
    items, scores = top.item.numpy(), top.score.numpy()
    return [row[score > -np.inf].tolist() for row, score in zip(items, scores, strict=True)]


def _describe(cases: Cases, place: int, names: _Names) -> dict[str, Any]:
    visitor = int(cases.visitor[place])
    items, events, times = (column[0] for column in cases.history.padded(place, place + 1))
    latest = range(max(len(items) - _MAX_ROWS, 0), len(items))
    relevant = cases.relevant.padded(place, place + 1)[0].tolist()
    return {
        "visitor_id": names.visitors[visitor] if visitor < len(names.visitors) else None,
        "moment": _format(int(cases.timestamp_ms[place])),
        "history_rows": len(items),
        "history": [
            {"time": _format(int(times[row])), "event": EVENT_KINDS[events[row]], **names.item(int(items[row]))}
            for row in latest
        ],
        "relevant_items": len(relevant),
        "relevant": [names.item(item) for item in relevant[:_MAX_ROWS]],
        "systems": {},
    }


def _format(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds")
