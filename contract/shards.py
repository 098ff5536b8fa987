"""Files of timeline blocks as tf.data, wherever they lie.

TensorFlow opens what it can serve. Any other shard is fetched into the bounded cache while those before it are read,
and verified; its local copy is kept until its last block is read.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from common import storage
from contract.timelines import TimelineRows, parse_block

_FETCHED_AHEAD = 2


class Shard(NamedTuple):
    """A file of timeline blocks.

    path     local, or a URI
    sha256   of its bytes, by which a file that must be fetched is verified
    """

    path: str
    sha256: str


def compression_of(path: str) -> str:
    """The TFRecord compression type that a file's name tells."""
    return "GZIP" if path.endswith(".gz") else ""


def read_blocks(order: tf.Tensor, shards: Sequence[Shard], *, open_files: int) -> tf.data.Dataset:
    """Serialized blocks, one from each open file in turn.

    Args:
      order: [S] int32, places in `shards`: which files, one after the other.
    """
    if all(storage.is_served_by_tensorflow(shard.path) for shard in shards):
        opened = tf.data.Dataset.from_tensor_slices(tf.gather(tf.constant([shard.path for shard in shards]), order))
        return _interleave(
            opened, lambda path: tf.data.TFRecordDataset(path, compression_of(shards[0].path)), open_files
        )
    cache = storage.process_cache()

    def acquire(place: np.int32) -> bytes:
        return cache.acquire(*shards[int(place)]).encode()

    def release(place: np.int32) -> bool:
        cache.release(shards[int(place)].sha256)
        return False

    def read(place: tf.Tensor, path: tf.Tensor) -> tf.data.Dataset:
        # its last element is none: being asked for it tells that the file was read to its end
        end = tf.data.Dataset.from_tensors("").filter(lambda _: tf.numpy_function(release, [place], tf.bool))
        return tf.data.TFRecordDataset(path, compression_of(shards[0].path)).concatenate(end)

    places = tf.data.Dataset.from_tensor_slices(order)
    fetched = places.map(
        lambda place: (place, tf.ensure_shape(tf.numpy_function(acquire, [place], tf.string), [])),
        num_parallel_calls=_FETCHED_AHEAD,
        deterministic=True,
    )
    return _interleave(fetched.prefetch(_FETCHED_AHEAD), read, open_files)


def read_timelines(shards: Sequence[Shard]) -> TimelineRows:
    """All rows of the shards, in file and block order; for evaluation and tests, not for training."""
    with translate_read_errors():
        blocks = [
            TimelineRows(**{name: column.numpy() for name, column in block.items()})
            for shard in shards
            for block in read_blocks(tf.constant([0]), [shard], open_files=1).map(parse_block)
        ]
    return TimelineRows.concatenate(blocks)


@contextmanager
def translate_read_errors() -> Iterator[None]:
    """Turns what tf.data makes of a file that cannot be read back into one sentence.

    Raises:
      OSError: a file could not be read, or is damaged.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "IteratorGetNext" not in str(error):  # not of the input
            raise
        # tf.data keeps only the text of an error that Python raised: its class, a colon, and what it said
        told = re.search(r"\b[A-Za-z]+Error: (.*)", error.message) or re.search(r"(.*)", error.message)
        raise OSError(f"the timelines cannot be read: {told[1] if told else error.message}") from error


def _interleave(opened: tf.data.Dataset, read: Callable[..., tf.data.Dataset], open_files: int) -> tf.data.Dataset:
    return opened.interleave(
        read, cycle_length=open_files, block_length=1, num_parallel_calls=min(2, open_files), deterministic=True
    )
