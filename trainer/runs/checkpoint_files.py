"""The files that a worker writes for a checkpoint.

The training thread reads their contents from the variables through a stream of `open_stream`; meanwhile, another thread
writes the stream with `write_files`.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from common import storage
from common.storage.paths import join, shard_name
from trainer.distributed.embeddings import RowShards
from trainer.runs.checkpoint import DENSE, TrainState
from trainer.runs.file_stream import Chunk, FileStream

_MIN_WAITING_BYTES = 16 << 20
"""Bytes that may always wait to be written. If the rows of a process take less, training does not wait for them."""
_WAITING_SHARE = 0.05
"""Share of a process's rows that may wait to be written, if it is more than `_MIN_WAITING_BYTES`."""


def open_stream(state: TrainState, *, has_dense: bool) -> FileStream:
    """Returns a stream of the table rows of this process and, with `has_dense`, of the dense weights."""
    shards = [shard for array in state.arrays().values() for shard in array.shards.values()]
    own_bytes = sum(4 * shard.shape.num_elements() for shard in shards)
    return FileStream(_read_chunks(state, has_dense), max(_MIN_WAITING_BYTES, int(_WAITING_SHARE * own_bytes)))


def write_files(staging: str, stream: FileStream, checksums: str, before_each: Callable[[], None]) -> dict[str, str]:
    """Writes the files of a stream, then a JSON file with their checksums. Cancels the stream after an error.

    Args:
      staging: directory or URI to write the files to.
      stream: contents of the files.
      checksums: path or URI of the file with the checksums.
      before_each: called before each file; its errors stop the writing.

    Returns:
      The SHA-256 of each file, by name.

    Raises:
      OSError: a file cannot be written, or the stream was cancelled.
    """
    try:
        if storage.is_local(staging):
            written = _write_locally(storage.local_path(staging), stream, before_each)
        else:
            written = _write_to_store(staging, stream, before_each)
        before_each()
        storage.write_bytes(checksums, json.dumps(written, allow_nan=False).encode())
    except BaseException:
        stream.cancel()  # otherwise the training thread would wait forever for the writer
        raise
    return written


def _read_chunks(state: TrainState, has_dense: bool) -> Iterator[Chunk]:
    for name, shards in state.arrays().items():
        for replica in shards.shards:
            file = shard_name(name, replica, shards.replicas, ".npy")
            yield file, memoryview(_npy_header(shards, replica))
            for rows in shards.chunks(replica):
                yield file, np.ascontiguousarray(rows).data
    if has_dense:
        yield DENSE, memoryview(_encode_dense(state))


def _npy_header(shards: RowShards, replica: int) -> bytes:
    header = io.BytesIO()
    shape = tuple(shards.shards[replica].shape)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _encode_dense(state: TrainState) -> bytes:
    """Returns the content of dense.npz: the dense weights and their optimizer variables."""
    arrays: dict[str, Any] = {}
    for prefix, variables in (("weight", state.dense), ("optimizer", state.optimizer)):
        arrays |= {f"{prefix}_{number}": np.asarray(variable) for number, variable in enumerate(variables)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _write_to_store(staging: str, stream: FileStream, before_each: Callable[[], None]) -> dict[str, str]:
    folder = storage.make_scratch("checkpoint")
    try:
        names = list(_write_locally(folder, stream, before_each))
        stream.raise_if_cancelled()
        return storage.upload_all(folder, names, staging, before_each)
    finally:
        shutil.rmtree(folder)


def _write_locally(folder: str, stream: FileStream, before_each: Callable[[], None]) -> dict[str, str]:
    os.makedirs(folder, exist_ok=True)
    written = {}
    for name, chunks in groupby(stream, itemgetter(0)):
        before_each()
        written[name] = _write_file(join(folder, name), (content for _, content in chunks))
    return written


def _write_file(path: str, contents: Iterable[memoryview]) -> str:
    """Writes a file and returns its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for content in contents:
            file.write(content)
            digest.update(content)
    return digest.hexdigest()
