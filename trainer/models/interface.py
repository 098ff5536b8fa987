"""The interface of trained models and baselines for evaluation, export and recommendation.

Shapes: B queries, H entries of a history, I items of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import tensorflow as tf

from trainer.runs.checkpoint import Weights

UNKNOWN_EVENT = -1
"""Event kind of an event whose kind and time are unknown."""


class Queries(NamedTuple):
    """B queries, each a visitor with a history."""

    visitor: tf.Tensor
    """[B] int64 indices of visitors; a visitor who was not in training has an index after the vocabulary."""
    history: tf.Tensor
    """[B, H] int64 item indices, oldest first. After `history_length` events, the indices are arbitrary padding."""
    history_length: tf.Tensor
    """[B] int64: number of events in each history."""
    history_event: tf.Tensor
    """[B, H] int64 indices of event kinds, or UNKNOWN_EVENT; padded like `history`."""
    history_timestamp_ms: tf.Tensor
    """[B, H] int64 times of the events; arbitrary for events of kind UNKNOWN_EVENT; padded like `history`."""
    timestamp_ms: tf.Tensor
    """[B] int64 time of the request; not before the last event of the history."""

    @classmethod
    def of_items(cls, visitor: tf.Tensor, history: tf.Tensor, history_length: tf.Tensor) -> "Queries":
        """Builds queries from items alone; events have the kind UNKNOWN_EVENT, and all times are 0."""
        event = tf.fill(tf.shape(history), tf.constant(UNKNOWN_EVENT, tf.int64))
        return cls(visitor, history, history_length, event, tf.zeros_like(history), tf.zeros_like(visitor))


class Scorer(Protocol):
    """A system that ranks the catalogue: a trained model or a baseline."""

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32: the score of every item for each query; higher is better.

        Scores are comparable only within a row. They are finite, for known and unknown visitors.
        """


@runtime_checkable
class PieceScorer(Scorer, Protocol):
    """A scorer that can score a slice of the catalogue without scoring the rest."""

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        """Returns a function of (first, n); it returns [B, n] float32: scores of the n items from index `first` on."""


@runtime_checkable
class PolicyScorer(Scorer, Protocol):
    """A scorer whose scores depend on whether the ranking hides the items of the history."""

    def policy_scores(self, queries: Queries) -> Callable[[tf.Tensor | bool], tf.Tensor]:
        """Returns a function of one argument, `is_seen_hidden`; the function returns the scores, [B, I] float32.

        `is_seen_hidden`, a bool scalar or [B], is True if the ranking hides the items of the history.
        """


class ServedModel(Scorer, Protocol):
    """A trained model as a `tf.Module`, which is both evaluated and exported."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All weights of the model, as variables; other arrays would become constants in the exported graph."""

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """[B] float32: scores of the pairs (visitor[k], item[k]); both arguments are indices [B].

        The score of a known item equals its score by `catalogue_scores` for the visitor with an empty history.
        """

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        """[B, I] float32: similarity of each of the items `item` [B] to every item of the vocabulary."""


class InferenceModel(ServedModel, Protocol):
    """A model that ranks with the weights of one run."""

    def fill(self, weights: Weights) -> None:
        """Sets the weights, which are 0 in a new model; may be called again."""
