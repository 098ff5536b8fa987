"""Encodes timeline rows as blocks (serialized tf.train.Examples) and parses blocks. `contract.shards` reads the files.

A timeline is the events of one visitor, one row per event, contiguous and ordered by time. Blocks have whole timelines.

Shapes: N rows, V timelines.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import tensorflow as tf

from contract.schema import ROW_WEIGHT, TIMELINE_FEATURES, UNKNOWN_VISITOR_ID

_COLUMNS = (*TIMELINE_FEATURES, ROW_WEIGHT)
_TYPES = {name: tf.float32 if name == ROW_WEIGHT else tf.int64 for name in _COLUMNS}
_BLOCK_FEATURES = {name: tf.io.FixedLenSequenceFeature([], _TYPES[name], allow_missing=True) for name in _COLUMNS}
_ID_FEATURE = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)


@dataclass(frozen=True)
class TimelineRows:
    """N rows of timelines, as columns [N]. `weight` is float32, and every other column is int64.

    `schema.TIMELINE_FEATURES` explains the columns.
    """

    visitor: np.ndarray
    position: np.ndarray
    item: np.ndarray
    event: np.ndarray
    timestamp_ms: np.ndarray
    is_target: np.ndarray
    weight: np.ndarray = None  # type: ignore[assignment]  # replaced in __post_init__
    """Weights of the rows, [N] float32. All are 1 by default. See `schema.ROW_WEIGHT`."""

    def __post_init__(self) -> None:
        if self.weight is None:
            object.__setattr__(self, ROW_WEIGHT, np.ones(len(self.visitor), np.float32))
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns must have the same length, got {lengths}")

    def __len__(self) -> int:
        return len(self.visitor)

    def __getitem__(self, rows: slice | np.ndarray) -> "TimelineRows":
        """Selects rows by a slice, a mask [N] or an array of indices."""
        return TimelineRows(*(getattr(self, name)[rows] for name in _COLUMNS))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Concatenates parts in order. The result has no rows if there are no parts."""
        return cls(
            *(
                np.concatenate([getattr(part, name) for part in parts] or [np.empty(0, _TYPES[name].as_numpy_dtype)])
                for name in _COLUMNS
            )
        )


def timeline_starts(position: np.ndarray) -> np.ndarray:
    """Returns the row at which each of V timelines starts: [V] int64. `position` is the column [N]."""
    return np.flatnonzero(position == 0)


def encode_blocks(rows: TimelineRows, block_rows: int, unknown_ids: Sequence[str] | None = None) -> Iterator[bytes]:
    """Serializes timelines as blocks (tf.train.Examples) of about `block_rows` rows; never splits a timeline.

    In `rows`, timelines are contiguous and ordered by time. `unknown_ids` has a visitor id per timeline, "" for a
    visitor of the vocabulary; None: all visitors are known. Raises ValueError if `block_rows` is less than 1.
    """
    if block_rows < 1:
        raise ValueError(f"block_rows must be at least 1, got {block_rows}")
    ends = np.append(timeline_starts(rows.position)[1:], len(rows))
    begin, first = 0, 0
    while begin < len(rows):
        last = min(int(np.searchsorted(ends, begin + block_rows)), len(ends) - 1)
        end = int(ends[last])
        ids = [] if unknown_ids is None else list(filter(None, unknown_ids[first : last + 1]))
        yield _example(rows[begin:end], ids).SerializeToString(deterministic=True)
        begin, first = end, last + 1


def parse_block(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Parses a serialized block into columns [N]: `weight` is float32, the others int64."""
    return tf.io.parse_single_example(serialized, _BLOCK_FEATURES)


def parse_unknown_ids(serialized: tf.Tensor) -> tf.Tensor:
    """Parses the ids of unknown visitors from a serialized block: strings [n], one per timeline of an unknown visitor.

    See `schema.UNKNOWN_VISITOR_ID`.
    """
    return tf.io.parse_single_example(serialized, {UNKNOWN_VISITOR_ID: _ID_FEATURE})[UNKNOWN_VISITOR_ID]


def parse_blocks(serialized: tf.Tensor, names: Sequence[str] = TIMELINE_FEATURES) -> dict[str, tf.Tensor]:
    """Parses the columns `names` of serialized blocks, concatenated over the blocks.

    Each column is [N] int64, or [N] float32 for `weight`.
    """
    features = {name: tf.io.RaggedFeature(_TYPES[name]) for name in names}
    return {name: column.flat_values for name, column in tf.io.parse_example(serialized, features).items()}


def count_rows_by_block(
    serialized: tf.Tensor, names: Sequence[str], is_counted: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]
) -> tf.Tensor:
    """Counts the rows of each block that `is_counted` selects: [blocks] int64. `names`: the columns to pass to it."""
    features = {name: tf.io.RaggedFeature(_TYPES[name]) for name in names}
    columns = tf.io.parse_example(serialized, features)
    counted = is_counted({name: column.flat_values for name, column in columns.items()})
    before = tf.concat([[0], tf.cumsum(tf.cast(counted, tf.int64))], axis=0)
    at_bounds = tf.gather(before, columns[names[0]].row_splits)
    return at_bounds[1:] - at_bounds[:-1]


def _example(rows: TimelineRows, unknown_ids: Sequence[str]) -> tf.train.Example:
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=getattr(rows, name))) for name in TIMELINE_FEATURES
    }
    features[ROW_WEIGHT] = tf.train.Feature(float_list=tf.train.FloatList(value=rows.weight))
    if unknown_ids:
        ids = [visitor_id.encode() for visitor_id in unknown_ids]
        features[UNKNOWN_VISITOR_ID] = tf.train.Feature(bytes_list=tf.train.BytesList(value=ids))
    return tf.train.Example(features=tf.train.Features(feature=features))
