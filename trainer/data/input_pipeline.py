"""Reads timeline blocks into shuffled global batches.

For given settings, the order of the rows depends only on the events, the seed and the epoch. So a resumed run finds
the next row by its epoch and step. `streams` divides the rows of an epoch into streams. A worker reads only the streams
that contain its rows. The global batches are the same for any number of workers.

A block is a record with whole timelines. Blocks are parsed window by window; a window has the rows of T consecutive
steps, and only rows of the same window are shuffled together. The rows of each step are gathered from the parsed
blocks, so a row is copied once.

The rows of a timeline are contiguous in a block, so histories are found by index arithmetic: if a row is at position p
of its timeline, its history is the p rows before it. For models that ignore the order of a history, the history is all
other rows of the timeline: first the rows after this one, then those from the start of the timeline. At most H rows are
used.

Shapes: B rows of a batch, N rows of the parsed blocks, H entries of a history, T steps of a window, n rows that this
worker needs of each global batch.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from contract.schema import ROW_WEIGHT
from contract.shards import block_offsets, read_blocks, read_piece, translate_read_errors
from contract.timelines import TimelineRows, count_rows_by_block, encode_blocks, parse_blocks
from trainer.config.run import InputConfig
from trainer.data.streams import ShardBlocks, Streams
from trainer.data.training_events import TrainingEvents, timeline_lengths

# AutoGraph takes seconds of every start, and nothing here branches on a tensor in Python
_unconverted = tf.autograph.experimental.do_not_convert

_COLUMNS = ("visitor", "item", "event")
_MAX_THREADS = 8
"""Maximum number of windows that are read at the same time."""
_COUNTED_BLOCKS = 256
"""Number of blocks that are counted together."""
_OPEN_FILES = 4
"""Number of shards that are counted at the same time."""
_PADDING_BLOCK = next(encode_blocks(TimelineRows(*[np.zeros(1, np.int64)] * 6), 1))
"""A block with one row that is no training row; batches are padded with this row."""


class Batch(NamedTuple):
    """All rows of a global batch, or some consecutive rows."""

    visitor: tf.Tensor
    """[B] int32 index of each row's visitor."""
    item: tf.Tensor
    """[B] int32 index of each row's item."""
    event: tf.Tensor
    """[B] int32 index of each row's event kind."""
    history: tf.Tensor
    """[B, H] int32 items of the rows in the history: the rows before this one, latest first, or all other rows of the
    timeline; padded with 0."""
    history_event: tf.Tensor
    """[B, H] int32 event kinds of the rows in the history, as indices; padded with 0."""
    history_age_ms: tf.Tensor
    """[B, H] int64 time from each row in the history to this row; 0 for padding."""
    is_history: tf.Tensor
    """[B, H] bool; False where `history` is padding."""
    timestamp_ms: tf.Tensor
    """[B] int64 time of each row; 0 if times are not read."""
    weight: tf.Tensor
    """[B] float32 weight of the row: the weight of its event kind × the weight of the event; 1 if weights are not
    read."""
    is_row: tf.Tensor
    """[B] bool; False for padding, which only the last batch of an epoch has."""

    @classmethod
    def without_history(cls, visitor: tf.Tensor, item: tf.Tensor, event: tf.Tensor, is_row: tf.Tensor) -> "Batch":
        """Builds a batch without histories; all times are 0 and all weights are 1."""
        times, weight = tf.zeros_like(visitor), tf.ones(tf.shape(visitor))
        return cls(visitor, item, event, **_no_history(visitor), timestamp_ms=times, weight=weight, is_row=is_row)

    def rows(self, rows: slice) -> "Batch":
        """Returns a batch that has only the rows in the slice `rows`."""
        return Batch(*(column[rows] for column in self))

    def with_int64(self) -> "Batch":
        """Returns the batch with int64 instead of int32, because TensorFlow keeps int32 tensors in host memory."""
        return Batch(*(tf.cast(column, tf.int64) if column.dtype == tf.int32 else column for column in self))


class Share(NamedTuple):
    """A worker's share of each global batch: consecutive rows, the same number for each worker."""

    worker: int = 0
    """Index of the worker."""
    workers: int = 1
    """Number of workers."""

    def rows(self, batch_size: int) -> range:
        """Returns the indices of the worker's rows in a global batch."""
        size = batch_size // self.workers
        return range(self.worker * size, (self.worker + 1) * size)


WHOLE = Share()
"""The share of a worker that trains alone."""


def steps_per_epoch(target_rows: int, batch_size: int) -> int:
    """Returns the number of batches per epoch, including a last batch that is not full."""
    return -(-target_rows // batch_size)


def training_batches(
    events: TrainingEvents,
    config: InputConfig,
    *,
    seed: int,
    epochs: int,
    history_length: int = 0,
    is_sequential: bool = True,
    has_times: bool = False,
    event_weights: Sequence[float] | None = None,
    first_epoch: int = 0,
    first_step: int = 0,
    share: Share = WHOLE,
    streams: Streams | None = None,
) -> tf.data.Dataset:
    """Returns the batches of the epochs `first_epoch` … `epochs` - 1, in sequence.

    Each training row is in exactly one batch of an epoch. If a stream has too few rows for the last batch, the batch is
    padded.

    Args:
      events: the timelines, and the rule that selects the training rows.
      seed: determines the order of the rows.
      epochs: number of epochs, including those before `first_epoch`.
      history_length: H, the maximum length of a history; if above 0, rows without a history are skipped.
      is_sequential: whether a row's history has only the timeline's earlier rows; False: all its other rows.
      has_times: whether to read the times of the rows; False: `Batch.timestamp_ms` is 0.
      event_weights: a factor for each event kind; it multiplies the weights of rows. None: all rows have the weight 1.
      first_epoch: first epoch to return, from 0.
      first_step: number of batches to skip in `first_epoch`.
      share: the rows of each global batch to return.
      streams: the result of `count_streams`; None: it is computed, which reads all events.
    """
    content = _RowContent(events, history_length, is_sequential, has_times, event_weights)
    streams = streams or count_streams(events, config, history_length, is_sequential)
    own, per_epoch = share.rows(config.batch_size), streams.num_windows
    first_window, skipped = divmod(first_step, streams.window_steps)
    first, end = (first_epoch * per_epoch + first_window, epochs * per_epoch) if per_epoch else (0, 0)
    # the order of an epoch may have a million blocks, and up to two epochs are read at the same time
    order = lru_cache(maxsize=2)(lambda epoch: streams.order(seed, epoch))

    def read(number: np.int64) -> tuple[np.ndarray, np.ndarray]:
        epoch, window = divmod(int(number), per_epoch)
        pieces, rows = streams.plan(order(epoch), window, own)
        blocks = [block for piece in pieces for block in read_piece(piece, events.shards)]
        return np.array([*blocks, _PADDING_BLOCK], object), rows[skipped if number == first else 0 :]

    @_unconverted
    def parse(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        blocks, rows = tf.numpy_function(read, [number], [tf.string, tf.int64])
        return _parse(tf.ensure_shape(blocks, [None]), tf.ensure_shape(rows, [None, len(own)]), content)

    parallel = {"num_parallel_calls": _num_threads(), "deterministic": True}
    windows = tf.data.Dataset.range(first, end).map(parse, **parallel)
    steps = windows.flat_map(_unconverted(_one_by_one))
    batches = steps.map(_unconverted(lambda columns, rows: _gather(columns, rows[0], rows[1], content)), **parallel)
    return batches.prefetch(4)


def count_streams(events: TrainingEvents, config: InputConfig, history_length: int, is_sequential: bool) -> Streams:
    """Divides the rows of an epoch into streams; reads all events, to count the training rows of each block."""
    content = _RowContent(events, history_length, is_sequential)

    @_unconverted
    def count(blocks: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = count_rows_by_block(blocks, content.columns_of_rows, content.is_training_row)
        return rows, tf.cast(tf.strings.length(blocks), tf.int64)

    def read(shard: tf.Tensor) -> tf.data.Dataset:
        blocks = read_blocks(shard[None], events.shards, open_files=1).batch(_COUNTED_BLOCKS)
        return blocks.map(lambda blocks: (shard, *count(blocks)))

    found = [[np.zeros((2, 0), np.int64)] for _ in events.shards]
    shards = tf.data.Dataset.range(len(events.shards))
    with translate_read_errors(events.shards[0].path.rpartition("/")[0]):
        counted = shards.interleave(read, cycle_length=_num_threads(), num_parallel_calls=_num_threads())
        for shard, rows, sizes in counted:
            found[int(shard)].append(np.stack([rows.numpy(), sizes.numpy()]))
            events.on_progress()
    by_shard = [np.concatenate(parts, axis=1) for parts in found]
    blocks = [ShardBlocks(rows, block_offsets(sizes)) for rows, sizes in by_shard]
    return Streams(blocks, config.batch_size, config.streams, config.window_blocks)


class EventTotals(NamedTuple):
    """The number of rows by event kind, and the total weight of all rows, in an epoch of `training_batches`."""

    counts: np.ndarray
    """[event kinds] int64: number of rows of each kind."""
    weight: float
    """Sum of the weights of the rows."""


def total_events(
    events: TrainingEvents,
    config: InputConfig,
    event_weights: Sequence[float],
    history_length: int = 0,
    is_sequential: bool = True,
) -> EventTotals:
    """Counts the rows in an epoch of `training_batches`, and adds up their weights; reads all events."""

    def totals(batch: Batch) -> tf.Tensor:
        counts = tf.math.bincount(batch.event, minlength=len(event_weights), dtype=tf.int64)
        weight = tf.reduce_sum(tf.cast(batch.weight, tf.float64))
        return tf.concat([tf.cast(counts, tf.float64), [weight]], axis=0)

    content = _RowContent(events, history_length, is_sequential, event_weights=event_weights)
    found = sum(_windows(config, content, totals), np.zeros(len(event_weights) + 1))
    return EventTotals(found[:-1].astype(np.int64), float(found[-1]))


def count_rows(
    events: TrainingEvents,
    config: InputConfig,
    label: Callable[[Batch], tf.Tensor],
    num_labels: int,
    history_length: int = 0,
    is_sequential: bool = True,
) -> np.ndarray:
    """[num_labels] int64: how often each label occurs in an epoch of `training_batches`.

    Args:
      label: returns int64 labels from 0 to num_labels - 1, for all or some rows of a batch of any size.
    """
    counts = np.zeros(num_labels, np.int64)
    for labels in _windows(config, _RowContent(events, history_length, is_sequential), label):
        counts += np.bincount(labels, minlength=num_labels)
    return counts


def _num_threads() -> int:
    """Number of reading threads: one per core; at least 2, because they wait for files; at most `_MAX_THREADS`."""
    return min(max(os.cpu_count() or 1, 2), _MAX_THREADS)


def _windows(config: InputConfig, content: "_RowContent", column: Callable[[Batch], tf.Tensor]) -> Iterator[np.ndarray]:
    """Yields, for each shuffling window, the values of `column` for all training rows in the window."""
    shards = content.events.shards
    windows = read_blocks(tf.range(len(shards)), shards, open_files=_OPEN_FILES).batch(config.window_blocks)

    @_unconverted
    def read(blocks: tf.Tensor) -> tf.Tensor:
        columns = _parse_columns(blocks, content)
        indices = tf.where(content.is_training_row(columns))[:, 0]
        return column(_gather(columns, indices, tf.ones_like(indices, tf.bool), content))

    with translate_read_errors(shards[0].path.rpartition("/")[0]):
        for window in windows.map(read, num_parallel_calls=_num_threads()):
            yield window.numpy()
            content.events.on_progress()


class _RowContent(NamedTuple):
    """The arguments of `training_batches` that determine the content of a row."""

    events: TrainingEvents
    history_length: int
    is_sequential: bool
    has_times: bool = False
    event_weights: Sequence[float] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns to parse; to save memory, those of times and weights are included only if needed."""
        columns = {*_COLUMNS, *self.columns_of_rows}
        if self.event_weights is not None:
            columns.add(ROW_WEIGHT)
        if self.history_length or self.has_times:
            columns.add("timestamp_ms")
        return tuple(sorted(columns))

    @property
    def columns_of_rows(self) -> tuple[str, ...]:
        """Names of the columns that `is_training_row` needs."""
        return tuple(sorted({*self.events.columns, *(["position"] if self.history_length else [])}))

    def is_training_row(self, columns: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """[N] bool: whether each row is trained on; if H > 0, only rows with a history."""
        is_kept = self.events.is_training_row(columns)
        return is_kept & (self.num_others(columns) > 0) if self.history_length else is_kept

    def num_others(self, columns: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """[N] int64: length of each row's history before it is limited to H."""
        position = columns["position"]
        return position if self.is_sequential else timeline_lengths(position) - 1


def _parse_columns(serialized: tf.Tensor, content: _RowContent) -> dict[str, tf.Tensor]:
    """Parses blocks; returns their columns by name, each [N]."""
    columns = parse_blocks(serialized, content.columns)
    # half the bytes to copy and to send to the device
    columns |= {name: tf.cast(columns[name], tf.int32) for name in _COLUMNS}
    return columns | ({"num_others": content.num_others(columns)} if content.history_length else {})


def _parse(
    serialized: tf.Tensor, rows: tf.Tensor, content: _RowContent
) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
    """Parses the blocks of a window, and finds the rows of its steps.

    Args:
      serialized: the blocks; the last one is `_PADDING_BLOCK`.
      rows: [T, n] `Window.rows`.
      content: what to read.

    Returns:
      Three results: the columns by name, each [N]; [T, n] indices of rows; [T, n] bool, False for padding.
    """
    columns = _parse_columns(serialized, content)
    is_row = rows >= 0
    indices = tf.concat([tf.where(content.is_training_row(columns))[:, 0], [tf.size(columns["item"], tf.int64) - 1]], 0)
    return columns, tf.gather(indices, tf.where(is_row, rows, tf.size(indices, tf.int64) - 1)), is_row


def _one_by_one(columns: Mapping[str, tf.Tensor], indices: tf.Tensor, is_row: tf.Tensor) -> tf.data.Dataset:
    """Splits the results of `_parse` into steps; each step has the columns of the whole window, without a copy."""
    steps = tf.data.Dataset.from_tensor_slices((indices, is_row))
    return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(columns).repeat(), steps)


def _gather(columns: Mapping[str, tf.Tensor], indices: tf.Tensor, is_row: tf.Tensor, content: _RowContent) -> Batch:
    """Builds a batch from the rows at `indices` [B] and their histories."""
    event = tf.gather(columns["event"], indices)
    return Batch(
        visitor=tf.gather(columns["visitor"], indices),
        item=tf.gather(columns["item"], indices),
        event=event,
        **(_histories(columns, indices, content) if content.history_length else _no_history(event)),
        timestamp_ms=tf.gather(columns["timestamp_ms"], indices) if content.has_times else tf.zeros_like(indices),
        weight=_weights(columns, event, indices, content.event_weights),
        is_row=is_row,
    )


def _weights(
    columns: Mapping[str, tf.Tensor], event: tf.Tensor, indices: tf.Tensor, event_weights: Sequence[float] | None
) -> tf.Tensor:
    """[B] float32: weight of each row at `indices` × weight of its event kind. All are 1 if `event_weights` is None."""
    if event_weights is None:
        return tf.ones(tf.shape(event))
    return tf.gather(tf.constant(event_weights, tf.float32), event) * tf.gather(columns[ROW_WEIGHT], indices)


def _histories(columns: Mapping[str, tf.Tensor], indices: tf.Tensor, content: _RowContent) -> dict[str, tf.Tensor]:
    """Returns history columns [B, H] of the rows at `indices` [B]."""
    distance = tf.range(1, content.history_length + 1, dtype=tf.int64)
    others = tf.gather(columns["num_others"], indices)[:, None]
    is_history = distance <= others
    other = indices[:, None] - distance
    if not content.is_sequential:
        own = tf.gather(columns["position"], indices)[:, None]
        # forward, wrapping from the end of the timeline to its beginning
        other = indices[:, None] - own + (own + distance) % (others + 1)
    other = tf.where(is_history, other, indices[:, None])
    item, event, time = (tf.gather(columns[name], other) for name in ("item", "event", "timestamp_ms"))
    return {
        "history": tf.where(is_history, item, 0),
        "history_event": tf.where(is_history, event, 0),
        "history_age_ms": tf.gather(columns["timestamp_ms"], indices)[:, None] - time,
        "is_history": is_history,
    }


def _no_history(rows: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns empty history columns [N, 0] for `rows` [N]."""
    index, age = tf.zeros([tf.size(rows), 0], tf.int32), tf.zeros([tf.size(rows), 0], tf.int64)
    return {"history": index, "history_event": index, "history_age_ms": age, "is_history": tf.cast(index, tf.bool)}
