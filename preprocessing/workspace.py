"""Intermediate files, through which one Beam pipeline passes data to the next. They are in the unfinished dataset."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from common import storage
from common.storage.paths import join
from preprocessing.columns import decode_columns, encode_columns
from preprocessing.records import decode_record, encode_record


@dataclass(frozen=True)
class Workspace:
    """Paths of the intermediate files. A partition is a group of visitors or of items."""

    root: str
    """Directory of all intermediate files."""

    @property
    def chunks(self) -> str:
        """Path of the directory for input rows that are not yet grouped by partition."""
        return join(self.root, "chunks")

    def chunk(self, name: str, position: tuple[int, int]) -> str:
        """Path of the file for one chunk of rows of the input `name`.

        `position`: (index of the file in the input, byte offset or row number of the chunk in the file).
        """
        return join(self.chunks, f"{name}-{position[0]:05d}-{position[1]:012d}.arrow")

    def timelines(self, partition: int) -> str:
        return join(self.root, f"timelines-{partition:05d}.arrow")

    def visitor_counts(self, partition: int) -> str:
        return join(self.root, f"visitor-counts-{partition:05d}.arrow")

    def visitor_indices(self, partition: int) -> str:
        return join(self.root, f"visitor-indices-{partition:05d}.arrow")

    def properties(self, partition: int) -> str:
        return join(self.root, f"properties-{partition:05d}.arrow")

    def catalogue(self, partition: int) -> str:
        return join(self.root, f"catalogue-{partition:05d}.arrow")

    def items(self, partition: int) -> str:
        """Path of the file for a partition's items and their event counts. Vocabulary items come first."""
        return join(self.root, f"items-{partition:05d}.arrow")

    @property
    def item_vocabulary(self) -> str:
        """Path of the file for the ids of the item vocabulary, in index order."""
        return join(self.root, "item-vocabulary.arrow")

    def result(self, name: str) -> str:
        """Path of the file for the result `name` of a pipeline."""
        return join(self.root, f"result-{name}")


def write_table(path: str, table: pa.Table) -> None:
    """Writes a table as an Arrow IPC stream."""
    storage.write_bytes(path, encode_columns(table))


def read_table(path: str) -> pa.Table:
    """Reads a table that `write_table` wrote."""
    return decode_columns(storage.read_bytes(path))


def write_result(path: str, result: Any, kind: Any) -> None:
    """Writes a value of type `kind`, which is bytes or a type that can be encoded as JSON."""
    storage.write_bytes(path, result if kind is bytes else encode_record(result, kind))


def read_result(path: str, kind: Any) -> Any:
    """Reads a value that `write_result` wrote, and checks its type.

    The file is not trusted: other programs may write to the bucket.

    Raises:
      ValueError: the file does not contain a value of type `kind`.
    """
    content = storage.read_bytes(path)
    if kind is bytes:
        return content
    try:
        return decode_record(content, kind)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}), or another program has written to it; check who can write there, then run "
            "the same command again"
        ) from error
