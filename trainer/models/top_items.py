"""Finds the exact best items of rows of scores.

Shapes: B rows, I items, K items of a list.
"""

from typing import NamedTuple

import tensorflow as tf

_BLOCK_ITEMS = 64


class TopItems(NamedTuple):
    """The K best items of each query, best first."""

    item: tf.Tensor
    """[B, K] int64 item indices."""
    score: tf.Tensor
    """[B, K] float32 scores. If a query has fewer than K visible items, its last scores are -inf, and the items in
    these columns have no meaning."""


def top_k(scores: tf.Tensor, k: tf.Tensor | int) -> TopItems:
    """Returns the K best items of each row of scores [B, I]; ties go to the lower index."""

    def at_once() -> TopItems:
        values, indices = tf.math.top_k(scores, k)
        return TopItems(tf.cast(indices, tf.int64), values)

    def by_blocks() -> TopItems:
        return _top_k_by_blocks(scores, k)

    least = 4 * _BLOCK_ITEMS * k  # in a shorter row, the K best blocks would be most of the row
    num_items = scores.shape[1]
    if num_items is not None and isinstance(k, int):
        return by_blocks() if num_items >= least else at_once()
    best: TopItems = tf.cond(tf.shape(scores)[1] >= least, by_blocks, at_once)
    return best


def _top_k_by_blocks(scores: tf.Tensor, k: tf.Tensor | int) -> TopItems:
    """Like `top_k`, but sorts only the items that `best_blocks` returns."""
    item, score = best_blocks(scores, k)
    values, index = tf.math.top_k(score, k)
    return TopItems(tf.gather(item, index, batch_dims=1), values)


def best_blocks(scores: tf.Tensor, k: tf.Tensor | int, above: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """Selects a few items per row, among them the K best.

    It selects the K blocks of consecutive items with the highest maxima, and the items after the last whole block.

    Args:
      scores: [B, I].
      k: the length of a list, K.
      above: [B, 1] limit of each row: items with lower or equal scores may be missing. None: no limit.

    Returns:
      The indices [B, C] of the C selected items, ascending in each row, and their scores [B, C].
    """
    num_rows, num_items = tf.shape(scores)[0], tf.shape(scores)[1]
    end = num_items - num_items % _BLOCK_ITEMS  # the items after the last whole block are always included
    blocks = tf.reshape(scores[:, :end], [num_rows, -1, _BLOCK_ITEMS])
    maxima = tf.reduce_max(blocks, axis=2)
    count = tf.minimum(k, tf.shape(maxima)[1])
    if above is not None:
        count = tf.minimum(count, tf.reduce_max(tf.math.count_nonzero(maxima > above, axis=1, dtype=tf.int32)))
    # in catalogue order, so that the lower index still wins ties
    best = tf.sort(tf.cast(tf.math.top_k(maxima, count).indices, tf.int64), axis=1)  # int32 would be in host memory
    of_best = tf.reshape(best[:, :, None] * _BLOCK_ITEMS + tf.range(_BLOCK_ITEMS, dtype=tf.int64), [num_rows, -1])
    rest = tf.tile(tf.range(tf.cast(end, tf.int64), tf.shape(scores, tf.int64)[1])[None], [num_rows, 1])
    score = tf.reshape(tf.gather(blocks, best, batch_dims=1), [num_rows, -1])
    item = tf.concat([of_best, rest], axis=1)
    return item, tf.concat([score, scores[:, end:]], axis=1)


def add_items(top: TopItems, item: tf.Tensor, score: tf.Tensor) -> TopItems:
    """Merges other items into the K best items of each row, and returns the K best of all; ties go to the lower index.

    Args:
      top: K items per row.
      item: [B, S] int64 indices of the other items; all indices must be below 2^31.
      score: [B, S] float32 scores of the other items.
    """
    items, scores = tf.concat([top.item, item], axis=1), tf.concat([top.score, score], axis=1)
    # -0.0 equals 0.0, but its bits differ
    bits = tf.cast(tf.bitcast(tf.where(scores == 0, 0.0, scores), tf.int32), tf.int64)
    # read as whole numbers, the bits of floats have the order of the floats if those of negative floats are inverted
    order = tf.where(bits >= 0, bits, tf.bitwise.bitwise_xor(bits, tf.int32.max))
    # the items in the lower half break ties, which top_k would break by position
    best = tf.math.top_k(order * 2**32 + (tf.int32.max - items), tf.shape(top.item)[1]).indices
    return TopItems(tf.gather(items, best, batch_dims=1), tf.gather(scores, best, batch_dims=1))
