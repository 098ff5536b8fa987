"""Scores the whole catalogue for a chunk of visitors at a time, and hides items.

Evaluation, export and recommendation rank with these functions, so the served lists equal the evaluated ones.
`models.top_items` finds the best of the scores.

Shapes: B visitors of a chunk, V visitors, I items, H entries of a chunk's longest history.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from trainer.distributed.precision import full_float32
from trainer.distributed.replicas import Replicas
from trainer.models.interface import PolicyScorer, Queries, Scorer
from trainer.ranking.histories import Histories

# Memory for scores [B, I]. On a CPU, larger blocks are slower, because glibc's allocator reuses up to 32 MiB without
# requesting new pages from the kernel (235,061 items, two cores: 1,000 queries/s with 32 MiB, 500 with 256 MiB).
CPU_SCORES_BYTES = 32 << 20
GPU_SCORES_BYTES = 256 << 20
_FLOAT_BYTES = 4
_MAX_CHUNK = 1024
_NOT_FINITE = (
    "scores are not finite: the model has diverged; lower optimizer.learning_rate (with solver=als, raise als.l2) and "
    "train into another --workdir"
)


def visible_scores(
    scorer: Scorer, queries: Queries, is_seen_hidden: tf.Tensor | bool, is_offered: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns [B, I] float32: the score of each item, or -inf if the item must not be recommended.

    Args:
      scorer: the model.
      queries: B queries.
      is_seen_hidden: scalar or [B]: whether to hide the items of the query's history.
      is_offered: [I] bool: whether each item may be recommended; None: all items.

    Raises:
      tf.errors.InvalidArgumentError: a score is NaN or infinite.
    """
    scores = withhold(check_finite(scores_for(scorer, queries)(is_seen_hidden)), is_offered)
    return hide(scores, queries.history, queries.history_length, is_seen_hidden)


def scores_for(scorer: Scorer, queries: Queries) -> Callable[[tf.Tensor | bool], tf.Tensor]:
    """Returns a function of `is_seen_hidden` that computes the scores [B, I] of all items.

    The function hides no items; its argument changes only the scores of a `PolicyScorer`.
    """
    if isinstance(scorer, PolicyScorer):
        return scorer.policy_scores(queries)
    scores = scorer.catalogue_scores(queries)
    return lambda _: scores


def withhold(scores: tf.Tensor, is_offered: tf.Tensor | None) -> tf.Tensor:
    """Returns [B, I]: `scores`, but -inf for items that are not on offer. `is_offered`: [I] bool; None: all items."""
    return scores if is_offered is None else tf.where(is_offered, scores, -np.inf)


def check_finite(scores: tf.Tensor) -> tf.Tensor:
    """Returns the scores [B, I] unchanged.

    Raises:
      tf.errors.InvalidArgumentError: a score is NaN or infinite.
    """
    # a row's sum is finite only if all its scores are, and takes one pass over them
    is_finite = tf.reduce_all(tf.math.is_finite(tf.reduce_sum(scores, axis=1)))
    check = tf.debugging.Assert(is_finite, [_NOT_FINITE])
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(scores)


@contextmanager
def translate_divergence_errors() -> Iterator[None]:
    """Context manager that turns an error from `check_finite` into a clear ValueError."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if _NOT_FINITE in error.message:
            raise ValueError(_NOT_FINITE) from error
        raise


def hide(scores: tf.Tensor, items: tf.Tensor, lengths: tf.Tensor, is_hidden: tf.Tensor | bool = True) -> tf.Tensor:
    """Returns `scores` with -inf for some items of each row.

    Args:
      scores: [B, I].
      items: [B, H] indices of the items to hide; indices outside 0 to I - 1 are ignored.
      lengths: [B] number of items to hide; later columns of `items` are padding.
      is_hidden: scalar or [B]: whether to hide the items.
    """
    is_entry = tf.sequence_mask(lengths, tf.shape(items, tf.int64)[1])  # TensorFlow compares int32 in host memory
    is_known = (items >= 0) & (items < tf.shape(scores, tf.int64)[1])
    entries = tf.where(is_entry & is_known & tf.reshape(is_hidden, [-1, 1]))
    item = tf.gather_nd(items, entries)
    index = tf.stack([entries[:, 0], item], axis=1)
    return tf.tensor_scatter_nd_update(scores, index, tf.fill(tf.shape(item), -np.inf))


def chunk_size(num_items: int, scores_bytes: int | None = None) -> int:
    """Returns how many queries, B, to score at once; from 1 to _MAX_CHUNK.

    The scores [B, I] float32 take at most `scores_bytes`; None: a size that is fast on the device.
    """
    if scores_bytes is None:
        scores_bytes = GPU_SCORES_BYTES if tf.config.list_logical_devices("GPU") else CPU_SCORES_BYTES
    return int(np.clip(scores_bytes // (num_items * _FLOAT_BYTES), 1, _MAX_CHUNK))


def query_chunks(
    visitor: np.ndarray, history: Histories, timestamp_ms: np.ndarray, size: int, replicas: Replicas | None = None
) -> Iterator[tuple[slice, Queries]]:
    """Divides V queries into chunks of `size` queries; the last chunk is padded.

    Yields pairs: a chunk's range among the V queries, and its padded queries. Each worker gets a part of the chunks.
    """
    worker, workers = (replicas.worker, replicas.workers) if replicas else (0, 1)
    for begin in range(worker * size, len(visitor), workers * size):
        end = min(begin + size, len(visitor))
        item, event, event_ms = history.padded(begin, end)
        columns = (visitor[begin:end], item, history.lengths[begin:end], event, event_ms, timestamp_ms[begin:end])
        missing = size - (end - begin)
        filled = (np.pad(column, [(0, missing)] + [(0, 0)] * (column.ndim - 1)) for column in columns)
        with full_float32():  # until the caller has ranked the chunk and requests the next one
            yield slice(begin, end), Queries(*(tf.constant(column) for column in filled))


def query_signature(size: int | None) -> Queries:
    """Returns the `tf.function` signature of `size` queries (None: any number) with histories of any length."""
    one, row = tf.TensorSpec([size], tf.int64), tf.TensorSpec([size, None], tf.int64)
    return Queries(one, row, one, row, row, one)
