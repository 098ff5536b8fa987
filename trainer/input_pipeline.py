"""Timeline blocks to shuffled global batches.

The order of the rows is a pure function of (shards, seed, epoch): which files in which order, read how, which rows
shuffled together, cut where. A position is therefore (epoch, step), and a run resumes by skipping to it. Every replica
and worker makes the same global batches and takes its own share of each: the ids of a batch are then known everywhere
without an exchange, and the number of replicas changes nothing.

A row's history is index arithmetic on its block: timelines are contiguous, so the H rows before it are its visitor's,
as many as its position in the timeline tells.

Shapes: B rows of the global batch, N rows of a window, H history.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from contract.schema import EVENT_KINDS
from contract.timelines import compression_of, parse_blocks
from trainer.config import InputConfig

_COLUMNS = ("visitor", "item", "event", "is_target")
_HISTORY_COLUMNS = ("position", "timestamp_ms")  # parsed only where there is a history: milliseconds are six bytes each


class Batch(NamedTuple):
    """A global batch.

    visitor         [B] int64
    item            [B] int64
    event           [B] int64, place in EVENT_KINDS
    history         [B, H] int64: items of the visitor's rows before this one, newest first; 0 where there is none
    history_event   [B, H] int64
    history_age_ms  [B, H] int64, from the earlier row to this one
    is_history      [B, H] bool; False: the timeline does not go back that far
    is_row          [B] bool; False fills up the last batch of an epoch
    """

    visitor: tf.Tensor
    item: tf.Tensor
    event: tf.Tensor
    history: tf.Tensor
    history_event: tf.Tensor
    history_age_ms: tf.Tensor
    is_history: tf.Tensor
    is_row: tf.Tensor

    @classmethod
    def without_history(cls, visitor: tf.Tensor, item: tf.Tensor, event: tf.Tensor, is_row: tf.Tensor) -> "Batch":
        """A batch of H = 0."""
        history, history_event, age, is_history = _no_history(visitor)
        return cls(visitor, item, event, history, history_event, age, is_history, is_row)


def steps_per_epoch(target_rows: int, batch_size: int) -> int:
    """Global batches that hold every row once."""
    return -(-target_rows // batch_size)


def training_batches(
    shards: Sequence[str],
    config: InputConfig,
    *,
    seed: int,
    epochs: int,
    history_length: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
) -> tf.data.Dataset:
    """The `Batch`es of the epochs `first_epoch` … `epochs` - 1, one after the other.

    Each row of the split is in exactly one batch of an epoch; rows that are only context (`is_target` 0) in none.

    Args:
      history_length: H. Where it is not 0, rows that begin a timeline are left out.
      first_step: batches of the first epoch to leave out.
    """

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.argsort(tf.random.stateless_uniform([len(shards)], key))
        windows = _read_blocks(tf.gather(tf.constant(shards), order), shards, config).batch(config.window_blocks)
        shuffled = windows.enumerate().map(
            lambda window, blocks: _read_rows(blocks, history_length, tf.random.fold_in(key, window)),
            num_parallel_calls=2,
            deterministic=True,
        )
        skipped = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0)
        return shuffled.rebatch(config.batch_size).skip(skipped)

    # one pipeline for all epochs: making one costs a tenth of a second, and the next epoch is read ahead
    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)
    return batches.map(lambda rows: _pad(rows, config.batch_size)).prefetch(4)


def count_events(shards: Sequence[str], config: InputConfig, history_length: int = 0) -> np.ndarray:
    """[event kinds] int64: rows of each kind that an epoch of `training_batches` holds."""
    counts = np.zeros(len(EVENT_KINDS), np.int64)
    windows = _read_blocks(tf.constant(shards), shards, config).batch(config.window_blocks)
    for events in windows.map(lambda blocks: _read_rows(blocks, history_length).event, num_parallel_calls=2):
        counts += np.bincount(events.numpy(), minlength=len(EVENT_KINDS))
    return counts


def _read_blocks(ordered: tf.Tensor, shards: Sequence[str], config: InputConfig) -> tf.data.Dataset:
    """Serialized blocks of the shards `ordered` [S], some files at a time."""
    return tf.data.Dataset.from_tensor_slices(ordered).interleave(
        lambda path: tf.data.TFRecordDataset(path, compression_of(shards[0])),
        cycle_length=config.open_files,
        block_length=1,
        num_parallel_calls=2,
        deterministic=True,
    )


class _Rows(NamedTuple):
    visitor: tf.Tensor
    item: tf.Tensor
    event: tf.Tensor
    history: tf.Tensor
    history_event: tf.Tensor
    history_age_ms: tf.Tensor
    is_history: tf.Tensor


def _read_rows(serialized: tf.Tensor, history_length: int, key: tf.Tensor | None = None) -> _Rows:
    """The target rows of a window of blocks, columns [N] and [N, H]; without the first of a timeline where H > 0.

    They come in an order that depends on the key [2] alone, without one in that of the blocks.
    """
    columns = parse_blocks(serialized, _COLUMNS + (_HISTORY_COLUMNS if history_length else ()))
    is_kept = tf.equal(columns["is_target"], 1)
    if history_length:
        is_kept &= columns["position"] > 0
    place = tf.where(is_kept)[:, 0]
    if key is not None:
        # the places and not the rows, or every column would be gathered twice
        place = _shuffle(place, key)
    return _Rows(
        *(tf.gather(columns[name], place) for name in ("visitor", "item", "event")),
        *(_histories(columns, place, history_length) if history_length else _no_history(place)),
    )


def _histories(columns: Mapping[str, tf.Tensor], place: tf.Tensor, history_length: int) -> list[tf.Tensor]:
    """Items, events, ages and whether there is an entry, each [N, H], of the rows at `place` [N]."""
    distance = tf.range(1, history_length + 1, dtype=tf.int64)
    is_history = distance <= tf.gather(columns["position"], place)[:, None]
    earlier = tf.where(is_history, place[:, None] - distance, place[:, None])
    item, event, time = (tf.gather(columns[name], earlier) for name in ("item", "event", "timestamp_ms"))
    age = tf.gather(columns["timestamp_ms"], place)[:, None] - time
    return [tf.where(is_history, item, 0), tf.where(is_history, event, 0), age, is_history]


def _no_history(rows: tf.Tensor) -> list[tf.Tensor]:
    """The history's columns, [N, 0], of as many rows."""
    return [tf.zeros([tf.size(rows), 0], kind) for kind in (tf.int64, tf.int64, tf.int64, tf.bool)]


def _shuffle(places: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """[N] in an order that depends on the key [2] alone."""
    last = tf.size(places) - 1
    # a keyed permutation of the places: no numbers to sort
    return tf.gather(places, tf.random.experimental.index_shuffle(tf.range(last + 1), key, tf.maximum(last, 0)))


def _pad(rows: _Rows, batch_size: int) -> Batch:
    """At most B rows as a batch of exactly B."""
    count = tf.size(rows.visitor)
    is_row = tf.range(batch_size) < count
    missing = batch_size - count
    padded = [tf.pad(column, [[0, missing]] + [[0, 0]] * (len(column.shape) - 1)) for column in rows]
    return Batch(*(tf.ensure_shape(column, [batch_size, *column.shape[1:]]) for column in [*padded, is_row]))
