"""What stands for the items a visitor did not choose: the other items of the batch, and items drawn by popularity.

Shapes: B rows of the global batch, N drawn items, I items of the vocabulary.
"""

import numpy as np
import tensorflow as tf


class NegativeSampler:
    """Draws items and tells how often a step is expected to show each item as a candidate."""

    def __init__(self, item_counts: np.ndarray, *, num_drawn: int, drawn_power: float, seed: int) -> None:
        """A sampler of the items 0 … I-1.

        Args:
          item_counts: [I] training events of each item.
          num_drawn: N.
          drawn_power: items are drawn in proportion to (item_counts + 1) ** drawn_power.
          seed: of the draws; a step draws the same on every replica.
        """
        self.num_items = len(item_counts)
        self.num_drawn = num_drawn
        self._seed = seed
        self._batch_share = tf.constant(item_counts / max(item_counts.sum(), 1), tf.float32)
        weights = (item_counts + 1.0) ** drawn_power
        self._drawn_share = tf.constant(weights / weights.sum(), tf.float32)
        # double: at a million items, the float32 steps of a sum near 1 would be of the size of an item's share
        cumulative = np.cumsum(weights)
        self._cumulative = tf.constant(cumulative / cumulative[-1], tf.float64)

    def draw(self, step: tf.Tensor) -> tf.Tensor:
        """[N] int64 items, with repetitions; a pure function of the seed and the step (scalar int64)."""
        seed = tf.stack([tf.constant(self._seed, tf.int64), step])
        uniform = tf.random.stateless_uniform([self.num_drawn], seed, dtype=tf.float64)
        return tf.searchsorted(self._cumulative, uniform, side="right", out_type=tf.int64)

    def log_expected_count(self, items: tf.Tensor, num_others: tf.Tensor) -> tf.Tensor:
        """[C] for items [C]: log of how often a row's candidates are expected to hold each.

        Args:
          items: vocabulary items.
          num_others: rows of the global batch beside the row itself, scalar float32.
        """
        from_batch = num_others * tf.gather(self._batch_share, items)
        drawn = self.num_drawn * tf.gather(self._drawn_share, items)
        return tf.math.log(from_batch + drawn)
