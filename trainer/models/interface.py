"""What evaluation, export and recommendation need of a trained model or a baseline.

Shapes: B queries, H history, I items of the vocabulary, D embedding.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf


class Queries(NamedTuple):
    """Visitors to rank the catalogue for.

    visitor           [B] int64: vocabulary index; at or above the vocabulary's size: a visitor not seen in training
    history           [B, H] int64: item indices, oldest first, filled from the left; what lies at or after
                      history_length is padding and may hold any index
    history_length    [B] int64
    """

    visitor: tf.Tensor
    history: tf.Tensor
    history_length: tf.Tensor


class Scorer(Protocol):
    """Anything that ranks the catalogue: a trained model or a baseline."""

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32, higher is better, comparable within a row; finite for every visitor, known or not."""


class InferenceModel(Scorer, Protocol):
    """A trained model as a `tf.Module`; exported as it stands, so that export and evaluation agree."""

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """Every weight: what is not a variable would be a constant of the exported graph."""

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        """[B] float32 for visitor [B] and item [B] indices; equals the entry of `catalogue_scores` for known items."""

    def item_vectors(self) -> tf.Tensor:
        """[I, D] float32, whose cosine tells how alike two items are."""
