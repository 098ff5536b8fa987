"""Timeline blocks to shuffled global batches.

The order of the rows is a pure function of (shards, seed, epoch): which files in which order, read how, which rows
shuffled together, cut where. A position is therefore (epoch, step), and a run resumes by skipping to it. Every replica
and worker makes the same global batches and takes its own share of each: the ids of a batch are then known everywhere
without an exchange, and the number of replicas changes nothing.

Shapes: B rows of the global batch, N rows of a window.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from contract.schema import EVENT_KINDS
from contract.shards import Shard, read_blocks, telling_read_errors
from contract.timelines import parse_blocks
from trainer.config import InputConfig

_COLUMNS = ("visitor", "item", "event", "is_target")


class Batch(NamedTuple):
    """A global batch.

    visitor   [B] int64
    item      [B] int64
    event     [B] int64, place in EVENT_KINDS
    is_row    [B] bool; False fills up the last batch of an epoch
    """

    visitor: tf.Tensor
    item: tf.Tensor
    event: tf.Tensor
    is_row: tf.Tensor


def steps_per_epoch(target_rows: int, batch_size: int) -> int:
    """Global batches that hold every row once."""
    return -(-target_rows // batch_size)


def training_batches(
    shards: Sequence[Shard], config: InputConfig, *, seed: int, epochs: int, first_epoch: int = 0, first_step: int = 0
) -> tf.data.Dataset:
    """The `Batch`es of the epochs `first_epoch` … `epochs` - 1, one after the other.

    Each row of the split is in exactly one batch of an epoch; rows that are only context (`is_target` 0) in none.

    Args:
      first_step: batches of the first epoch to leave out.
    """

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.argsort(tf.random.stateless_uniform([len(shards)], key))
        windows = read_blocks(order, shards, open_files=config.open_files).batch(config.window_blocks)
        shuffled = windows.enumerate().map(
            lambda window, blocks: _shuffle(_targets(blocks), tf.random.fold_in(key, window)),
            num_parallel_calls=2,
            deterministic=True,
        )
        skipped = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0)
        return shuffled.rebatch(config.batch_size).skip(skipped)

    # one pipeline for all epochs: making one costs a tenth of a second, and the next epoch is read ahead
    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)
    return batches.map(lambda rows: _pad(rows, config.batch_size)).prefetch(4)


def count_events(shards: Sequence[Shard], config: InputConfig) -> np.ndarray:
    """[event kinds] int64: rows of each kind, context left out."""
    counts = np.zeros(len(EVENT_KINDS), np.int64)
    order = tf.range(len(shards))
    windows = read_blocks(order, shards, open_files=config.open_files).batch(config.window_blocks)
    with telling_read_errors():
        for events in windows.map(lambda serialized: _targets(serialized).event, num_parallel_calls=2):
            counts += np.bincount(events.numpy(), minlength=len(EVENT_KINDS))
    return counts


class _Rows(NamedTuple):
    visitor: tf.Tensor
    item: tf.Tensor
    event: tf.Tensor


def _targets(serialized: tf.Tensor) -> _Rows:
    """The target rows of a window of blocks, columns [N]."""
    columns = parse_blocks(serialized, _COLUMNS)
    is_target = tf.equal(columns["is_target"], 1)
    places = tf.where(is_target)[:, 0]
    return _Rows(*(tf.gather(columns[name], places) for name in _Rows._fields))


def _shuffle(rows: _Rows, key: tf.Tensor) -> _Rows:
    """The rows in an order that depends on the key [2] alone."""
    last = tf.size(rows.visitor) - 1
    # a keyed permutation of the places: no numbers to sort
    order = tf.random.experimental.index_shuffle(tf.range(last + 1), key, tf.maximum(last, 0))
    return _Rows(*(tf.gather(column, order) for column in rows))


def _pad(rows: _Rows, batch_size: int) -> Batch:
    """At most B rows as a batch of exactly B."""
    count = tf.size(rows.visitor)
    padded = [tf.pad(column, [[0, batch_size - count]]) for column in rows]
    is_row = tf.range(batch_size) < count
    return Batch(*(tf.ensure_shape(column, [batch_size]) for column in [*padded, is_row]))
