"""Second stage of the towers: a small network ranks candidates again, by features that a dot product cannot express.

The candidates are all items of the history, and the other items with the best scores by the towers or by an item walk.
The network's output is added to the towers' scores of the candidates; all other items rank behind the candidates. The
network is trained on cases that are later than the training events of the towers, so it learns how reliable the towers'
scores are for the future; see `training.second_stage`.

Shapes: B queries, I items of the vocabulary, L latest entries of a history, C = L + 2 × NUM_BEST candidates,
F features (FEATURES), U1 and U2 units of the network's layers.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.config.models import WalkConfig
from trainer.models.interface import Queries
from trainer.models.item_neighbours import NeighbourInference
from trainer.models.table_variables import make_variable
from trainer.models.top_items import top_k
from trainer.models.towers import History, ScoreParts, TowersInference, latest
from trainer.runs.checkpoint import Weights

NUM_BEST = 50
"""Number of candidates from the towers, and the same number from the walk."""

NUM_LATEST = 50
"""L: number of latest entries of a history whose items are candidates."""

WALK = WalkConfig(
    item_power=(0.5,), neighbour_power=(0.25,), visitor_power=(0.5,), recency_power=(1.0,), max_items=NUM_LATEST
)
"""Settings of the walk; its exponents rank the next items of the dataset retailrocket_sessions best."""

FEATURES = (
    *("tower", "tower_rank", "tower_gap", "return_bonus", "score", "score_rank", "score_gap"),
    *("walk", "walk_rank", "walk_gap"),
    *("is_in_history", "is_last", "newest", "oldest", "count", "recency"),
    *("popularity", "recent_popularity", "trend", "repeat_rate", "repeat_rate_of_last"),
    *("history_length", "distinct_share", "repeat_share"),
)
"""Names of the features, in order; see `RerankedTowers._find`."""

UNITS = (64, 32)
"""U1 and U2: units of the network's two hidden layers."""

_WALK_OFFSET = 1e-4
"""Added to the walk's scores before the logarithm."""

_NEVER = -1e30


class ItemFacts(NamedTuple):
    """Statistics of each item in the training events."""

    popularity: np.ndarray
    """[I] float32 log(1 + events)."""
    recent_popularity: np.ndarray
    """[I] float32 log(1 + events); only events among the latest tenth of all training events are counted."""
    repeat_rate: np.ndarray
    """[I] float32 share of the item's events that are repetitions: the visitor's history already contains the item.
    Events without a history are not counted. The share is smoothed towards the mean of all items."""


class Layers(NamedTuple):
    """The network's weights, and the means and standard deviations that normalise its inputs."""

    mean: np.ndarray | tf.Tensor
    """[F] mean of each feature."""
    deviation: np.ndarray | tf.Tensor
    """[F] standard deviation of each feature, above 0."""
    first: np.ndarray | tf.Tensor
    """[F, U1] weights of the first hidden layer."""
    first_bias: np.ndarray | tf.Tensor
    """[U1] bias of the first hidden layer."""
    second: np.ndarray | tf.Tensor
    """[U1, U2] weights of the second hidden layer."""
    second_bias: np.ndarray | tf.Tensor
    """[U2] bias of the second hidden layer."""
    last: np.ndarray | tf.Tensor
    """[U2, 1] weights of the output."""
    scale: np.ndarray | tf.Tensor
    """Scalar factor of the towers' score. The final score is the network's output plus factor × towers' score."""


class SecondStage(NamedTuple):
    """All arrays of a trained second stage."""

    walk: Weights
    """Weights of the item walk that supplies candidates; the walk has the settings WALK."""
    facts: ItemFacts
    """Statistics of the items in the training events."""
    layers: Layers
    """Weights of the network."""


class Candidates(NamedTuple):
    """The candidates of B queries, with the inputs of the second stage's network."""

    item: tf.Tensor
    """[B, C] int64 indices; arbitrary where `is_candidate` is False."""
    is_candidate: tf.Tensor
    """[B, C] bool: whether there is a candidate in this column; no item is a candidate of a query twice."""
    score: tf.Tensor
    """[B, C] the towers' scores of the candidates, with return bonuses."""
    feature: tf.Tensor
    """[B, C, F] features of the candidates."""


class Entries(NamedTuple):
    """How often and how recently the item of each history entry occurs in the history, for the latest L entries."""

    is_first: tf.Tensor
    """[B, L] bool: whether the entry is the newest one with its item; False for padding."""
    newest: tf.Tensor
    """[B, L] age of the item's newest entry; the age of an entry is the number of later entries."""
    oldest: tf.Tensor
    """[B, L] age of the item's oldest entry."""
    count: tf.Tensor
    """[B, L] number of entries of the item."""
    recency: tf.Tensor
    """[B, L] sum of 1 / (1 + age) over the item's entries."""
    bonus: tf.Tensor
    """[B, L] sum of the towers' return bonuses of the item's entries."""


def score_candidates(layers: Layers, feature: tf.Tensor, score: tf.Tensor) -> tf.Tensor:
    """Returns [...]: the final score of each candidate. It is the network's output plus the scaled score of the towers.

    Args:
      layers: weights of the network.
      feature: [..., F] features of the candidates.
      score: [...] the towers' scores, with return bonuses.
    """
    hidden = tf.nn.gelu(tf.tensordot((feature - layers.mean) / layers.deviation, layers.first, 1) + layers.first_bias)
    hidden = tf.nn.gelu(tf.tensordot(hidden, layers.second, 1) + layers.second_bias)
    return tf.tensordot(hidden, layers.last, 1)[..., 0] + layers.scale * score


def summarize_entries(history: History, bonuses: tf.Tensor) -> Entries:
    """Computes for each history entry how often and how recently its item occurs in the history.

    `history` has the latest L entries. `bonuses` is [B, H]: the towers' return bonuses of the latest H entries; H ≤ L.
    """
    item = tf.where(history.is_entry, history.item, -1)
    is_same = tf.equal(item[:, :, None], item[:, None, :]) & history.is_entry[:, :, None]
    age, same = tf.range(item.shape[1], dtype=tf.float32), tf.cast(is_same, tf.float32)
    newest = tf.reduce_min(tf.where(is_same, age, np.inf), axis=2)
    return Entries(
        is_first=history.is_entry & tf.equal(newest, age),
        newest=newest,
        oldest=tf.reduce_max(tf.where(is_same, age, -np.inf), axis=2),
        count=tf.reduce_sum(same, axis=2),
        recency=tf.einsum("bij,j->bi", same, 1 / (1 + age)),
        bonus=tf.einsum("bij,bj->bi", same[:, :, : bonuses.shape[1]], bonuses),
    )


class RerankedTowers(tf.Module):
    """Towers with a second stage that reranks candidates; see `models.interface.InferenceModel`.

    `pair_scores` and `item_similarities` do not use the second stage. Visitors without a known item in their
    history get popular items.
    """

    def __init__(self, towers: TowersInference, num_items: int) -> None:
        super().__init__(name="reranked_towers")
        self._towers, self._num_items = towers, num_items
        self._walk = NeighbourInference(WALK, np.zeros(num_items, np.int64))
        self._facts = [make_variable((num_items,), name) for name in ItemFacts._fields]
        size, (first, second) = len(FEATURES), UNITS
        shapes = ((size,), (size,), (size, first), (first,), (first, second), (second,), (second, 1), ())
        self._layers = [make_variable(shape, name) for name, shape in zip(Layers._fields, shapes, strict=True)]

    def fill(self, weights: Weights) -> None:
        self._towers.fill(weights)

    def fill_facts(self, walk: Weights, facts: ItemFacts) -> None:
        """Sets the weights of the item walk and the statistics of the items."""
        self._walk.fill(walk)
        for variable, value in zip(self._facts, facts, strict=True):
            variable.assign(value)

    def fill_stage(self, stage: SecondStage) -> None:
        """Sets all weights of the second stage."""
        self.fill_facts(stage.walk, stage.facts)
        for variable, value in zip(self._layers, stage.layers, strict=True):
            variable.assign(value)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        first = self._towers.score_in_parts(queries)
        found = self._find(queries, first)
        layers = Layers(*(tf.convert_to_tensor(variable) for variable in self._layers))
        reranked = _candidates_first(first.score, found, score_candidates(layers, found.feature, found.score))
        return tf.where(first.is_empty[:, None], self._towers.popularity, reranked)

    def candidates(self, queries: Queries) -> Candidates:
        """Returns the candidates of the queries, with their features."""
        return self._find(queries, self._towers.score_in_parts(queries))

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        return self._towers.pair_scores(visitor, item)

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        return self._towers.item_similarities(item)

    def _find(self, queries: Queries, first: ScoreParts) -> Candidates:
        walk = self._walk.sums(queries)
        history = latest(queries, size=NUM_LATEST, num_items=self._num_items)
        entries = summarize_entries(history, first.bonus)
        item, is_candidate = self._choose(history, entries, first.score, walk)
        tower, walk = tf.gather(first.score, item, batch_dims=1), tf.gather(walk, item, batch_dims=1)
        columns = self._candidate_features(item, is_candidate, tower, walk, entries)
        columns += [tf.broadcast_to(one[:, None], tf.shape(tower)) for one in self._query_features(history, entries)]
        score = tower + _values_of_entries(entries.bonus, entries, item)
        return Candidates(item, is_candidate, score, tf.stack(columns, axis=2))

    def _choose(
        self, history: History, entries: Entries, tower: tf.Tensor, walk: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns [B, C] item indices, and [B, C] bool: whether each of them is a candidate.

        The first L columns are the history items, the next NUM_BEST columns are the best other items by `tower`, and
        the last NUM_BEST columns are the best remaining items by `walk`. Both scores are [B, I].
        """
        count = min(NUM_BEST, self._num_items)
        of_history = tf.where(history.is_entry, history.item, 0)
        of_tower = top_k(_mask_items(tower, of_history, history.is_entry), count)
        is_of_tower = of_tower.score > _NEVER
        others = _mask_items(_mask_items(walk, of_history, history.is_entry), of_tower.item, is_of_tower)
        of_walk = top_k(others, count)
        item = tf.concat([of_history, of_tower.item, of_walk.item], axis=1)
        return item, tf.concat([entries.is_first, is_of_tower, of_walk.score > 0], axis=1)

    def _candidate_features(
        self, item: tf.Tensor, is_candidate: tf.Tensor, tower: tf.Tensor, walk: tf.Tensor, entries: Entries
    ) -> list[tf.Tensor]:
        """Returns the features that differ between the candidates of a query, each [B, C], in the order of FEATURES.

        Args:
          item: [B, C] item indices.
          is_candidate: [B, C] bool.
          tower: [B, C] scores of the towers, without the bonuses for history items.
          walk: [B, C] scores of the item walk.
          entries: statistics of the histories.
        """

        def of_entries(column: tf.Tensor) -> tf.Tensor:
            return _values_of_entries(column, entries, item)

        bonus = of_entries(entries.bonus)
        score, log_walk = tower + bonus, tf.math.log(walk + _WALK_OFFSET)
        popularity, recent_popularity, repeat_rate = (tf.gather(fact, item) for fact in self._facts)
        return [
            *(tower, _log_rank(tower, is_candidate), _gap(tower, is_candidate), bonus),
            *(score, _log_rank(score, is_candidate), _gap(score, is_candidate)),
            *(log_walk, _log_rank(log_walk, is_candidate), _gap(log_walk, is_candidate)),
            *(of_entries(tf.ones_like(entries.newest)), of_entries(tf.cast(entries.newest == 0, tf.float32))),
            *(of_entries(1 / (1 + entries.newest)), of_entries(1 / (1 + entries.oldest))),
            *(of_entries(tf.math.log1p(entries.count)), of_entries(entries.recency)),
            *(popularity, recent_popularity, recent_popularity - popularity, repeat_rate),
        ]

    def _query_features(self, history: History, entries: Entries) -> list[tf.Tensor]:
        """Returns the features that all candidates of a query share, each [B]. They are the last ones in FEATURES."""
        is_repeat = tf.equal(history.item[:, 1:], history.item[:, :-1])
        is_repeat &= history.is_entry[:, 1:] & history.is_entry[:, :-1]
        length, distinct, repeats = (
            tf.reduce_sum(tf.cast(is_counted, tf.float32), axis=1)
            for is_counted in (history.is_entry, entries.is_first, is_repeat)
        )
        last = tf.where(history.is_entry[:, 0], history.item[:, 0], 0)
        some = tf.maximum(length, 1)
        return [tf.gather(self._facts[2], last), tf.math.log1p(length), distinct / some, repeats / some]


def _candidates_first(tower: tf.Tensor, found: Candidates, score: tf.Tensor) -> tf.Tensor:
    """Returns [B, I]: scores that rank the candidates before all other items.

    Args:
      tower: [B, I] the towers' scores; they rank the other items.
      found: the candidates.
      score: [B, C] the final scores of the candidates.
    """
    entries = tf.where(found.is_candidate)
    index = tf.stack([entries[:, 0], tf.gather_nd(found.item, entries)], axis=1)
    least = tf.reduce_min(tf.where(found.is_candidate, score, np.inf), axis=1, keepdims=True)
    highest = tf.reduce_max(_mask_items(tower, found.item, found.is_candidate), axis=1, keepdims=True)
    return tf.tensor_scatter_nd_update(tower + tf.minimum(least - highest - 1, 0), index, tf.gather_nd(score, entries))


def _mask_items(scores: tf.Tensor, items: tf.Tensor, is_item: tf.Tensor) -> tf.Tensor:
    """Returns `scores`, but with the low score _NEVER for each of the `items` that `is_item` selects.

    Shapes: `scores` [B, I], `items` and `is_item` [B, n].
    """
    entries = tf.where(is_item)
    index = tf.stack([entries[:, 0], tf.gather_nd(items, entries)], axis=1)
    return tf.tensor_scatter_nd_update(scores, index, tf.fill([tf.shape(entries)[0]], _NEVER))


def _values_of_entries(column: tf.Tensor, entries: Entries, item: tf.Tensor) -> tf.Tensor:
    """Returns [B, C]: for history items, their value in `column`, [B, L]; for the other candidates, 0."""
    values = tf.where(entries.is_first, column, 0.0)
    return tf.pad(values, [[0, 0], [0, tf.shape(item)[1] - tf.shape(values)[1]]])


def _log_rank(score: tf.Tensor, is_candidate: tf.Tensor) -> tf.Tensor:
    """Returns [B, C]: log(1 + rank) of each candidate. The highest score has rank 0; ties rank in column order."""
    order = tf.argsort(tf.where(is_candidate, score, _NEVER), axis=1, direction="DESCENDING", stable=True)
    return tf.math.log1p(tf.cast(tf.argsort(order, axis=1), tf.float32))


def _gap(score: tf.Tensor, is_candidate: tf.Tensor) -> tf.Tensor:
    """Returns [B, C]: each score minus the highest score among the candidates of its query."""
    return score - tf.reduce_max(tf.where(is_candidate, score, _NEVER), axis=1, keepdims=True)
