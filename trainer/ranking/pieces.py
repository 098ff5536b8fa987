"""The best items of the whole catalogue, exactly, where a model can score it a piece at a time.

The scores of a piece stay in the cache, and more visitors share one reading of the items' vectors: faster than whole
rows (docs/evaluation.md), in memory that does not grow with the catalogue.

Shapes: B visitors of a chunk, I items, P items of a piece, K list.
"""

import numpy as np
import tensorflow as tf

from trainer.models.interface import PieceScorer, Queries, Scorer
from trainer.ranking.topk import TopItems, best_blocks, chunk_size, hide, refuse_not_finite, top_k, visible_scores

CPU_SHAPE = (1024, 4096)
GPU_SHAPE = (1024, 65536)
"""Visitors and items whose scores are held at once: 16 MiB for a CPU's cache, 256 MiB on a GPU (not measured there)."""


def visitors_at_once(scorer: Scorer, num_items: int) -> int:
    """B for which `best_items` is fast, and its scores fit in memory."""
    return _shape()[0] if isinstance(scorer, PieceScorer) else chunk_size(num_items)


def best_items(scorer: Scorer, queries: Queries, k: int, num_items: int, *, is_seen_hidden: bool = True) -> TopItems:
    """The K best of the catalogue for each query; among equals the lower index, which is the more frequent item.

    Args:
      k: at most I.
      is_seen_hidden: items of the history are not among them.

    Raises:
      tf.errors.InvalidArgumentError: a score is NaN or infinite; see `topk.refusing_diverged`.
    """
    piece = _shape()[1]
    if not isinstance(scorer, PieceScorer) or num_items <= piece:
        return top_k(visible_scores(scorer, queries, is_seen_hidden), k)
    score = scorer.piece_scores(queries)

    def merge(best: TopItems, begin: tf.Tensor | int, size: int) -> TopItems:
        scores = refuse_not_finite(score(begin, size))
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
    """The K best of what was found before and of the scores [B, P] of the items from `begin` on.

    An item of the piece comes in only if it scores higher than the K-th so far: among equals the earlier one stays. So
    only blocks whose maximum is higher are looked into, and they are the fewer the more pieces there were.
    """
    k = best.score.shape[1]
    item, score = best_blocks(scores, k, above=best.score[:, -1:])
    values, place = tf.math.top_k(tf.concat([best.score, score], axis=1), k)
    return TopItems(tf.gather(tf.concat([best.item, item + begin], axis=1), place, batch_dims=1), values)


def _shape() -> tuple[int, int]:
    return GPU_SHAPE if tf.config.list_logical_devices("GPU") else CPU_SHAPE
