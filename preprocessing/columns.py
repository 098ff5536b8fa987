"""Encodes Arrow tables, assigns rows to partitions by hash, and sorts rows."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

EncodedTable = bytes
"""An Arrow IPC stream from `encode_columns`, or b"" if there are no rows."""

_LZ4 = pa.ipc.IpcWriteOptions(compression="lz4")


def encode_columns(table: pa.Table) -> EncodedTable:
    """Encodes a table as a compressed Arrow IPC stream, which Beam moves fast.

    Text columns are not dictionary-encoded, because each slice of a table would carry the whole dictionary.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_LZ4) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def decode_columns(encoded: EncodedTable) -> pa.Table:
    """Decodes a table from `encode_columns`."""
    return pa.ipc.open_stream(encoded).read_all()


def hash_ids(ids: pa.Array) -> np.ndarray:
    """Returns a hash of each string, [N] uint64, equal on all machines."""
    return pd.util.hash_array(ids.to_numpy(zero_copy_only=False), categorize=False)


def assign_partitions(ids: pa.Array, num_partitions: int) -> np.ndarray:
    """Assigns each id to a partition by its hash. Returns the indices of the partitions, int64 [N]."""
    encoded = ids.dictionary_encode()
    partitions = (hash_ids(encoded.dictionary) % np.uint64(num_partitions)).astype(np.int64)
    return partitions[encoded.indices.to_numpy()]


def split_by_partition(table: pa.Table, partitions: np.ndarray) -> list[tuple[int, pa.Table]]:
    """Groups rows by partition and returns (partition, rows), without empty partitions.

    `partitions` [N] is the partition of each row. Rows keep their order.
    """
    order = np.argsort(partitions, kind="stable")
    found, starts = np.unique(partitions[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    grouped = table.take(pa.array(order))
    # an IPC stream contains only the rows of a slice, not the table behind it
    return [(int(p), grouped.slice(b, e - b)) for p, b, e in zip(found, starts, ends, strict=True)]


def find_last_rows(keys: list[np.ndarray]) -> np.ndarray:
    """Returns the index of the last row of each distinct key. The indices are ascending.

    The key of a row consists of its values in all columns `keys`, each [N].
    """
    order = np.lexsort(keys[::-1])  # stable: equal keys stay in row order
    is_last = np.ones(len(order), bool)
    if len(order) > 1:
        changes = [key[order][1:] != key[order][:-1] for key in keys]
        is_last[:-1] = np.logical_or.reduce(changes)
    return np.sort(order[is_last])


def encode_strings(column: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Encodes strings as indices in the distinct strings. Returns the indices, [N], and the distinct strings."""
    chunk = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    encoded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary


def sort_by_count(table: pa.Table, column: str = "count") -> pa.Table:
    """Sorts rows by descending count, then by ascending id, as in vocabularies."""
    return table.take(pc.sort_indices(table, sort_keys=[(column, "descending"), ("id", "ascending")]))
