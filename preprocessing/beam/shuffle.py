"""Rows on their way from the chunks of the input to the partitions: through files.

A GroupByKey could carry them, but runners differ in what of it they hold in memory, up to all. So a chunk's rows are
written to one file, those of each partition together, and through Beam travels only where they lie.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from common import storage
from preprocessing.columns import decode_columns, encode_columns, partition_of, split_by_partition

_READS_AT_ONCE = 8  # where the files lie in an object store, most of a read is waiting


@dataclass(frozen=True, order=True)
class Piece:
    """The bytes [begin, end) of a file: what one chunk has for one partition.

    place    (input file, byte) of the chunk, which orders pieces as the input orders rows
    """

    place: tuple[int, int]
    path: str
    begin: int
    end: int


def send_rows(
    table: pa.Table, column: str, num_partitions: int, place: tuple[int, int], path: str
) -> Iterator[tuple[int, Piece]]:
    """Writes a chunk's rows to a file by the partition of an id column; gives each partition's piece of it."""
    if len(table) == 0:
        return
    partitions = partition_of(table[column].combine_chunks(), num_partitions)
    encoded = [(partition, encode_columns(rows)) for partition, rows in split_by_partition(table, partitions)]
    storage.write_bytes(path, b"".join(part for _, part in encoded))
    begin = 0
    for partition, part in encoded:
        yield partition, Piece(place, path, begin, begin + len(part))
        begin += len(part)


def receive_rows(pieces: Iterable[Piece]) -> pa.Table:
    """A partition's rows, in the order of the input."""
    with ThreadPoolExecutor(_READS_AT_ONCE) as executor:
        parts = executor.map(lambda piece: storage.read_bytes(piece.path, piece.begin, piece.end), sorted(pieces))
        return pa.concat_tables(decode_columns(part) for part in parts)
