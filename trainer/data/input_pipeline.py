"""Timeline blocks to shuffled global batches.

The order of the rows is a pure function of (shards, seed, epoch): which files in which order, read how, which rows
shuffled together, cut where. A position is therefore (epoch, step), and a run resumes by skipping to it. Every replica
and worker makes the same global batches and takes its own share of each: the ids of a batch are then known everywhere
without an exchange, and the number of replicas changes nothing.

A row's history is index arithmetic on its block: timelines are contiguous, so the H rows before it are its visitor's,
as many as its position in the timeline tells. Models that know no order take the rows around it instead: those after
it, and then those from the timeline's beginning on.

Shapes: B rows of the global batch, N rows of a window, H history.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from contract.schema import EVENT_KINDS
from contract.shards import Shard, read_blocks, translate_read_errors
from contract.timelines import parse_blocks
from trainer.config.run import InputConfig

# nothing here branches on a tensor in Python, and rewriting what may takes seconds of every start
_unconverted = tf.autograph.experimental.do_not_convert

_COLUMNS = ("visitor", "item", "event", "is_target")


class Batch(NamedTuple):
    """A global batch.

    visitor         [B] int64
    item            [B] int64
    event           [B] int64, place in EVENT_KINDS
    history         [B, H] int64: items of the visitor's rows before this one, newest first, or of those around it; 0
                    where there is none
    history_event   [B, H] int64
    history_age_ms  [B, H] int64, from the other row to this one
    is_history      [B, H] bool; False: the timeline has no such row
    timestamp_ms    [B] int64; 0 where nothing reads it
    is_row          [B] bool; False fills up the last batch of an epoch
    """

    visitor: tf.Tensor
    item: tf.Tensor
    event: tf.Tensor
    history: tf.Tensor
    history_event: tf.Tensor
    history_age_ms: tf.Tensor
    is_history: tf.Tensor
    timestamp_ms: tf.Tensor
    is_row: tf.Tensor

    @classmethod
    def without_history(cls, visitor: tf.Tensor, item: tf.Tensor, event: tf.Tensor, is_row: tf.Tensor) -> "Batch":
        """A batch of H = 0, without times."""
        times = tf.zeros_like(visitor)
        return cls(visitor, item, event, **_no_history(visitor), timestamp_ms=times, is_row=is_row)


def steps_per_epoch(target_rows: int, batch_size: int) -> int:
    """Global batches that hold every row once."""
    return -(-target_rows // batch_size)


def training_batches(
    shards: Sequence[Shard],
    config: InputConfig,
    *,
    seed: int,
    epochs: int,
    history_length: int = 0,
    is_sequential: bool = True,
    has_times: bool = False,
    first_epoch: int = 0,
    first_step: int = 0,
) -> tf.data.Dataset:
    """The `Batch`es of the epochs `first_epoch` … `epochs` - 1, one after the other.

    Each row of the split is in exactly one batch of an epoch; rows that are only context (`is_target` 0) in none.

    Args:
      history_length: H. Where it is not 0, rows without any history are left out.
      is_sequential: the history is of rows before a row, not of those around it.
      has_times: rows come with their times.
      first_step: batches of the first epoch to leave out.
    """
    needed = _Needed(history_length, is_sequential, has_times)

    @_unconverted
    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.argsort(tf.random.stateless_uniform([len(shards)], key))
        windows = read_blocks(order, shards, open_files=config.open_files).batch(config.window_blocks)
        shuffled = windows.enumerate().map(
            _unconverted(lambda window, blocks: _read_rows(blocks, needed, tf.random.fold_in(key, window))),
            num_parallel_calls=2,
            deterministic=True,
        )
        skipped = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0)
        return shuffled.rebatch(config.batch_size).skip(skipped)

    # one pipeline for all epochs: making one costs a tenth of a second, and the next epoch is read ahead
    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)
    return batches.map(_unconverted(lambda rows: _pad(rows, config.batch_size))).prefetch(4)


def count_events(
    shards: Sequence[Shard], config: InputConfig, history_length: int = 0, is_sequential: bool = True
) -> np.ndarray:
    """[event kinds] int64: rows of each kind that an epoch of `training_batches` holds."""
    return count_rows(shards, config, lambda batch: batch.event, len(EVENT_KINDS), history_length, is_sequential)


def count_rows(
    shards: Sequence[Shard],
    config: InputConfig,
    label: Callable[[Batch], tf.Tensor],
    num_labels: int,
    history_length: int = 0,
    is_sequential: bool = True,
) -> np.ndarray:
    """[labels] int64: how often an epoch of `training_batches` shows each label.

    Args:
      label: [n] int64 in [0, num_labels): of some rows of a batch, or of all; batches come in any size here.
    """
    counts = np.zeros(num_labels, np.int64)
    order = tf.range(len(shards))
    windows = read_blocks(order, shards, open_files=config.open_files).batch(config.window_blocks)
    needed = _Needed(history_length, is_sequential)

    @_unconverted
    def labels(blocks: tf.Tensor) -> tf.Tensor:
        rows = _read_rows(blocks, needed)
        return label(Batch(**rows._asdict(), is_row=tf.ones_like(rows.visitor, tf.bool)))

    with translate_read_errors():
        for found in windows.map(labels, num_parallel_calls=2):
            counts += np.bincount(found.numpy(), minlength=num_labels)
    return counts


class _Rows(NamedTuple):
    visitor: tf.Tensor
    item: tf.Tensor
    event: tf.Tensor
    history: tf.Tensor
    history_event: tf.Tensor
    history_age_ms: tf.Tensor
    is_history: tf.Tensor
    timestamp_ms: tf.Tensor


class _Needed(NamedTuple):
    """What rows come with, as in `training_batches`."""

    history_length: int
    is_sequential: bool
    has_times: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """To parse: milliseconds are six bytes each, so only where something reads them."""
        if self.history_length:
            return (*_COLUMNS, "position", "timestamp_ms")
        return (*_COLUMNS, "timestamp_ms") if self.has_times else _COLUMNS


def _read_rows(serialized: tf.Tensor, needed: _Needed, key: tf.Tensor | None = None) -> _Rows:
    """The target rows of a window of blocks, columns [N] and [N, H]; without those that have no history where H > 0.

    They come in an order that depends on the key [2] alone, without one in that of the blocks.
    """
    columns = parse_blocks(serialized, needed.columns)
    is_kept = tf.equal(columns["is_target"], 1)
    if needed.history_length:
        position = columns["position"]
        num_others = position if needed.is_sequential else _timeline_lengths(position) - 1
        is_kept &= num_others > 0
    place = tf.where(is_kept)[:, 0]
    if key is not None:
        # the places and not the rows, or every column would be gathered twice
        place = _shuffle(place, key)
    return _Rows(
        **{name: tf.gather(columns[name], place) for name in ("visitor", "item", "event")},
        **(_histories(columns, num_others, place, needed) if needed.history_length else _no_history(place)),
        timestamp_ms=tf.gather(columns["timestamp_ms"], place) if needed.has_times else tf.zeros_like(place),
    )


def _histories(
    columns: Mapping[str, tf.Tensor], num_others: tf.Tensor, place: tf.Tensor, needed: _Needed
) -> dict[str, tf.Tensor]:
    """The history's columns, [N, H], of the rows at `place` [N]."""
    distance = tf.range(1, needed.history_length + 1, dtype=tf.int64)
    others = tf.gather(num_others, place)[:, None]
    is_history = distance <= others
    other = place[:, None] - distance
    if not needed.is_sequential:
        own = tf.gather(columns["position"], place)[:, None]
        # forward, and from the end of the timeline on to its beginning
        other = place[:, None] - own + (own + distance) % (others + 1)
    other = tf.where(is_history, other, place[:, None])
    item, event, time = (tf.gather(columns[name], other) for name in ("item", "event", "timestamp_ms"))
    return {
        "history": tf.where(is_history, item, 0),
        "history_event": tf.where(is_history, event, 0),
        "history_age_ms": tf.gather(columns["timestamp_ms"], place)[:, None] - time,
        "is_history": is_history,
    }


def _no_history(rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """The history's columns, [N, 0], of as many rows."""
    number = tf.zeros([tf.size(rows), 0], tf.int64)
    is_history = tf.zeros([tf.size(rows), 0], tf.bool)
    return {"history": number, "history_event": number, "history_age_ms": number, "is_history": is_history}


def _timeline_lengths(position: tf.Tensor) -> tf.Tensor:
    """[N] int64: the rows of each row's timeline, from the positions [N] of rows of whole timelines."""
    timeline = tf.cumsum(tf.cast(tf.equal(position, 0), tf.int64)) - 1
    return tf.gather(tf.math.bincount(tf.cast(timeline, tf.int32), dtype=tf.int64), timeline)


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
    columns = {}
    for name, column in rows._asdict().items():
        padded = tf.pad(column, [[0, missing]] + [[0, 0]] * (len(column.shape) - 1))
        columns[name] = tf.ensure_shape(padded, [batch_size, *column.shape[1:]])
    return Batch(**columns, is_row=tf.ensure_shape(is_row, [batch_size]))
