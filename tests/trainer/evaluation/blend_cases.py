"""Models, cases and events of the tests of blends."""

import numpy as np
import tensorflow as tf

from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.data.trend import ItemEvents
from trainer.evaluation.blend_candidates import CandidateFinder, Candidates
from trainer.evaluation.cases import Cases
from trainer.models.blend import Part

NUM_ITEMS = 90


class Noise(tf.Module):
    """A random score for each visitor and item."""

    def __init__(self, seed: int, favourites: np.ndarray | None = None) -> None:
        super().__init__()
        scores = np.random.default_rng(seed).normal(size=(200, NUM_ITEMS))
        if favourites is not None:
            scores[np.arange(200), favourites] += 3
        self._scorer = TableScorer(scores)

    def catalogue_scores(self, queries) -> tf.Tensor:
        return self._scorer.catalogue_scores(queries)


def random_cases() -> Cases:
    """200 visitors without a history, each with one relevant item."""
    relevant = np.random.default_rng(1).integers(0, NUM_ITEMS, 200)
    return cases_of([[]] * 200, [[item] for item in relevant], NUM_ITEMS)


def one_event() -> ItemEvents:
    """One event before the time of the cases, 1000 ms."""
    return ItemEvents(np.array([1]), np.array([0]), NUM_ITEMS)


def candidates_of(cases: Cases, events: ItemEvents, *models: tf.Module) -> Candidates:
    parts = [Part(model, has_sums=False) for model in models]
    return CandidateFinder(parts, events, np.ones(NUM_ITEMS), hides_seen=cases.hides_seen).find(cases)
