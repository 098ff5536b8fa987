"""The interface of trained models and baselines for evaluation, export and recommendation.

Shapes: B queries, H history, I items of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import tensorflow as tf

from trainer.runs.checkpoint import Weights

UNKNOWN_EVENT = -1
"""Index of the event kind, for events with unknown kind and time."""


class Queries(NamedTuple):
    """Visitors to rank the catalogue for."""

    visitor: tf.Tensor
    """[B] int64 vocabulary indices; an index from the vocabulary's size on means a visitor who was not in training."""
    history: tf.Tensor
    """[B, H] int64 item indices, oldest first; from `history_length` on, padding with arbitrary indices."""
    history_length: tf.Tensor
    """[B] int64: number of events in each history."""
    history_event: tf.Tensor
    """[B, H] int64 indices of event kinds, or UNKNOWN_EVENT; padded like `history`."""
    history_timestamp_ms: tf.Tensor
    """[B, H] int64 times of the events, arbitrary for an UNKNOWN_EVENT; padded like `history`."""
    timestamp_ms: tf.Tensor
    """[B] int64 time of the request, not before the history."""

    @classmethod
    def of_items(cls, visitor: tf.Tensor, history: tf.Tensor, history_length: tf.Tensor) -> "Queries":
        """Builds queries from items alone: each event is an UNKNOWN_EVENT, and the time of the request is 0."""
        event = tf.fill(tf.shape(history), tf.constant(UNKNOWN_EVENT, tf.int64))
        return cls(visitor, history, history_length, event, tf.zeros_like(history), tf.zeros_like(visitor))


class Scorer(Protocol):
    """A system that ranks the catalogue: a trained model or a baseline."""

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32; higher is better, comparable within a row; finite for all visitors, known or not."""


@runtime_checkable
class PieceScorer(Scorer, Protocol):
    """A scorer that can score a slice of the catalogue; the cost is in proportion to the size of the slice."""

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        """Returns a function of (first, n) that returns the scores [B, n] float32 of the n items from index `first` on.

        Everything that depends only on the queries is computed here, once for all slices.
        """


@runtime_checkable
class PolicyScorer(Scorer, Protocol):
    """A scorer with scores that depend on whether the items of the history are hidden."""

    def policy_scores(self, queries: Queries) -> Callable[[tf.Tensor | bool], tf.Tensor]:
        """Returns a function of `is_seen_hidden`, a scalar or [B], that returns the scores [B, I] float32.

        Everything that does not depend on this flag is computed here, once.
        """


class ServedModel(Scorer, Protocol):
    """A trained model as a `tf.Module`; the same module is evaluated and exported, so both give the same scores."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """All weights; an array that is not a variable would become a constant of the exported graph."""

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """[B] float32 scores of visitors [B] and items [B], given as indices.

        For known items, they equal the visitor's `catalogue_scores` with an empty history.
        """

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        """[B, I] float32: similarity of every item in the catalogue to each of the items [B], given as indices."""


class InferenceModel(ServedModel, Protocol):
    """A model that ranks with the weights of one run."""

    def fill(self, weights: Weights) -> None:
        """Sets the weights, which are 0 in a new model. A run fills the same model again at each validation."""
