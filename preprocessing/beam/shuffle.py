"""Regroups the rows of input chunks into partitions, through files.

A GroupByKey of rows would do the same, but some Beam runners keep all rows in memory. Therefore, the rows of each chunk
are written to a file, grouped by partition, and Beam moves only the positions of these groups.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from common import storage
from preprocessing.columns import assign_partitions, decode_columns, encode_columns, split_by_partition

_CONCURRENT_READS = 8  # reads from an object store mostly wait


@dataclass(frozen=True, order=True)
class Piece:
    """The rows of one chunk that belong to one partition. They are the bytes [begin, end) of a file."""

    position: tuple[int, int]
    """Position of the chunk in the input: (index of the file, byte). Pieces are sorted by position."""
    path: str
    """The file."""
    begin: int
    """First byte."""
    end: int
    """One past the last byte."""


def send_rows(
    table: pa.Table, column: str, num_partitions: int, position: tuple[int, int], path: str
) -> Iterator[tuple[int, Piece]]:
    """Writes a chunk's rows to a file and yields (partition, piece). The ids in `column` determine the partitions."""
    if len(table) == 0:
        return
    partitions = assign_partitions(table[column].combine_chunks(), num_partitions)
    encoded = [(partition, encode_columns(rows)) for partition, rows in split_by_partition(table, partitions)]
    storage.write_bytes(path, b"".join(part for _, part in encoded))
    begin = 0
    for partition, part in encoded:
        yield partition, Piece(position, path, begin, begin + len(part))
        begin += len(part)


def receive_rows(pieces: Iterable[Piece]) -> pa.Table:
    """Reads a partition's rows, in the order of the input."""
    with ThreadPoolExecutor(_CONCURRENT_READS) as executor:
        parts = executor.map(lambda piece: storage.read_bytes(piece.path, piece.begin, piece.end), sorted(pieces))
        return pa.concat_tables(decode_columns(part) for part in parts)
