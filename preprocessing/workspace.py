"""The files that one Beam pipeline leaves for the next, below a dataset that is not published yet."""

import pickle
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from common import storage
from common.storage.paths import join
from preprocessing.columns import decode_columns, encode_columns


@dataclass(frozen=True)
class Workspace:
    """Names and reads intermediate files; `partition` numbers are those of the hashed visitors, or of the items."""

    root: str

    @property
    def sent(self) -> str:
        """The rows between the chunks of the input and the partitions; of no use once a pipeline has received them."""
        return join(self.root, "sent")

    def chunk(self, what: str, place: tuple[int, int]) -> str:
        """The rows of one chunk (input file, byte) of events or item properties."""
        return join(self.sent, f"{what}-{place[0]:05d}-{place[1]:012d}.arrow")

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

    def result(self, name: str) -> str:
        """What a pipeline hands to the program that started it."""
        return join(self.root, f"result-{name}.pickle")

    def items(self, partition: int) -> str:
        """All items of a partition with their training counts, those of the vocabulary first."""
        return join(self.root, f"items-{partition:05d}.arrow")

    @property
    def item_vocabulary(self) -> str:
        """Its ids, in its order."""
        return join(self.root, "item-vocabulary.arrow")


def write_table(path: str, table: pa.Table) -> None:
    """Writes an Arrow IPC stream."""
    storage.write_bytes(path, encode_columns(table))


def read_table(path: str) -> pa.Table:
    """The table that `write_table` wrote."""
    return decode_columns(storage.read_bytes(path))


def write_result(path: str, result: Any) -> None:
    """Keeps any picklable value; the file lives only as long as the job that wrote it."""
    storage.write_bytes(path, pickle.dumps(result))


def read_result(path: str) -> Any:
    """The value of `write_result`."""
    return pickle.loads(storage.read_bytes(path))
