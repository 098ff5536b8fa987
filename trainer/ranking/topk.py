"""The best items of the whole catalogue, exactly, a chunk of visitors at a time.

Evaluation, export and recommendation all rank through these functions, so that what is served is what was measured.

Shapes: B visitors of a chunk, V visitors, I items, K list, H history.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainer.distributed.replicas import Replicas
from trainer.models.interface import Queries, Scorer
from trainer.ranking.histories import Histories

# Scores [B, I] held at once. On a CPU, larger blocks are slower: 32 MiB is what glibc's allocator reuses without asking
# the kernel for fresh pages (235,061 items, two cores: 1,000 queries/s with 32 MiB, 500 with 256 MiB).
CPU_SCORES_BYTES = 32 << 20
GPU_SCORES_BYTES = 256 << 20
_FLOAT_BYTES = 4
_BLOCK_ITEMS = 64
_MAX_CHUNK = 1024
_NOT_FINITE = "scores are not finite: the model has diverged; train it anew with a smaller learning rate"


class TopItems(NamedTuple):
    """The best items, best first.

    item    [B, K] int64
    score   [B, K] float32; -inf: fewer than K items are visible, and what stands here means nothing
    """

    item: tf.Tensor
    score: tf.Tensor


def visible_scores(scorer: Scorer, queries: Queries, is_seen_hidden: tf.Tensor | bool) -> tf.Tensor:
    """[B, I] float32: the scorer's scores, -inf where the item is in the history and `is_seen_hidden` is true.

    Raises:
      tf.errors.InvalidArgumentError: a score is NaN or infinite.
    """
    scores = refuse_not_finite(scorer.catalogue_scores(queries))
    return hide(scores, queries.history, queries.history_length, is_seen_hidden)


def refuse_not_finite(scores: tf.Tensor) -> tf.Tensor:
    """The scores [B, I] themselves.

    Raises:
      tf.errors.InvalidArgumentError: one is NaN or infinite.
    """
    # one sum a row tells as much as a test of each score, and reads them once
    is_finite = tf.reduce_all(tf.math.is_finite(tf.reduce_sum(scores, axis=1)))
    check = tf.debugging.Assert(is_finite, [_NOT_FINITE])
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(scores)


@contextmanager
def refusing_diverged() -> Iterator[None]:
    """Turns what `visible_scores` raises in a compiled function into a ValueError without the graph's own talk."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if _NOT_FINITE in error.message:
            raise ValueError(_NOT_FINITE) from error
        raise


def hide(scores: tf.Tensor, items: tf.Tensor, lengths: tf.Tensor, is_hidden: tf.Tensor | bool = True) -> tf.Tensor:
    """[B, I] float32: the scores, -inf at the first `lengths` [B] of the items [B, H] where `is_hidden` is true."""
    is_entry = tf.sequence_mask(lengths, tf.shape(items)[1])
    is_known = (items >= 0) & (items < tf.shape(scores, tf.int64)[1])
    place = tf.where(is_entry & is_known & is_hidden)
    item = tf.gather_nd(items, place)
    return tf.tensor_scatter_nd_update(scores, tf.stack([place[:, 0], item], axis=1), tf.fill(tf.shape(item), -np.inf))


def top_k(scores: tf.Tensor, k: tf.Tensor | int) -> TopItems:
    """The K best of each row of scores [B, I]; among equals the lower index, which is the more frequent item."""

    def at_once() -> TopItems:
        values, indices = tf.math.top_k(scores, k)
        return TopItems(tf.cast(indices, tf.int64), values)

    def by_blocks() -> TopItems:
        return _top_k_by_blocks(scores, k)

    least = 4 * _BLOCK_ITEMS * k  # in a shorter row, the blocks that are left are most of it
    num_items = scores.shape[1]
    if num_items is not None and isinstance(k, int):
        return by_blocks() if num_items >= least else at_once()
    best: TopItems = tf.cond(tf.shape(scores)[1] >= least, by_blocks, at_once)
    return best


def _top_k_by_blocks(scores: tf.Tensor, k: tf.Tensor | int) -> TopItems:
    """The same, faster where I is large: see `best_blocks`."""
    item, score = best_blocks(scores, k)
    values, place = tf.math.top_k(score, k)
    return TopItems(tf.gather(item, place, batch_dims=1), values)


def best_blocks(scores: tf.Tensor, k: tf.Tensor | int, above: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """[B, C] int64 items of which the K best of each row of scores [B, I] are some, ascending, and their scores.

    A block's maximum tells in one pass whether it can hold one of them. Exact, equals included: before an item of a
    block that is not among the K blocks of the largest maxima come the largest items of these K, each of a higher
    score, or of an equal one and a lower index.

    Args:
      above: [B, 1]: only what scores higher is asked for.
    """
    num_rows, num_items = tf.shape(scores)[0], tf.shape(scores)[1]
    end = num_items - num_items % _BLOCK_ITEMS  # what is left behind the last block is looked at as it is
    blocks = tf.reshape(scores[:, :end], [num_rows, -1, _BLOCK_ITEMS])
    maxima = tf.reduce_max(blocks, axis=2)
    count = tf.minimum(k, tf.shape(maxima)[1])
    if above is not None:
        count = tf.minimum(count, tf.reduce_max(tf.math.count_nonzero(maxima > above, axis=1, dtype=tf.int32)))
    # in their order in the catalogue, so that among equals the lower index still comes first
    best = tf.sort(tf.math.top_k(maxima, count).indices, axis=1)
    of_best = tf.reshape(best[:, :, None] * _BLOCK_ITEMS + tf.range(_BLOCK_ITEMS), [num_rows, -1])
    behind = tf.tile(tf.range(end, num_items)[None], [num_rows, 1])
    score = tf.reshape(tf.gather(blocks, best, batch_dims=1), [num_rows, -1])
    item = tf.cast(tf.concat([of_best, behind], axis=1), tf.int64)
    return item, tf.concat([score, scores[:, end:]], axis=1)


def chunk_size(num_items: int, scores_bytes: int | None = None) -> int:
    """Visitors to rank at once, so that their scores [B, I] fit in `scores_bytes`; at least 1.

    By default the memory is what suits the device that computes.
    """
    if scores_bytes is None:
        scores_bytes = GPU_SCORES_BYTES if tf.config.list_logical_devices("GPU") else CPU_SCORES_BYTES
    return int(np.clip(scores_bytes // (num_items * _FLOAT_BYTES), 1, _MAX_CHUNK))


def query_chunks(
    visitor: np.ndarray, history: Histories, timestamp_ms: np.ndarray, size: int, replicas: Replicas | None = None
) -> Iterator[tuple[slice, Queries]]:
    """The visitors [V], their histories and moments [V] in chunks of `size`: where each chunk lies, and its queries.

    The last chunk is filled up with unused queries, so that a compiled function sees one shape.

    Args:
      replicas: where several workers rank together, each gets every so many-th chunk; the chunks are those of one.
    """
    worker, workers = (replicas.worker, replicas.workers) if replicas else (0, 1)
    for begin in range(worker * size, len(visitor), workers * size):
        end = min(begin + size, len(visitor))
        item, event, event_ms = history.padded(begin, end)
        columns = (visitor[begin:end], item, history.lengths[begin:end], event, event_ms, timestamp_ms[begin:end])
        missing = size - (end - begin)
        filled = (np.pad(column, [(0, missing)] + [(0, 0)] * (column.ndim - 1)) for column in columns)
        yield slice(begin, end), Queries(*(tf.constant(column) for column in filled))


def query_signature(size: int | None) -> Queries:
    """The `tf.function` input signature of chunks of `size`, None: of any; only H changes from chunk to chunk."""
    one, row = tf.TensorSpec([size], tf.int64), tf.TensorSpec([size, None], tf.int64)
    return Queries(one, row, one, row, row, one)
