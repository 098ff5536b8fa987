"""Arrow columns: to bytes and back, and hashed into partitions."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


def encode_columns(table: pa.Table) -> bytes:
    """Arrow IPC stream of a table: what travels between Beam stages, for bytes have the cheapest coder.

    Compressed, for an in-process runner holds all that travels in memory. Text columns travel as text: a dictionary
    would be written whole for every slice that refers to it.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_LZ4) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def decode_columns(encoded: bytes) -> pa.Table:
    """The table of `encode_columns`."""
    return pa.ipc.open_stream(encoded).read_all()


def hash_ids(ids: pa.Array) -> np.ndarray:
    """[N] uint64 hashes of [N] strings: the same on every machine and in every run."""
    return pd.util.hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)


def partition_of(ids: pa.Array, num_partitions: int) -> np.ndarray:
    """[N] int64 partitions of [N] strings; each distinct string is hashed once."""
    encoded = ids.dictionary_encode()
    partitions = (hash_ids(encoded.dictionary) % np.uint64(num_partitions)).astype(np.int64)
    return partitions[encoded.indices.to_numpy()]


def split_by_partition(table: pa.Table, partitions: np.ndarray) -> list[tuple[int, pa.Table]]:
    """The rows of each partition that has any, each in their order in `table`."""
    order = np.argsort(partitions, kind="stable")
    found, starts = np.unique(partitions[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    grouped = table.take(pa.array(order))
    # an IPC stream writes only the rows of a slice, not what it was cut from
    return [(int(p), grouped.slice(b, e - b)) for p, b, e in zip(found, starts, ends, strict=True)]


def last_of_each(keys: list[np.ndarray]) -> np.ndarray:
    """Places, ascending, of the last row of each distinct combination of integer key columns, each [N]."""
    order = np.lexsort(keys[::-1])  # stable: equal keys stay in row order
    is_last = np.ones(len(order), bool)
    if len(order) > 1:
        changes = [key[order][1:] != key[order][:-1] for key in keys]
        is_last[:-1] = np.logical_or.reduce(changes)
    return np.sort(order[is_last])


def codes(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Integer codes [N] of a string column and the distinct strings that they point to."""
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary


def by_count(table: pa.Table, column: str = "count") -> pa.Table:
    """Rows by count descending, then id ascending: the order of a vocabulary."""
    return table.take(pc.sort_indices(table, sort_keys=[(column, "descending"), ("id", "ascending")]))
