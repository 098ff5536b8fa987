"""The sample visitors in a report: their history, their relevant items, and the recommendations of every system.

Shapes: S sample visitors, I items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from contract.schema import Vocabulary
from trainer.data.dataset import Dataset
from trainer.evaluation.cases import Cases
from trainer.models.interface import Scorer
from trainer.models.top_items import top_k
from trainer.ranking.topk import query_chunks, translate_divergence_errors, visible_scores

NUM_VISITORS = 10
LIST_LENGTH = 10
_MAX_ROWS = 20  # rows of a history, and relevant items


@dataclass(frozen=True)
class _Names:
    """Ids of visitors and items by index, and the title and category of each item."""

    visitors: Sequence[str]
    """Ids of the visitors."""
    items: Sequence[str]
    """Ids of the items."""
    titles: Sequence[str | None]
    """Title of each item; None if the catalogue has none."""
    categories: Sequence[str | None]
    """Category of each item; None if the catalogue has none."""
    kinds: Sequence[str]
    """Event kinds of the dataset."""

    @classmethod
    def of(cls, dataset: Dataset) -> "_Names":
        catalogue = dataset.catalogue
        titles, categories = (catalogue[name].to_pylist() for name in ("title", "category_id"))
        visitors, items = dataset.vocabulary(Vocabulary.VISITORS), dataset.vocabulary(Vocabulary.ITEMS)
        return cls(visitors, items, titles, categories, dataset.manifest.event_kinds)

    def item(self, index: int) -> dict[str, str | None]:
        """Returns the id, title and category of an item; all None if the index is outside the vocabulary."""
        if index >= len(self.items):
            return {"item_id": None, "title": None, "category_id": None}
        return {"item_id": self.items[index], "title": self.titles[index], "category_id": self.categories[index]}


def sample_recommendations(
    systems: Mapping[str, Scorer], cases: Cases, dataset: Dataset, *, seed: int
) -> list[dict[str, Any]]:
    """Draws random visitors and one random case of each; returns the recommendations of all systems.

    Args:
      dataset: the dataset, for the names of visitors and items.

    Returns:
      A JSON object for each visitor:
      - `visitor_id`: the id of the visitor; None if unknown.
      - `moment`: the time of the case.
      - `history_rows`: the number of rows in the history. `history`: the latest rows, at most `_MAX_ROWS`.
      - `relevant_items`: the number of relevant items. `relevant`: the first ones, at most `_MAX_ROWS`.
      - `systems`: for each system, its recommended items, best first; `is_hit`: whether the item is relevant.
    """
    drawn, names = cases.take(_draw(cases.timeline, seed)), _Names.of(dataset)
    samples = [_describe(drawn, case, names) for case in range(len(drawn))]
    for name, scorer in systems.items():
        for case, ranked in enumerate(_ranked_items(scorer, drawn)):
            relevant = set(drawn.relevant.padded(case, case + 1)[0].tolist())
            samples[case]["systems"][name] = [names.item(item) | {"is_hit": item in relevant} for item in ranked]
    return samples


def _draw(timeline: np.ndarray, seed: int) -> np.ndarray:
    """Draws S random visitors and one random case of each; returns the case indices [S], ascending.

    `timeline`: [V] index of the timeline of each case; a timeline belongs to one visitor.
    """
    order = np.random.default_rng(seed).permutation(len(timeline))
    _, first = np.unique(timeline[order], return_index=True)
    return np.sort(order[np.sort(first)[:NUM_VISITORS]])


def _ranked_items(scorer: Scorer, cases: Cases) -> list[list[int]]:
    """Returns the first items of each case's primary ranking, best first, without hidden items."""
    k = min(LIST_LENGTH, cases.num_items)
    ((_, queries),) = query_chunks(cases.visitor, cases.history, cases.timestamp_ms, len(cases))
    with translate_divergence_errors():
        top = top_k(visible_scores(scorer, queries, is_seen_hidden=cases.hides_seen), k)
    items, scores = top.item.numpy(), top.score.numpy()
    return [row[score > -np.inf].tolist() for row, score in zip(items, scores, strict=True)]


def _describe(cases: Cases, case: int, names: _Names) -> dict[str, Any]:
    visitor = int(cases.visitor[case])
    items, events, times = (column[0] for column in cases.history.padded(case, case + 1))
    latest = range(max(len(items) - _MAX_ROWS, 0), len(items))
    relevant = cases.relevant.padded(case, case + 1)[0].tolist()
    return {
        "visitor_id": names.visitors[visitor] if visitor < len(names.visitors) else None,
        "moment": _format(int(cases.timestamp_ms[case])),
        "history_rows": len(items),
        "history": [
            {"time": _format(int(times[row])), "event": names.kinds[events[row]], **names.item(int(items[row]))}
            for row in latest
        ],
        "relevant_items": len(relevant),
        "relevant": [names.item(item) for item in relevant[:_MAX_ROWS]],
        "systems": {},
    }


def _format(timestamp_ms: int) -> str:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds")
