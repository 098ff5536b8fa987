"""Finds the exact best items of the whole catalogue for models that can score a piece (a range of items) at a time.

The scores of a piece fit in the cache, so more visitors can share one read of the item vectors. This is faster than
scoring the whole catalogue at once (docs/evaluation.md), and the memory does not grow with the catalogue.

Shapes: B visitors of a chunk, I items, P items of a piece, K items of a list.
"""

import numpy as np
import tensorflow as tf

from trainer.models.interface import PieceScorer, Queries, Scorer
from trainer.models.top_items import TopItems, best_blocks, top_k
from trainer.ranking.topk import (
    check_finite,
    chunk_size,
    hide,
    visible_scores,
    withhold,
)

CPU_SHAPE = (1024, 4096)
GPU_SHAPE = (1024, 65536)
"""Numbers of visitors and items that are scored at once. On a CPU, the scores take 16 MiB, to fit in its cache. On a
GPU, they take 256 MiB; this size was not tuned by measurements."""


def visitors_at_once(scorer: Scorer, num_items: int) -> int:
    """Returns the number of visitors to rank for in one call of `best_items`."""
    return _shape()[0] if isinstance(scorer, PieceScorer) else chunk_size(num_items)


def best_items(
    scorer: Scorer,
    queries: Queries,
    k: int,
    num_items: int,
    *,
    is_seen_hidden: bool = True,
    is_offered: tf.Tensor | None = None,
) -> TopItems:
    """Finds the K best items of the catalogue for each query; ties go to the lower index.

    Args:
      scorer: the model.
      queries: B queries.
      k: K, at most I.
      num_items: the number of items, I.
      is_seen_hidden: whether to exclude the items of each query's history.
      is_offered: [I] bool: whether each item may be recommended; None: all items.

    Raises:
      tf.errors.InvalidArgumentError: a score is NaN or infinite; see `topk.translate_divergence_errors`.
    """
    piece = _shape()[1]
    if not isinstance(scorer, PieceScorer) or num_items <= piece:
        return top_k(visible_scores(scorer, queries, is_seen_hidden, is_offered), k)
    score = scorer.piece_scores(queries)

    def merge(best: TopItems, begin: tf.Tensor | int, size: int) -> TopItems:
        of_piece = None if is_offered is None else is_offered[begin : begin + size]
        scores = withhold(check_finite(score(begin, size)), of_piece)
        if is_seen_hidden:
            scores = hide(scores, queries.history - tf.cast(begin, tf.int64), queries.history_length)
        return _merge(best, scores, tf.cast(begin, tf.int64))

    num_queries = tf.shape(queries.visitor)[0]
    best = TopItems(tf.zeros([num_queries, k], tf.int64), tf.fill([num_queries, k], -np.inf))
    in_pieces = num_items - num_items % piece
    best = tf.while_loop(
        lambda begin, _: begin < in_pieces,
        lambda begin, best: (begin + piece, merge(best, begin, piece)),
        (0, best),
        parallel_iterations=1,
    )[1]
    return merge(best, in_pieces, num_items - in_pieces) if in_pieces < num_items else best


def _merge(best: TopItems, scores: tf.Tensor, begin: tf.Tensor) -> TopItems:
    """Updates the K best items with the next piece; an item of the piece loses ties with earlier items.

    Args:
      best: the K best items of the earlier pieces.
      scores: [B, P] scores of the piece.
      begin: index of the first item of the piece.
    """
    k = best.score.shape[1]
    item, score = best_blocks(scores, k, above=best.score[:, -1:])
    values, index = tf.math.top_k(tf.concat([best.score, score], axis=1), k)
    return TopItems(tf.gather(tf.concat([best.item, item + begin], axis=1), index, batch_dims=1), values)


def _shape() -> tuple[int, int]:
    return GPU_SHAPE if tf.config.list_logical_devices("GPU") else CPU_SHAPE
