"""Losses, as pure functions of scores.

A loss returns one value per row. The caller multiplies it by the row's weight, sums over the rows of its replica and
divides by the total weight of the global batch. So the gradients of all replicas add up to the gradient of the batch.

Shapes: B rows, C candidates.
"""

from collections.abc import Callable, Mapping

import tensorflow as tf

_NEVER = -1e9


def squared_error(prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """[B] float32: squared differences of predictions [B] and targets [B]."""
    return tf.square(tf.cast(prediction, tf.float32) - target)


def sampled_softmax(
    positive: tf.Tensor,
    candidates: tf.Tensor,
    log_expected_count: tf.Tensor,
    is_excluded: tf.Tensor,
    own: tf.Tensor | None = None,
) -> tf.Tensor:
    """[B] float32: −log of the estimated softmax probability of the positive among all items.

    The logQ correction (Bengio and Senécal, 2003) subtracts log(expected count) from the scores of candidates.

    Args:
      positive: [B] scores of the positives.
      candidates: [B, C] scores of the candidates.
      log_expected_count: [C] or [B, C]: log of how often each candidate is expected in a sample.
      is_excluded: [B, C] bool: must be True for candidates equal to the positive, and for padding.
      own: [B] `log_sum` of the scores of each row's own candidates, which need no correction; None: there are none.
    """
    positive = tf.cast(positive, tf.float32)
    corrected = tf.cast(candidates, tf.float32) - log_expected_count
    others = log_sum(corrected, is_excluded)
    if own is not None:  # joining the scores of all candidates would copy them
        others = tf.reduce_logsumexp(tf.stack([others, own]), axis=0)
    # softplus(others - positive) = log(exp(positive) + exp(others)) - positive
    return tf.nn.softplus(others - positive)


def log_sum(scores: tf.Tensor, is_excluded: tf.Tensor) -> tf.Tensor:
    """[B] float32: log of the summed exponentials of scores [B, C]; `is_excluded`: [B, C] bool, scores to skip."""
    # without keepdims, TensorFlow may compute a shape in host memory
    return tf.reduce_logsumexp(tf.where(is_excluded, _NEVER, scores), axis=1, keepdims=True)[:, 0]


WEIGHT_LOSSES: Mapping[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {"squared_error": squared_error}
"""Losses between predicted and true event weights, both [B], by `loss.kind`."""

SAMPLED_LOSSES: Mapping[str, Callable[..., tf.Tensor]] = {
    "sampled_softmax": sampled_softmax,
}
"""Losses that rank a positive above candidates, by `loss.kind`; they have the arguments of `sampled_softmax`."""
