"""What stands for the items a visitor did not choose: the other items of the batch, and drawn ones.

Shapes: B rows of the global batch, N drawn items, I items of the vocabulary.
"""

import numpy as np
import tensorflow as tf


class NegativeSampler:
    """Draws items and tells how often a step is expected to show each item as a candidate."""

    def __init__(
        self,
        item_counts: np.ndarray,
        *,
        batch_counts: np.ndarray | None = None,
        num_negatives: int,
        negative_power: float,
        seed: int,
        uniform_share: float = 0.0,
        in_batch_negatives: bool = True,
    ) -> None:
        """A sampler of the items 0 … I-1.

        Args:
          item_counts: [I] training events of each item.
          batch_counts: [I] rows of each item that the batches of an epoch hold as candidates; by default `item_counts`.
          num_negatives: N.
          negative_power: items are drawn in proportion to (item_counts + 1) ** negative_power.
          seed: of the draws; a step draws the same on every replica.
          uniform_share: share of the draws that are of all items alike instead.
          in_batch_negatives: whether the items of the batch's other rows are candidates too.
        """
        self.num_items = len(item_counts)
        self.num_negatives = num_negatives
        self._seed = seed
        in_batches = item_counts if batch_counts is None else batch_counts
        batch_share = in_batches / max(in_batches.sum(), 1)
        self._batch_share = tf.constant(batch_share if in_batch_negatives else 0 * batch_share, tf.float32)
        weights = (item_counts + 1.0) ** negative_power
        # one distribution and not two sources: the expected count of a draw is then exact whatever it came from
        drawn_share = uniform_share / len(weights) + (1 - uniform_share) * weights / weights.sum()
        self._drawn_share = tf.constant(drawn_share, tf.float32)
        # double: at a million items, the float32 steps of a sum near 1 would be of the size of an item's share
        cumulative = np.cumsum(drawn_share)
        self._cumulative = tf.constant(cumulative / cumulative[-1], tf.float64)

    def draw(self, step: tf.Tensor) -> tf.Tensor:
        """[N] int64 items, with repetitions; a pure function of the seed and the step (scalar int64)."""
        seed = tf.stack([tf.constant(self._seed, tf.int64), step])
        uniform = tf.random.stateless_uniform([self.num_negatives], seed, dtype=tf.float64)
        return tf.searchsorted(self._cumulative, uniform, side="right", out_type=tf.int64)

    def log_expected_count(self, items: tf.Tensor, num_others: tf.Tensor) -> tf.Tensor:
        """[C] for items [C]: log of how often a row's candidates are expected to hold each.

        Args:
          items: vocabulary items.
          num_others: rows of the global batch beside the row itself, scalar float32.
        """
        from_batch = num_others * tf.gather(self._batch_share, items)
        drawn = self.num_negatives * tf.gather(self._drawn_share, items)
        return tf.math.log(from_batch + drawn)
