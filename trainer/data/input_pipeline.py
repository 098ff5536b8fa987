"""Reads timeline blocks into shuffled global batches.

For given settings, the order of the rows depends only on the events, the seed and the epoch. So (epoch, step) is a
position in this order, and a resumed run skips to its position. Every replica of every worker builds the same global
batches and takes its share of each. So all replicas know the ids of a batch without communication, and the batches are
the same for any number of replicas.

The rows of a timeline are contiguous in a block, so histories are found by index arithmetic: if a row is at position p
of its timeline, its history is the p rows before it. For models that ignore the order of a history, the history is all
other rows of the timeline: first the rows after this one, then those from the start of the timeline. At most H rows are
used.

Shapes: B rows of the global batch, N rows of a window, H entries of a history.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from contract.schema import ROW_WEIGHT
from contract.shards import read_blocks, translate_read_errors
from contract.timelines import parse_blocks
from trainer.config.run import InputConfig
from trainer.data.training_events import TrainingEvents, timeline_lengths

# AutoGraph takes seconds of every start, and nothing here branches on a tensor in Python
_unconverted = tf.autograph.experimental.do_not_convert

_COLUMNS = ("visitor", "item", "event")
_MAX_THREADS = 8
"""Maximum number of windows that are read at the same time; each is in memory with its histories."""


class Batch(NamedTuple):
    """A global batch."""

    visitor: tf.Tensor
    """[B] int64."""
    item: tf.Tensor
    """[B] int64."""
    event: tf.Tensor
    """[B] int64 index of each row's event kind."""
    history: tf.Tensor
    """[B, H] int64 items of the rows in the history: the rows before this one, latest first, or all other rows of the
    timeline; padded with 0."""
    history_event: tf.Tensor
    """[B, H] int64 event kinds of the rows in the history, as indices; padded with 0."""
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


def steps_per_epoch(target_rows: int, batch_size: int) -> int:
    """Returns the number of batches per epoch; a partly filled last batch counts too."""
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
) -> tf.data.Dataset:
    """Returns the batches of the epochs `first_epoch` … `epochs` - 1, in sequence.

    Each training row is in exactly one batch of an epoch.

    Args:
      events: the timelines, and the rule that selects the training rows.
      seed: determines the order of the rows.
      epochs: number of epochs, including those before `first_epoch`.
      history_length: H, the maximum length of a history; if above 0, rows without a history are skipped.
      is_sequential: whether a row's history has only the timeline's earlier rows; False: all its other rows.
      event_weights: a factor for each event kind; it multiplies the weights of rows. None: all rows have the weight 1.
      first_epoch: first epoch to return, from 0.
      first_step: number of batches to skip in `first_epoch`.
    """
    shards, content = events.shards, _RowContent(events, history_length, is_sequential, has_times, event_weights)

    @_unconverted
    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.argsort(tf.random.stateless_uniform([len(shards)], key))
        windows = read_blocks(order, shards, open_files=config.open_files).batch(config.window_blocks)
        shuffled = windows.enumerate().map(
            _unconverted(lambda window, blocks: _read_rows(blocks, content, tf.random.fold_in(key, window))),
            num_parallel_calls=_num_threads(),
            deterministic=True,
        )
        skipped = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0)
        return shuffled.rebatch(config.batch_size).skip(skipped)

    # one pipeline for all epochs: building one takes a tenth of a second, and the next epoch is prefetched
    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)
    return batches.map(_unconverted(lambda rows: _pad(rows, config.batch_size))).prefetch(4)


def count_events(
    events: TrainingEvents,
    config: InputConfig,
    num_kinds: int,
    history_length: int = 0,
    is_sequential: bool = True,
) -> np.ndarray:
    """[num_kinds] int64: number of rows of each event kind in an epoch of `training_batches`."""
    return count_rows(events, config, lambda batch: batch.event, num_kinds, history_length, is_sequential)


def sum_weights(
    events: TrainingEvents,
    config: InputConfig,
    event_weights: Sequence[float],
    history_length: int = 0,
    is_sequential: bool = True,
) -> float:
    """Sums the weights of all rows in an epoch of `training_batches`."""
    content = _RowContent(events, history_length, is_sequential, event_weights=event_weights)
    return sum(
        float(np.sum(weight, dtype=np.float64)) for weight in _windows(config, content, lambda batch: batch.weight)
    )


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
    """Number of threads that read: one per core, at least 2 because threads wait for files, at most `_MAX_THREADS`."""
    return min(max(os.cpu_count() or 1, 2), _MAX_THREADS)


def _windows(config: InputConfig, content: "_RowContent", column: Callable[[Batch], tf.Tensor]) -> Iterator[np.ndarray]:
    """Yields, for each shuffling window, the values of `column` for all training rows in the window."""
    shards = content.events.shards
    windows = read_blocks(tf.range(len(shards)), shards, open_files=config.open_files).batch(config.window_blocks)

    @_unconverted
    def read(blocks: tf.Tensor) -> tf.Tensor:
        rows = _read_rows(blocks, content)
        return column(Batch(**rows._asdict(), is_row=tf.ones_like(rows.visitor, tf.bool)))

    with translate_read_errors(shards[0].path.rpartition("/")[0]):
        for window in windows.map(read, num_parallel_calls=_num_threads()):
            yield window.numpy()
            content.events.on_progress()


class _Rows(NamedTuple):
    visitor: tf.Tensor
    item: tf.Tensor
    event: tf.Tensor
    history: tf.Tensor
    history_event: tf.Tensor
    history_age_ms: tf.Tensor
    is_history: tf.Tensor
    timestamp_ms: tf.Tensor
    weight: tf.Tensor


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
        columns = {*_COLUMNS, *self.events.columns}
        if self.event_weights is not None:
            columns.add(ROW_WEIGHT)
        if self.history_length:
            columns |= {"position", "timestamp_ms"}
        if self.has_times:
            columns.add("timestamp_ms")
        return tuple(sorted(columns))


def _read_rows(serialized: tf.Tensor, content: _RowContent, key: tf.Tensor | None = None) -> _Rows:
    """Parses serialized timeline blocks; returns the columns [N] or [N, H] of the training rows.

    If the history length H is above 0, rows without a history are skipped. `key` [2]: random key to shuffle rows.
    """
    columns = parse_blocks(serialized, content.columns)
    is_kept = content.events.is_training_row(columns)
    if content.history_length:
        position = columns["position"]
        num_others = position if content.is_sequential else timeline_lengths(position) - 1
        is_kept &= num_others > 0
    indices = tf.where(is_kept)[:, 0]
    if key is not None:
        # shuffles indices instead of rows, so that every column is gathered once
        indices = _shuffle(indices, key)
    event = tf.gather(columns["event"], indices)
    return _Rows(
        **{name: tf.gather(columns[name], indices) for name in ("visitor", "item")},
        event=event,
        weight=_weights(columns, event, indices, content.event_weights),
        **(_histories(columns, num_others, indices, content) if content.history_length else _no_history(indices)),
        timestamp_ms=tf.gather(columns["timestamp_ms"], indices) if content.has_times else tf.zeros_like(indices),
    )


def _weights(
    columns: Mapping[str, tf.Tensor], event: tf.Tensor, indices: tf.Tensor, event_weights: Sequence[float] | None
) -> tf.Tensor:
    """[N] float32: weight of each row at `indices` [N] × `event_weights` of its kind; 1 if `event_weights` is None."""
    if event_weights is None:
        return tf.ones(tf.shape(event))
    return tf.gather(tf.constant(event_weights, tf.float32), event) * tf.gather(columns[ROW_WEIGHT], indices)


def _histories(
    columns: Mapping[str, tf.Tensor], num_others: tf.Tensor, indices: tf.Tensor, content: _RowContent
) -> dict[str, tf.Tensor]:
    """Returns history columns [N, H] of the rows at `indices`. `num_others`: length of each row's full history."""
    distance = tf.range(1, content.history_length + 1, dtype=tf.int64)
    others = tf.gather(num_others, indices)[:, None]
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
    number = tf.zeros([tf.size(rows), 0], tf.int64)
    is_history = tf.zeros([tf.size(rows), 0], tf.bool)
    return {"history": number, "history_event": number, "history_age_ms": number, "is_history": is_history}


def _shuffle(values: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Shuffles values [N]; the order depends on the key [2] only."""
    size = tf.size(values)
    last = tf.maximum(size - 1, 0)
    # a keyed permutation avoids sorting random numbers; it refuses empty inputs, so it gets at least one index
    order = tf.random.experimental.index_shuffle(tf.range(last + 1), key, last)
    return tf.gather(values, order[:size])


def _pad(rows: _Rows, batch_size: int) -> Batch:
    """Builds a batch of `batch_size` rows from at most as many rows, followed by padding."""
    count = tf.size(rows.visitor)
    is_row = tf.range(batch_size) < count
    missing = batch_size - count
    columns = {}
    for name, column in rows._asdict().items():
        padded = tf.pad(column, [[0, missing]] + [[0, 0]] * (len(column.shape) - 1))
        columns[name] = tf.ensure_shape(padded, [batch_size, *column.shape[1:]])
    return Batch(**columns, is_row=tf.ensure_shape(is_row, [batch_size]))
