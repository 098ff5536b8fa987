"""Baselines that a model must beat: popular and random rankings, and models of `solver=count` with default settings.

Shapes: B visitors, I items.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from contract.schema import Split
from trainer.config.models import SessionKnnConfig, WalkConfig
from trainer.data.baskets import training_baskets
from trainer.data.dataset import Dataset
from trainer.data.trend import ItemEvents
from trainer.evaluation.blend_weights import baseline_cases, blend_alone, ranking_cases
from trainer.evaluation.cases import Cases, most_common_cases
from trainer.evaluation.evaluator import Evaluator
from trainer.models.interface import InferenceModel, Queries, Scorer, ServedModel
from trainer.models.item_neighbours import NeighbourInference
from trainer.models.session_knn import SessionKnnInference, count_session_knn
from trainer.models.walk import count_walk
from trainer.runs.checkpoint import Weights

log = logging.getLogger(__name__)

_THREADS = 2  # baselines that are tuned at once: while one counts with one thread, the other ranks with all


class FixedOrder:
    """The same ranking for every visitor."""

    def __init__(self, scores: np.ndarray):
        """Stores the score of each item, `scores` [I]; higher is better."""
        self._scores = tf.constant(scores, tf.float32)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return tf.tile(self._scores[None], [tf.shape(queries.visitor)[0], 1])


class RandomOrder:
    """Ranks all items in the same random cyclic order; the list of each visitor starts at a random position."""

    def __init__(self, num_items: int, *, seed: int):
        order = np.random.default_rng(seed).permutation(num_items).astype(np.float32)
        # any `num_items` consecutive entries contain all items
        self._twice = tf.constant(np.tile(order / np.float32(num_items), 2))
        self._num_items, self._seed = num_items, seed

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32: random scores from 0 to 1; a visitor always gets the same scores."""
        num_items = self._num_items

        def score(visitor: tf.Tensor) -> tf.Tensor:
            begin = tf.random.stateless_uniform([], tf.stack([self._seed, visitor]), 0, num_items, tf.int32)
            return self._twice[begin : begin + num_items]

        spec = tf.TensorSpec([num_items], tf.float32)
        return tf.map_fn(score, queries.visitor, fn_output_signature=spec)


def popular(counts: np.ndarray) -> FixedOrder:
    """Ranks items by their numbers of training events, `counts` [I]."""
    return FixedOrder(counts)


def item_walk(dataset: Dataset, baskets: sp.csr_matrix, cases: Cases | None) -> NeighbourInference:
    """Builds the model `walk`; uses the powers (exponents) that give the best NDCG@20 on `cases`.

    Args:
      baskets: [T, I] items of T training timelines; see `data.baskets.training_baskets`.
      cases: validation cases; None: the last powers in `WalkConfig` are used.
    """
    config = WalkConfig()
    model = NeighbourInference(config, dataset.item_counts)
    counts = [partial(count_walk, baskets, powers, config.num_neighbours) for powers in config.combinations]
    _fill_best("item_walk", model, config.combinations, counts, cases)
    return model


def session_knn(dataset: Dataset, baskets: sp.csr_matrix, cases: Cases | None) -> SessionKnnInference:
    """Builds the model `session_knn`; uses the powers (exponents) that give the best NDCG@20 on `cases`.

    Args:
      baskets: [T, I] items of T training timelines; see `data.baskets.training_baskets`.
      cases: validation cases; None: the last powers in `SessionKnnConfig` are used.
    """
    config = SessionKnnConfig()
    model = SessionKnnInference(config, dataset.item_counts, baskets.shape[0], baskets.nnz)
    counts = [partial(count_session_knn, config, baskets, number) for number in range(len(config.combinations))]
    _fill_best("session_knn", model, config.combinations, counts, cases)
    return model


def _fill_best(
    name: str,
    model: InferenceModel,
    combinations: Sequence[object],
    counts: Sequence[Callable[[], Weights]],
    cases: Cases | None,
) -> None:
    """Fills a model with the weights that give the best NDCG@20 on `cases`; if `cases` is None, with the last weights.

    Function k of `counts` computes the weights for the powers `combinations[k]`.
    """
    if cases is None:
        model.fill(counts[-1]())
        return
    evaluator, best, best_value = Evaluator(model, cases, [20]), Weights({}, []), -1.0
    for combination, count in zip(combinations, counts, strict=True):
        weights = count()
        model.fill(weights)
        value = evaluator.measure().mean("ndcg@20")
        log.info("%s: %s: validation NDCG@20 %.4f", name, combination, value)
        if value > best_value:
            best, best_value = weights, value
    model.fill(best)


def validation_cases(dataset: Dataset, kinds: Sequence[str] = ()) -> Cases | None:
    """Returns a sample of the validation cases, see `most_common_cases`; None if there are none.

    Args:
      kinds: event kinds that make an item relevant; empty: all.
    """
    if Split.VALIDATION not in dataset.manifest.splits:
        return None
    cases = most_common_cases(dataset, Split.VALIDATION, kinds)
    return cases.sample(baseline_cases(dataset.num_items), seed=0) if len(cases) else None


def build_baselines(dataset: Dataset, events: ItemEvents, *, seed: int, kinds: Sequence[str] = ()) -> dict[str, Scorer]:
    """Builds the baselines of a report, by name; they are tuned on validation cases.

    All except `popular` and `random` are blended with the popularity and the trend of the items.

    Args:
      events: the events of all splits.
      seed: seed of the random ranking.
      kinds: event kinds that make an item relevant in validation; empty: all.
    """
    counts = dataset.item_counts
    with ThreadPoolExecutor(_THREADS) as pool:
        # started before the models, which wait for them
        of_rankings = pool.submit(ranking_cases, dataset, kinds)
        baskets = pool.submit(training_baskets, dataset, max_items=WalkConfig().max_items)
        cases = pool.submit(validation_cases, dataset, kinds)
        models: dict[str, Callable[[], ServedModel | None]] = {
            "trending": lambda: None,
            "item_walk": lambda: item_walk(dataset, baskets.result(), cases.result()),
            "session_knn": lambda: session_knn(dataset, baskets.result(), cases.result()),
        }
        tuned = {
            name: pool.submit(lambda tune: blend_alone(tune(), of_rankings.result(), events, counts), tune)
            for name, tune in models.items()
        }
    return {
        "popular": popular(counts),
        **{name: blend.result() for name, blend in tuned.items()},
        "random": RandomOrder(dataset.num_items, seed=seed),
    }
