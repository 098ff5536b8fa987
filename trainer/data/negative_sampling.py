"""Negatives: in-batch items plus random draws.

Shapes: N sampled items, I items of the vocabulary, C candidates.
"""

import numpy as np
import tensorflow as tf


class NegativeSampler:
    """Samples negatives, and computes the expected counts of candidates for the logQ correction."""

    def __init__(
        self,
        item_counts: np.ndarray,
        *,
        batch_counts: np.ndarray | None = None,
        is_sampled: np.ndarray | None = None,
        num_negatives: int,
        negative_power: float,
        seed: int,
        uniform_share: float = 0.0,
        in_batch_negatives: bool = True,
    ) -> None:
        """Creates a sampler of the items 0 … I-1.

        Args:
          item_counts: [I] number of training events of each item.
          batch_counts: [I] how often each item is an in-batch candidate in an epoch; None: `item_counts`.
          is_sampled: [I] bool, whether an item may be sampled; None: all items.
          num_negatives: N, the number of items to sample per training step.
          negative_power: items are sampled in proportion to (item_counts + 1) ** negative_power.
          seed: seed of the samples; a training step samples the same items on every replica.
          uniform_share: share of the samples that are drawn uniformly.
          in_batch_negatives: whether the positives of the batch's other rows are candidates too.
        """
        self.num_items = len(item_counts)
        self.num_negatives = num_negatives
        self._seed = seed
        in_batches = item_counts if batch_counts is None else batch_counts
        batch_share = in_batches / max(in_batches.sum(), 1)
        self._batch_share = tf.constant(batch_share if in_batch_negatives else 0 * batch_share, tf.float32)
        is_sampled = np.ones(self.num_items, bool) if is_sampled is None else is_sampled
        weights = np.where(is_sampled, (item_counts + 1.0) ** negative_power, 0)
        # one mixed distribution, so that expected counts are exact
        sampled_share = uniform_share * is_sampled / is_sampled.sum() + (1 - uniform_share) * weights / weights.sum()
        self._sampled_share = tf.constant(sampled_share, tf.float32)
        # float64: with a million items, the rounding of a float32 sum near 1 is as large as an item's share
        cumulative = np.cumsum(sampled_share)
        self._cumulative = tf.constant(cumulative / cumulative[-1], tf.float64)

    def draw(self, step: tf.Tensor) -> tf.Tensor:
        """Samples items [N] int64, with repetitions; depends only on the seed and `step`, scalar int64."""
        seed = tf.stack([tf.constant(self._seed, tf.int64), step])
        uniform = tf.random.stateless_uniform([self.num_negatives], seed, dtype=tf.float64)
        return tf.searchsorted(self._cumulative, uniform, side="right", out_type=tf.int64)

    def log_expected_count(self, items: tf.Tensor, num_others: tf.Tensor) -> tf.Tensor:
        """[C] float32: log of the expected number of times that each item is a candidate of one batch row.

        Args:
          items: [C] candidates.
          num_others: expected number of in-batch candidates from the other rows of the batch, scalar.
        """
        from_batch = num_others * tf.gather(self._batch_share, items)
        sampled = self.num_negatives * tf.gather(self._sampled_share, items)
        return tf.math.log(from_batch + sampled)
