"""Fold-in: computes visitor vectors from histories by least squares, so that events after training are used.

Shapes: B queries, H entries of a history, L latest entries of a history, I items of the vocabulary, D
columns of a vector.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from trainer.config.optimizers import AlternatingConfig
from trainer.models.interface import Queries
from trainer.models.least_squares import row_l2, solve_rows
from trainer.models.table_variables import make_variable

MAX_ENTRIES = 64
"""Maximum number of latest entries of a history that are used, L. Each visitor takes memory for an L × L system."""


class FoldIn(tf.Module):
    """Computes visitor vectors from histories, by least squares with fixed item vectors.

    The weights of events do not decay with their age.
    """

    def __init__(self, config: AlternatingConfig, event_weights: Sequence[float], num_items: int, dim: int) -> None:
        super().__init__(name="fold_in")
        self._config, self._num_items = config, num_items
        self._event_weights = tf.constant(event_weights, tf.float32)
        self._gramian = make_variable((dim,), "gramian")
        self._basis = make_variable((dim, dim), "basis")

    def fill(self, gramian: np.ndarray) -> None:
        """Sets the Gramian [D, D]: the sum of v vᵀ over the vectors v of all items."""
        values, basis = np.linalg.eigh(gramian.astype(np.float64))
        self._gramian.assign(np.maximum(values, 0))
        self._basis.assign(basis)

    def __call__(self, items: tf.Variable, queries: Queries) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the visitor vector of each of B queries from the latest entries of its history.

        Args:
          items: [I, D] item vectors.

        Returns:
          The vectors [B, D], and [B] bool: whether a known item of the history has a weight above 0. If not, the vector
            is 0.
        """
        item, weights = self._entries(queries)
        vectors = tf.einsum("bld,de->ble", tf.gather(items, item), self._basis)
        config, unobserved = self._config, self._config.unobserved_weight
        lengths = tf.math.count_nonzero(weights, axis=1)
        l2 = row_l2(lengths, self._num_items, l2=config.l2, l2_power=config.l2_power, unobserved_weight=unobserved)
        solved, _ = solve_rows(vectors, weights, self._gramian, l2, unobserved_weight=unobserved, is_long=False)
        return tf.matmul(solved, self._basis, transpose_b=True), tf.reduce_any(weights > 0, axis=1)

    def _entries(self, queries: Queries) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns [B, L] items, newest first; [B, L] weights: an item's total weight at its first entry, else 0."""
        length = tf.minimum(tf.shape(queries.history)[1], MAX_ENTRIES)
        position = queries.history_length[:, None] - 1 - tf.range(length, dtype=tf.int64)
        item, event = (
            tf.gather(column, tf.maximum(position, 0), batch_dims=1)
            for column in (queries.history, queries.history_event)
        )
        is_entry = (position >= 0) & (item < self._num_items)
        item = tf.where(is_entry, item, 0)
        # an unknown event has the weight of the first kind
        weights = tf.where(is_entry, tf.gather(self._event_weights, tf.maximum(event, 0)), 0.0)
        # a (visitor, item) pair is one term of the objective, with the summed weight of its events
        is_same = is_entry[:, :, None] & is_entry[:, None, :] & tf.equal(item[:, :, None], item[:, None, :])
        is_repeated = tf.reduce_any(tf.linalg.band_part(is_same, -1, 0) & ~tf.eye(length, dtype=tf.bool), axis=2)
        summed = tf.matmul(tf.cast(is_same, tf.float32), weights[:, :, None])[:, :, 0]
        return item, tf.where(is_repeated, 0.0, summed)
