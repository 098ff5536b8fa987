"""Reads row groups of Parquet files in parallel. Files in a folder `date=2024-03-01/` also have a column `date`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common import storage
from preprocessing.sources.rejects import Rejects, shorten
from preprocessing.sources.source import Part

_BATCH_ROWS = 1 << 18
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class ParquetSource:
    """Reads a fixed set of columns from Parquet files."""

    columns: tuple[str, ...]
    """The top-level columns to read."""

    def split(self, path: str, ordinal: int, size: int) -> list[Part]:
        """Divides a file into one part per row group.

        Raises:
          ValueError: the file is not a valid Parquet file.
        """
        with open_parquet(path) as file:
            sizes = [file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups)]
        total = max(sum(sizes), 1)
        return [
            Part(self, path, ordinal, group, group + 1, size * group_size // total)
            for group, group_size in enumerate(sizes)
        ]

    def read(self, part: Part) -> Iterator["ParquetBatch"]:
        """Yields the row group of a part in batches of up to 262,144 rows.

        Raises:
          ValueError: the file is damaged.
        """
        with open_parquet(part.path) as file:
            partitions = partition_columns(part.path, file.schema_arrow.names)
            first = sum(file.metadata.row_group(group).num_rows for group in range(part.begin))
            stored = [name for name in self.columns if name not in partitions]
            batches = file.iter_batches(_BATCH_ROWS, row_groups=range(part.begin, part.end or 0), columns=stored)
            try:
                for batch in batches:
                    table = pa.Table.from_batches([batch])
                    for name in self.columns:
                        if name in partitions:
                            table = table.append_column(
                                name, pa.repeat(pa.scalar(partitions[name], pa.string()), len(table))
                            )
                    yield ParquetBatch(part, first, table)
                    first += len(table)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"{part.path} cannot be read after row {first}: {error}; if it is damaged, replace it with an "
                    "intact copy"
                ) from error


@dataclass(frozen=True)
class ParquetBatch:
    """Consecutive rows of a Parquet file."""

    part: Part
    """The part of the file, a row group, that contains the rows."""
    position: int
    """Row number, in the file, of the batch's first row."""
    columns: pa.Table
    """The rows, [N], with the columns to read."""

    @property
    def malformed(self) -> Rejects:
        """Always empty, because a Parquet file is valid or damaged as a whole."""
        return Rejects(self.part.path, [], [], [])

    @property
    def num_blank(self) -> int:
        return 0

    def locate(self, rows: np.ndarray) -> tuple[list[int], list[str]]:
        """Returns, for each row, its number in the file and its text as JSON. `rows`: row indices in `self.columns`."""
        return (rows + self.position).tolist(), describe_rows(self.columns, rows)


def describe_rows(table: pa.Table, rows: np.ndarray) -> list[str]:
    """Returns the rows at the indices `rows` as JSON texts, cut to 200 bytes."""
    values = table.take(pa.array(rows)).to_pylist()
    return [shorten(json.dumps(row, default=str, ensure_ascii=False).encode()) for row in values]


def open_parquet(path: str) -> pq.ParquetFile:
    """Opens a file and reads its metadata.

    Raises:
      ValueError: the file is not a valid Parquet file.
    """
    try:
        return pq.ParquetFile(storage.open_binary(path))
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a valid Parquet file: {error}; replace it with an intact copy") from error


def partition_columns(path: str, stored: Sequence[str]) -> dict[str, str | None]:
    """Returns the columns that a file's folders define, such as `date` for `date=2024-03-01`.

    Omits `stored`, the columns in the file itself. The folder of null values gives the value None.
    """
    folders = (folder.partition("=") for folder in path.split("/")[:-1])
    return {
        name: None if value == _NULL_PARTITION else unquote(value)
        for name, equals, value in folders
        if equals and name.isidentifier() and name not in stored
    }
