"""Training objectives, as pure functions of scores.

Shapes: B rows, C candidates. Each gives one number a row; the caller weighs, sums over its rows and divides by the
weight of the global batch, so that the replicas' gradients add up to that of the whole batch.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

_NEVER = -1e9


def squared_error(prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """[B] float32 for predictions and targets [B]."""
    return tf.square(tf.cast(prediction, tf.float32) - target)


def sampled_softmax(
    positive: tf.Tensor, candidates: tf.Tensor, log_expected_count: tf.Tensor, is_excluded: tf.Tensor
) -> tf.Tensor:
    """[B] float32: -log of the estimated softmax probability of the item chosen.

    The item chosen competes with certainty and is not corrected. A candidate stands for 1 / expected count items like
    it, so that the candidates' sum estimates that over all other items without bias: its score is lowered by the log of
    its expected count (Bengio and Senécal, 2003). A candidate that is the item chosen, an accidental hit, is
    excluded.

    Args:
      positive: [B] score of the item chosen.
      candidates: [B, C] scores.
      log_expected_count: [C], or [B, C] where it differs by row: log of how often a draw of all candidates is expected
        to hold each.
      is_excluded: [B, C] True for accidental hits and for candidates that are none, such as padding.
    """
    positive = tf.cast(positive, tf.float32)
    corrected = tf.cast(candidates, tf.float32) - log_expected_count
    others = tf.reduce_logsumexp(tf.where(is_excluded, _NEVER, corrected), axis=1)
    # softplus(others - positive) = log(exp(positive) + exp(others)) - positive
    return tf.nn.softplus(others - positive)


WEIGHT_LOSSES: Mapping[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {"squared_error": squared_error}
"""By `loss.kind`, those of a predicted and a true event weight, both [B]."""

SAMPLED_LOSSES: Mapping[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "sampled_softmax": sampled_softmax,
}
"""By `loss.kind`, those of an item chosen against candidates, with the arguments of `sampled_softmax`."""
