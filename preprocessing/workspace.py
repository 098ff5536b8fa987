"""Intermediate files, through which one Beam pipeline passes data to the next. They are in the unfinished dataset."""

import enum
import io
import pickle
from dataclasses import dataclass, is_dataclass
from typing import Any

import pyarrow as pa

from common import storage
from common.storage.paths import join
from preprocessing.columns import decode_columns, encode_columns

_OWN_PACKAGES = ("contract.", "preprocessing.")
_OTHER_NAMES = {
    ("builtins", "frozenset"),
    ("builtins", "set"),
    ("collections", "Counter"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}
"""Types and functions that results may contain, in addition to records from `_OWN_PACKAGES`."""


@dataclass(frozen=True)
class Workspace:
    """Names of the intermediate files. Some files are partitioned by visitor, others by item."""

    root: str
    """Directory of all intermediate files."""

    @property
    def chunks(self) -> str:
        """Directory of the input rows until they are grouped by partition."""
        return join(self.root, "chunks")

    def chunk(self, name: str, position: tuple[int, int]) -> str:
        """File with the rows of one chunk of an input. The position of the chunk is (index of the input file, byte)."""
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
        """File with all items of a partition and their training counts. The items of the vocabulary come first."""
        return join(self.root, f"items-{partition:05d}.arrow")

    @property
    def item_vocabulary(self) -> str:
        """File with the ids of the item vocabulary, in index order."""
        return join(self.root, "item-vocabulary.arrow")

    def result(self, name: str) -> str:
        """File with a value that a pipeline returns to the program that started it."""
        return join(self.root, f"result-{name}.pickle")


def write_table(path: str, table: pa.Table) -> None:
    """Writes a table as an Arrow IPC stream."""
    storage.write_bytes(path, encode_columns(table))


def read_table(path: str) -> pa.Table:
    """Reads a table written by `write_table`."""
    return decode_columns(storage.read_bytes(path))


def write_result(path: str, result: Any) -> None:
    """Writes a value as a pickle, for `read_result`."""
    storage.write_bytes(path, pickle.dumps(result))


def read_result(path: str) -> Any:
    """Reads a value written by `write_result`.

    Raises:
      ValueError: the file contains other objects than records, arrays and counters.
    """
    return _ResultReader(storage.read_bytes(path), path).load()


class _ResultReader(pickle.Unpickler):
    """Loads only records, arrays and counters, because other programs may be able to write to the workers' bucket."""

    def __init__(self, content: bytes, path: str) -> None:
        super().__init__(io.BytesIO(content))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Returns a class or function by name; raises ValueError if results may not contain it."""
        if (module, name) == ("builtins", "getattr"):
            return _member  # Python before 3.11.4 pickles a member of an enumeration as a call of getattr
        is_known = (module, name) in _OTHER_NAMES
        if is_known or (module.startswith(_OWN_PACKAGES) and "." not in name):
            found = super().find_class(module, name)
            if is_known or (isinstance(found, type) and _is_record(found)):
                return found
        raise ValueError(
            f"{self._path} contains {module}.{name}, which this job never writes, so another program has written to "
            "this file; check who can write there, then run the same command again"
        )


def _member(kind: Any, name: str) -> enum.Enum:
    """Returns a member of an enumeration. Replaces `getattr`, with which a pickle could call any Python function."""
    if isinstance(kind, enum.EnumType) and name in kind.__members__:
        return kind[name]
    raise ValueError(f"{name} of {kind!r} is not a member of an enumeration")


def _is_record(kind: type) -> bool:
    return is_dataclass(kind) or issubclass(kind, tuple | enum.Enum)
