"""Tunes the nearest-neighbour peers on the validation window."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.harness import timed
from benchmarks.neighbours import ItemNeighbours, NeighboursConfig, TimelineNeighbours, item_similarity
from benchmarks.tuning import Search, Settings, best_of, search
from contract.schema import Split
from trainer.data.baskets import training_baskets
from trainer.data.dataset import Dataset
from trainer.evaluation.cases import Protocol, build_cases
from trainer.evaluation.evaluator import evaluate_scorer
from trainer.models.interface import Scorer
from trainer.training.validation import MAX_CASES

log = logging.getLogger(__name__)

_BEGIN = {"half_life_rows": None, "num_neighbours": 200}
_VALUES = {
    "half_life_rows": (None, 1.0, 2.0, 5.0, 1000.0),  # the last: no weighting by age
    "num_neighbours": (100, 200, 500, 1000, 2000),
}
# session kNN has no shrinkage
_OF_ITEMS = Search({**_BEGIN, "shrinkage": 0.0}, {**_VALUES, "shrinkage": (0.0, 10.0, 30.0, 100.0, 300.0, 1000.0)})
SEARCHES: Mapping[str, Search] = {
    "item_knn": _OF_ITEMS,
    "item_knn_tfidf": _OF_ITEMS,
    "session_knn": Search(_BEGIN, _VALUES),
}

Build = Callable[[NeighboursConfig], Scorer]


def tune_neighbours(dataset: Dataset, protocol: Protocol) -> dict[str, list[dict[str, Any]]]:
    """Tries the settings of each peer on a sample of visitors; returns them with NDCG@20 and build seconds."""
    cases = build_cases(dataset, Split.VALIDATION, protocol).sample(MAX_CASES, seed=0)

    def measured(name: str, build: Build) -> Callable[[Settings], tuple[float, float]]:
        def measure(settings: Settings) -> tuple[float, float]:
            made: list[Scorer] = []
            seconds = timed(lambda: made.append(build(NeighboursConfig(**settings))))
            value = evaluate_scorer(made[0], cases, (20,)).mean("ndcg@20")
            log.info("%s %s: validation NDCG@20 %.4f", name, settings, value)
            return value, seconds

        return measure

    return {name: search(SEARCHES[name], measured(name, build)) for name, build in _builders(dataset).items()}


def best_neighbours(dataset: Dataset, tried: Mapping[str, list[dict[str, Any]]]) -> dict[str, Scorer]:
    """Builds each peer with the best settings that `tune_neighbours` found."""
    builders = _builders(dataset)
    return {name: builders[name](NeighboursConfig(**best_of(grid)["settings"])) for name, grid in tried.items()}


def _builders(dataset: Dataset) -> dict[str, Build]:
    baskets, counts = training_baskets(dataset), dataset.item_counts

    def of_items(config: NeighboursConfig, *, is_tfidf: bool) -> Scorer:
        return ItemNeighbours(item_similarity(baskets, is_tfidf=is_tfidf, config=config), counts, config)

    return {
        "item_knn": lambda config: of_items(config, is_tfidf=False),
        "item_knn_tfidf": lambda config: of_items(config, is_tfidf=True),
        "session_knn": lambda config: TimelineNeighbours(baskets, counts, config),
    }
