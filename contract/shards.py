"""Timeline shards as a tf.data.Dataset, local or in an object store.

TensorFlow reads shards directly if it supports their URI scheme. All other shards are prefetched into the bounded cache
and verified by checksum. A local copy is kept until its last block is read.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.lib.io.tf_record import tf_record_random_reader  # no public name

from common import storage
from contract.timelines import TimelineRows, parse_block, parse_unknown_ids

_FETCHED_AHEAD = 2
_FRAME_BYTES = 16
"""A TFRecord has a length of 8 bytes and two checksums of 4 bytes."""


class Shard(NamedTuple):
    """A file of timeline blocks."""

    path: str
    """Local path or URI."""
    sha256: str
    """Expected SHA-256, checked if the file is fetched from a store."""


class Piece(NamedTuple):
    """Consecutive blocks of a shard."""

    shard: int
    """Index of the shard."""
    first: int
    """Number of blocks before the piece."""
    offset: int
    """Position of the piece's first block, in bytes from the start of the uncompressed shard."""
    num_blocks: int
    """Number of blocks."""


def compression_of(path: str) -> str:
    """Returns the TFRecord compression type that the file name shows: `GZIP`, or '' for none."""
    return "GZIP" if path.endswith(".gz") else ""


def read_blocks(order: tf.Tensor, shards: Sequence[Shard], *, open_files: int) -> tf.data.Dataset:
    """Reads serialized blocks from several open files in turn.

    Args:
      order: [S] int32, indices into `shards`, in the order of opening the files.
      shards: the files. Either all or none of them are compressed.
      open_files: number of files that are open at the same time.

    Returns:
      Dataset of blocks, each a scalar string.
    """
    if all(storage.is_served_by_tensorflow(shard.path) for shard in shards):
        opened = tf.data.Dataset.from_tensor_slices(tf.gather(tf.constant([shard.path for shard in shards]), order))
        return _interleave(
            opened, lambda path: tf.data.TFRecordDataset(path, compression_of(shards[0].path)), open_files
        )
    cache = storage.process_cache()

    def acquire(index: np.int32) -> bytes:
        return cache.acquire(*shards[int(index)]).encode()

    def release(index: np.int32) -> bool:
        cache.release(shards[int(index)].sha256)
        return False

    def read(index: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
        # this empty end releases the local copy once every block before it was read
        end = tf.data.Dataset.from_tensors("").filter(lambda _: tf.numpy_function(release, [index], tf.bool))
        return tf.data.TFRecordDataset(path, compression_of(shards[0].path)).concatenate(end)

    indices = tf.data.Dataset.from_tensor_slices(order)
    fetched = indices.map(
        lambda index: (index, tf.ensure_shape(tf.numpy_function(acquire, [index], tf.string), [])),
        num_parallel_calls=_FETCHED_AHEAD,
        deterministic=True,
    )
    return _interleave(fetched.prefetch(_FETCHED_AHEAD), read, open_files)


def block_offsets(sizes: np.ndarray) -> np.ndarray:
    """[blocks] int64: the position of each block in its shard, from the sizes of the serialized blocks in bytes."""
    return np.cumsum(sizes + _FRAME_BYTES) - sizes - _FRAME_BYTES


def read_piece(piece: Piece, shards: Sequence[Shard]) -> list[bytes]:
    """Reads consecutive blocks of a shard. If the shard is compressed, all blocks before them are decompressed."""
    shard = shards[piece.shard]
    is_served = storage.is_served_by_tensorflow(shard.path)
    with nullcontext(shard.path) if is_served else storage.local_copy(*shard) as path:
        if compression := compression_of(shard.path):
            blocks = tf.data.TFRecordDataset(path, compression).skip(piece.first).take(piece.num_blocks)
            return list(blocks.as_numpy_iterator())
        reader, offset, found = tf_record_random_reader(path), piece.offset, []
        for _ in range(piece.num_blocks):
            block, offset = reader.read(offset)
            found.append(block)
        reader.close()
        return found


def read_timelines(shards: Sequence[Shard]) -> TimelineRows:
    """Reads all rows of the shards into memory, in order. The train split may not fit."""
    return TimelineRows.concatenate([read_identified_timelines(shard)[0] for shard in shards])


def read_identified_timelines(shard: Shard) -> tuple[TimelineRows, list[str]]:
    """Reads all rows of a shard, and the ids of unknown visitors in the order of their timelines.

    See `schema.UNKNOWN_VISITOR_ID`.
    """
    with translate_read_errors(shard.path):
        blocks = read_blocks(tf.constant([0]), [shard], open_files=1)
        parsed = list(blocks.map(lambda block: (parse_block(block), parse_unknown_ids(block))))
    rows = [TimelineRows(**{name: column.numpy() for name, column in columns.items()}) for columns, _ in parsed]
    return TimelineRows.concatenate(rows), [visitor_id.decode() for _, ids in parsed for visitor_id in ids.numpy()]


@contextmanager
def translate_read_errors(path: str) -> Iterator[None]:
    """Translates errors of tf.data about unreadable files into a short OSError.

    `path`: the file, folder or dataset to name in the message.

    Raises OSError if a file could not be read, or is damaged.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "IteratorGetNext" not in str(error):  # not an error of the input
            raise
        # tf.data keeps only the text of a Python error: class, colon, message
        message = re.search(r"\b[A-Za-z]+Error: (.*)", error.message) or re.search(r"(.*)", error.message)
        found = message[1] if message else error.message
        raise OSError(
            f"the events of {path} cannot be read: {found}; if a file is missing or damaged, prepare the dataset again"
        ) from error


def _interleave(opened: tf.data.Dataset, read: Callable[..., tf.data.Dataset], open_files: int) -> tf.data.Dataset:
    return opened.interleave(
        read, cycle_length=open_files, block_length=1, num_parallel_calls=min(2, open_files), deterministic=True
    )
