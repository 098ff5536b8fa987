"""Two towers over timelines: the latest items of a visitor against the catalogue.

Whoever has touched an item is served, seen in training or not; a frequent visitor may have a vector of his own besides.
Both towers read the same rows of items: an item's own row, if training knows it, plus what its content says, so that an
item without a training event is recommended too. An item of the history may be what comes next, so it gets a bonus.

Shapes: B rows, H history, C candidates, I items of the vocabulary, D embedding, W = D + 1: an item row's last column is
its bias, E event kinds, A ages, S visits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from contract.schema import EVENT_KINDS
from trainer.config.run import TowersConfig
from trainer.models.interface import Queries
from trainer.models.table_variables import HOST, fill, make_variable
from trainer.runs.checkpoint import Weights

AGES_MS = (30 * 60 * 1000, 24 * 60 * 60 * 1000, 7 * 24 * 60 * 60 * 1000)
"""What divides ages: this visit (half an hour is the usual end of one), today, this week, before."""

VISITS = 4
"""Visits that are told apart: this one, the last, the one before, and all earlier ones."""

_NEVER = -1e9

_NEWEST_SHARE = 0.5
"""Of the newest item's vector in the visitor's, beside what the layers make of it. Validation NDCG@20 on
retailrocket_buyers, preset nn, one seed: .207 with none, .214 with a half, .216 with all of it."""

_OUTPUT_GAIN = 0.3
"""What the hidden layer adds begins small beside the items' own directions; from nothing it learns as well: .214."""


class History(NamedTuple):
    """What rows are ranked by.

    item       [B, H] item indices, newest first; any index where `is_entry` is False
    event      [B, H] places in EVENT_KINDS
    age        [B, H] how many of AGES_MS have passed since
    visit      [B, H] how many visits ago, below VISITS
    is_entry   [B, H] bool; False: padding, or an item that the vocabulary lacks
    """

    item: tf.Tensor
    event: tf.Tensor
    age: tf.Tensor
    visit: tf.Tensor
    is_entry: tf.Tensor

    @classmethod
    def of(cls, item: tf.Tensor, event: tf.Tensor, age_ms: tf.Tensor, is_entry: tf.Tensor) -> "History":
        """The history of items, events and the time since then, all [B, H]."""
        since_next = tf.concat([age_ms[:, :1], age_ms[:, 1:] - age_ms[:, :-1]], axis=1)
        visits = tf.cumsum(tf.cast(since_next >= AGES_MS[0], tf.int64), axis=1)
        return cls(item, event, age_of(age_ms), tf.clip_by_value(visits, 0, VISITS - 1), is_entry)

    @property
    def is_empty(self) -> tf.Tensor:
        """[B] bool."""
        return ~tf.reduce_any(self.is_entry, axis=1)


class DenseWeights(NamedTuple):
    """The weights beside the item table, in the order in which they are kept.

    place           [H] attention to a place of the history, whatever is there
    age             [A] and to its age
    visit           [S] and to its visit
    event           [E, D] added to an item's vector by what was done with it
    attention       [D, D] from the newest item to what it asks the others for
    hidden          [2D, 2D] and hidden_bias [2D]: layer over the newest item and the attended history
    output          [2D, D] what that layer adds
    log_scale       [] of the cosine
    return_place    [H] bonus of an item for standing at a place of the history
    return_event    [E] for what was done with it there
    return_age      [A] for how long ago
    return_visit    [S] for how many visits ago
    return_hidden   [2D] and for what the layer makes of the visitor: who returns, returns again
    """

    place: tf.Tensor
    age: tf.Tensor
    visit: tf.Tensor
    event: tf.Tensor
    attention: tf.Tensor
    hidden: tf.Tensor
    hidden_bias: tf.Tensor
    output: tf.Tensor
    log_scale: tf.Tensor
    return_place: tf.Tensor
    return_event: tf.Tensor
    return_age: tf.Tensor
    return_visit: tf.Tensor
    return_hidden: tf.Tensor


def item_width(config: TowersConfig) -> int:
    """Columns of the item table, W."""
    return config.dim + 1


def make_dense_variables(config: TowersConfig, seed: int) -> list[keras.Variable]:
    """`DenseWeights` at the start; made in a strategy's scope."""
    dim, kinds, ages = config.dim, len(EVENT_KINDS), len(AGES_MS) + 1
    generator = np.random.default_rng(seed)

    def normal(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        return generator.normal(0, gain / np.sqrt(rows), (rows, columns))

    start = DenseWeights(
        place=np.zeros(config.history_length),
        age=np.zeros(ages),
        visit=np.zeros(VISITS),
        event=np.zeros((kinds, dim)),
        attention=normal(dim, dim),
        hidden=normal(2 * dim, 2 * dim),
        hidden_bias=np.zeros(2 * dim),
        output=normal(2 * dim, dim, gain=_OUTPUT_GAIN),
        log_scale=np.array(np.log(config.initial_scale)),
        return_place=np.zeros(config.history_length),
        return_event=np.zeros(kinds),
        return_age=np.zeros(ages),
        return_visit=np.zeros(VISITS),
        return_hidden=np.zeros(2 * dim),
    )
    return [
        keras.Variable(value.astype(np.float32), name=name)
        for name, value in zip(DenseWeights._fields, start, strict=True)
    ]


def latest(queries: Queries, *, size: int, num_items: int) -> History:
    """The newest `size` entries of the queries' histories."""
    # a column more: histories may be of no width, and a place must exist to be read
    columns = (queries.history, queries.history_event, queries.history_timestamp_ms)
    place = queries.history_length[:, None] - 1 - tf.range(size, dtype=tf.int64)
    item, event, timestamp_ms = (
        tf.gather(tf.pad(column, [[0, 0], [0, 1]]), tf.maximum(place, 0), batch_dims=1) for column in columns
    )
    return History.of(
        item, event, queries.timestamp_ms[:, None] - timestamp_ms, (place >= 0) & (item >= 0) & (item < num_items)
    )


def age_of(age_ms: tf.Tensor) -> tf.Tensor:
    """How many of AGES_MS have passed, int64, for ages of any shape."""
    return tf.add_n([tf.cast(age_ms >= limit, tf.int64) for limit in AGES_MS])


@dataclass(frozen=True)
class Towers:
    """Scores from item rows and dense weights, differentiable; what training and inference share.

    compute_dtype   of the product with the candidates
    """

    config: TowersConfig
    compute_dtype: tf.DType = tf.float32

    def place_visitors(
        self, dense: DenseWeights, vectors: tf.Tensor, history: History, own: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Visitors [B, D], whose dot product with a placed item is the score, and the bonus [B] for their returns.

        Args:
          vectors: [B, H, D] of the history's items.
          own: [B, D] vectors of the visitors themselves; 0 for those who have none.
        """
        has_entry = tf.cast(history.is_entry, tf.float32)
        read = (vectors + tf.gather(dense.event, history.event)) * has_entry[:, :, None]
        newest = tf.gather(read, tf.argmax(has_entry, axis=1), batch_dims=1)
        asked = tf.matmul(newest, dense.attention) / np.sqrt(self.config.dim)
        attention = tf.einsum("bhd,bd->bh", read, asked) + dense.place
        attention += tf.gather(dense.age, history.age) + tf.gather(dense.visit, history.visit)
        share = tf.nn.softmax(tf.where(history.is_entry, attention, _NEVER), axis=1)
        attended = tf.einsum("bh,bhd->bd", share, read)
        hidden = tf.matmul(tf.concat([newest, attended], axis=1), dense.hidden) + dense.hidden_bias
        hidden = tf.nn.gelu(hidden)
        visitors = tf.add_n([attended, _NEWEST_SHARE * newest, tf.matmul(hidden, dense.output), own])
        returning = tf.linalg.matvec(hidden, dense.return_hidden)
        return tf.nn.l2_normalize(visitors, axis=1) * tf.exp(dense.log_scale), returning

    def place_items(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Vectors [..., D] and biases [...] of rows [..., W] of the item table."""
        return tf.nn.l2_normalize(rows[..., : self.config.dim], axis=-1), rows[..., self.config.dim]

    def candidate_scores(self, visitors: tf.Tensor, items: tf.Tensor, biases: tf.Tensor) -> tf.Tensor:
        """[B, C] for placed visitors [B, D], placed items [C, D] and their biases [C], without bonuses."""
        product = tf.matmul(tf.cast(visitors, self.compute_dtype), tf.cast(items, self.compute_dtype), transpose_b=True)
        return tf.cast(product, tf.float32) + biases

    def bonuses(self, dense: DenseWeights, history: History, returning: tf.Tensor) -> tf.Tensor:
        """[B, H]: what each entry adds to the score of its item; an item that stands there twice gets both.

        Args:
          returning: [B] of `place_visitors`.
        """
        bonus = dense.return_place + tf.gather(dense.return_event, history.event) + returning[:, None]
        bonus += tf.gather(dense.return_age, history.age) + tf.gather(dense.return_visit, history.visit)
        return tf.where(history.is_entry, bonus, 0.0)


class TowersInference(tf.Module):
    """Trained towers; see `models.interface.InferenceModel`.

    A visitor without a known item in his history gets the popular items. So does every pair without a history.
    """

    def __init__(
        self,
        config: TowersConfig,
        *,
        item_rows: Callable[[Weights], Callable[[slice], np.ndarray]],
        num_frequent: int,
        item_counts: np.ndarray,
    ) -> None:
        """A model that `fill` fills.

        Args:
          item_rows: reads rows [n, W] of items out of trained weights: an item's own, if training knows it, plus its
            content.
          num_frequent: visitors with vectors of their own.
          item_counts: [I] training events of each item.
        """
        super().__init__(name="towers")
        self._model = Towers(config)
        self._item_rows = item_rows
        self._num_items = len(item_counts)
        # placed once, not for every query; histories read the rows as long as they are
        self._items = make_variable((self._num_items, config.dim), "items")
        self._biases = make_variable((self._num_items,), "biases")
        self._lengths = make_variable((self._num_items, 1), "lengths")
        # the last row is that of everybody who is not frequent
        self._num_frequent = num_frequent
        with tf.device(HOST):
            self._visitors = make_variable((num_frequent + 1, config.dim), "visitors")
        self._dense = [
            make_variable(tuple(variable.shape), variable.name) for variable in make_dense_variables(config, seed=0)
        ]
        # an unknown item is as popular as one without events
        self._popularity = tf.Variable(np.append(np.log1p(item_counts), 0.0), trainable=False, dtype=tf.float32)

    def fill(self, weights: Weights) -> None:
        read, dim = self._item_rows(weights), self._model.config.dim
        fill(self._items, lambda rows: self._model.place_items(tf.constant(read(rows)))[0])
        fill(self._biases, lambda rows: self._model.place_items(tf.constant(read(rows)))[1])
        fill(self._lengths, lambda rows: np.linalg.norm(read(rows)[:, :dim], axis=1, keepdims=True))
        if "visitor" in weights.tables:
            fill(self._visitors, weights.tables["visitor"].__getitem__)
            self._visitors[-1].assign(tf.zeros([dim]))  # all others start from their history alone
        for variable, weight in zip(self._dense, weights.dense, strict=True):
            variable.assign(weight)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return self.piece_scores(queries)(0, self._num_items)

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        config, dense = self._model.config, DenseWeights(*(tf.convert_to_tensor(weight) for weight in self._dense))
        history = latest(queries, size=config.history_length, num_items=self._num_items)
        item = tf.where(history.is_entry, history.item, 0)
        vectors = tf.gather(self._items, item) * tf.gather(self._lengths, item)
        own = tf.gather(self._visitors, tf.clip_by_value(queries.visitor, 0, self._num_frequent))
        visitors, returning = self._model.place_visitors(dense, vectors, history, own)
        bonuses = self._model.bonuses(dense, history, returning) + config.return_bonus

        def score(begin: tf.Tensor | int, size: int) -> tf.Tensor:
            piece = slice(begin, begin + size)
            scores = self._model.candidate_scores(visitors, self._items[piece], self._biases[piece])
            column = history.item - tf.cast(begin, history.item.dtype)
            place = tf.where(history.is_entry & (column >= 0) & (column < size))
            index = tf.stack([place[:, 0], tf.gather_nd(column, place)], axis=1)
            scores = tf.tensor_scatter_nd_add(scores, index, tf.gather_nd(bonuses, place))
            return tf.where(history.is_empty[:, None], self._popularity[piece], scores)

        return score

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        scores = tf.gather(self._popularity, tf.minimum(item, self._num_items))
        return tf.broadcast_to(scores, tf.shape(visitor))

    def item_vectors(self) -> tf.Tensor:
        return tf.convert_to_tensor(self._items)
