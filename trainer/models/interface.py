"""What evaluation, export and recommendation need of a trained model or a baseline.

Shapes: B queries, H history, I items of the vocabulary, D embedding.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import tensorflow as tf

from trainer.runs.checkpoint import Weights


class Queries(NamedTuple):
    """Visitors to rank the catalogue for.

    visitor                [B] int64: vocabulary index; at or above the vocabulary's size: not seen in training
    history                [B, H] int64: item indices, oldest first, filled from the left; what lies at or after
                           history_length is padding and may hold any index
    history_length         [B] int64
    history_event          [B, H] int64: what was done with the item, a place in `EVENT_KINDS`; padded like `history`
    history_timestamp_ms   [B, H] int64: when; padded like `history`
    timestamp_ms           [B] int64: the moment for which is ranked, no earlier than the history
    """

    visitor: tf.Tensor
    history: tf.Tensor
    history_length: tf.Tensor
    history_event: tf.Tensor
    history_timestamp_ms: tf.Tensor
    timestamp_ms: tf.Tensor

    @classmethod
    def of_items(cls, visitor: tf.Tensor, history: tf.Tensor, history_length: tf.Tensor) -> "Queries":
        """Queries of which only the items are known: every event a view, and every moment 0, so that no time passes."""
        zeros = tf.zeros_like(history)
        return cls(visitor, history, history_length, zeros, zeros, tf.zeros_like(visitor))


class Scorer(Protocol):
    """Anything that ranks the catalogue: a trained model or a baseline."""

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32, higher is better, comparable within a row; finite for every visitor, known or not."""


@runtime_checkable
class PieceScorer(Scorer, Protocol):
    """A scorer that can score a piece of the catalogue for a piece of the cost."""

    def piece_scores(self, queries: Queries) -> Callable[[tf.Tensor | int, int], tf.Tensor]:
        """A function of an item's index and a number n: [B, n] float32, the scores of that item and those behind it.

        What depends on the queries alone is computed here, once for all pieces.
        """


class InferenceModel(Scorer, Protocol):
    """A trained model as a `tf.Module`; exported as it stands, so that export and evaluation agree."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """Every weight: what is not a variable would be a constant of the exported graph."""

    def fill(self, weights: Weights) -> None:
        """Takes on trained weights; a model is made once, of zeros, and filled again as its run goes on."""

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """[B] float32 for visitor [B] and item [B] indices.

        For known items it equals the entry of `catalogue_scores` for the visitor without a history.
        """

    def item_vectors(self) -> tf.Tensor:
        """[I, D] float32, whose cosine tells how alike two items are."""
