"""Baselines that a model must beat: popular, random, walk and nearest-neighbour rankings, with a model's interface.

Shapes: B visitors, I items.
"""

import logging
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from contract.schema import Split
from trainer.config.models import WalkConfig
from trainer.data.baskets import training_baskets
from trainer.data.dataset import Dataset
from trainer.evaluation.cases import Cases, most_common_cases
from trainer.evaluation.config import NeighboursConfig
from trainer.evaluation.evaluator import Evaluator
from trainer.evaluation.neighbours import ItemNeighbours, TimelineNeighbours, item_similarity
from trainer.models.interface import Queries, Scorer
from trainer.models.walk import WalkInference, count_walk
from trainer.runs.checkpoint import Weights

log = logging.getLogger(__name__)

RECENT_DAYS = 7
_WALK_CASES = 2000  # of the validation split, which choose the powers of the walk
_DAY_MS = 24 * 60 * 60 * 1000


class FixedOrder:
    """The same ranking for every visitor."""

    def __init__(self, scores: np.ndarray):
        """Takes scores [I]; higher is better."""
        self._scores = tf.constant(scores, tf.float32)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32 scores."""
        return tf.tile(self._scores[None], [tf.shape(queries.visitor)[0], 1])


class RandomOrder:
    """A random ranking for each visitor; it depends on the seed and the visitor's index, not on the chunks."""

    def __init__(self, num_items: int, *, seed: int):
        self._num_items, self._seed = num_items, seed

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32, uniform in [0, 1)."""
        return tf.map_fn(
            lambda visitor: tf.random.stateless_uniform([self._num_items], tf.stack([self._seed, visitor])),
            queries.visitor,
            fn_output_signature=tf.TensorSpec([self._num_items], tf.float32),
        )


def popular(counts: np.ndarray) -> FixedOrder:
    """Ranks items by their training events [I]."""
    return FixedOrder(counts)


def recently_popular(counts: np.ndarray, recent_counts: np.ndarray) -> FixedOrder:
    """Ranks items by their recent training events [I], and equal ones by all their training events [I]."""
    both = np.stack([recent_counts, counts], axis=1)
    # the index among the sorted distinct pairs, because a weighted sum of the two would exceed float32's precision
    _, order = np.unique(both, axis=0, return_inverse=True)
    return FixedOrder(order.ravel())


def recent_item_counts(dataset: Dataset, days: float = RECENT_DAYS) -> np.ndarray:
    """[I] int64: events of each item in the last `days` of the training split.

    Like the models, it uses training rows only, not the validation window just before the test cut.
    """
    times, items = [], []
    for rows in dataset.training_events.read():
        is_training = (rows.is_target == 1) & (rows.item < dataset.num_items)
        times.append(rows.timestamp_ms[is_training])
        items.append(rows.item[is_training])
    timestamp_ms, item = np.concatenate(times), np.concatenate(items)
    is_recent = timestamp_ms > timestamp_ms.max(initial=0) - days * _DAY_MS
    return np.bincount(item[is_recent], minlength=dataset.num_items)


def item_walk(dataset: Dataset, kinds: Sequence[str] = ()) -> WalkInference:
    """The model `walk`, with the best of its default powers in the validation split, or the last without such a split.

    Args:
      dataset: the dataset.
      kinds: event kinds that make an item relevant in validation; empty: all.
    """
    config, cases = WalkConfig(), _validation_cases(dataset, kinds)
    baskets, model = training_baskets(dataset, max_items=config.max_items), WalkInference(config, dataset.item_counts)
    evaluator = Evaluator(model, cases, [20]) if cases is not None else None
    best, best_value = Weights({}, []), -1.0
    for powers in config.combinations if evaluator is not None else config.combinations[-1:]:
        weights = count_walk(baskets, powers, config.num_neighbours)
        model.fill(weights)
        value = evaluator.measure().mean("ndcg@20") if evaluator is not None else 0.0
        log.info("item_walk: %s%s", powers, f": validation NDCG@20 {value:.4f}" if evaluator is not None else "")
        if value > best_value:
            best, best_value = weights, value
    model.fill(best)
    return model


def _validation_cases(dataset: Dataset, kinds: Sequence[str]) -> Cases | None:
    """A sample of the validation split's `most_common_cases`; None if there are none."""
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    cases = most_common_cases(dataset, Split.VALIDATION, kinds)
    return cases.sample(_WALK_CASES, seed=0) if len(cases) else None


def build_baselines(
    dataset: Dataset, *, seed: int, config: NeighboursConfig | None = None, kinds: Sequence[str] = ()
) -> dict[str, Scorer]:
    """All baselines of a report, by name.

    Args:
      dataset: the dataset.
      seed: seed of the random ranking.
      config: settings of the nearest-neighbour baselines.
      kinds: event kinds that make an item relevant in the validation that tunes the walk; empty: all.
    """
    config = config or NeighboursConfig()
    counts, baskets = dataset.item_counts, training_baskets(dataset)
    return {
        "popular": popular(counts),
        "recently_popular": recently_popular(counts, recent_item_counts(dataset)),
        "item_walk": item_walk(dataset, kinds),
        "item_knn": ItemNeighbours(item_similarity(baskets, is_tfidf=False, config=config), counts, config),
        "item_knn_tfidf": ItemNeighbours(item_similarity(baskets, is_tfidf=True, config=config), counts, config),
        "session_knn": TimelineNeighbours(baskets, counts, config),
        "random": RandomOrder(dataset.num_items, seed=seed),
    }
