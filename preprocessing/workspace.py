"""Intermediate files that one Beam pipeline leaves for the next, below the dataset that is being built."""

import pickle
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from common import storage
from common.storage.paths import join
from preprocessing.columns import decode_columns, encode_columns


@dataclass(frozen=True)
class Workspace:
    """Names of the intermediate files; partition numbers are hashes of visitors in some files, of items in others."""

    root: str
    """Directory of all intermediate files."""

    @property
    def chunks(self) -> str:
        """Directory of the input's rows before they are grouped by partition; removed afterwards."""
        return join(self.root, "chunks")

    def chunk(self, name: str, position: tuple[int, int]) -> str:
        """The rows of one chunk of an input, by its position (input file, byte)."""
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
        """All items of a partition with their training counts, the items of the vocabulary first."""
        return join(self.root, f"items-{partition:05d}.arrow")

    @property
    def item_vocabulary(self) -> str:
        """The ids of the item vocabulary, in its order."""
        return join(self.root, "item-vocabulary.arrow")

    def result(self, name: str) -> str:
        """A value that a pipeline returns to the program that started it."""
        return join(self.root, f"result-{name}.pickle")


def write_table(path: str, table: pa.Table) -> None:
    """Writes a table as an Arrow IPC stream."""
    storage.write_bytes(path, encode_columns(table))


def read_table(path: str) -> pa.Table:
    """Reads a table written by `write_table`."""
    return decode_columns(storage.read_bytes(path))


def write_result(path: str, result: Any) -> None:
    """Pickles a value; the file lives only as long as the job that wrote it."""
    storage.write_bytes(path, pickle.dumps(result))


def read_result(path: str) -> Any:
    """Reads a value written by `write_result`."""
    return pickle.loads(storage.read_bytes(path))
