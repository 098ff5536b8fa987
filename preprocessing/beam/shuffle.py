"""Regroups the rows of input chunks into partitions, through files.

Beam's GroupByKey would do the same with the rows themselves, but some Beam runners keep all rows in memory. Therefore,
the rows of each chunk are written to a file, grouped by partition. Beam moves only the positions of the groups in the
files.
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
    """A byte range that contains the rows of one partition from one chunk of the input."""

    position: tuple[int, int]
    """Position of the chunk in the input: (index of the input file, position in this file). Pieces are sorted by it."""
    path: str
    """The file."""
    begin: int
    """Offset of the first byte."""
    end: int
    """Offset after the last byte."""


def send_rows(
    table: pa.Table, column: str, num_partitions: int, position: tuple[int, int], path: str
) -> Iterator[tuple[int, Piece]]:
    """Writes the rows of a chunk to the file at `path`, grouped by partition; yields (partition, piece).

    The hash of the id in `column` determines a row's partition. `position` is the chunk's position in the input: (index
    of the file, position in the file).
    """
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
    """Reads the rows of a partition, in the order of the input files."""
    with ThreadPoolExecutor(_CONCURRENT_READS) as executor:
        parts = executor.map(lambda piece: storage.read_bytes(piece.path, piece.begin, piece.end), sorted(pieces))
        return pa.concat_tables(decode_columns(part) for part in parts)
