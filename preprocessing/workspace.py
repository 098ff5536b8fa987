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
    """Paths of the intermediate files. A partition is a group of visitors or of items."""

    root: str
    """Directory of all intermediate files."""

    @property
    def chunks(self) -> str:
        """Directory of the files with input rows. They exist until the rows are grouped by partition."""
        return join(self.root, "chunks")

    def chunk(self, name: str, position: tuple[int, int]) -> str:
        """File with the rows of one chunk of an input.

        Args:
          name: name of the input.
          position: index of the input file, and position of the chunk in this file (a byte or a row number).
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
        """File with all items of a partition and their training counts. Items in the vocabulary precede all others."""
        return join(self.root, f"items-{partition:05d}.arrow")

    @property
    def item_vocabulary(self) -> str:
        """File with the ids of the item vocabulary, in index order."""
        return join(self.root, "item-vocabulary.arrow")

    def result(self, name: str) -> str:
        """File with a result. A pipeline writes it, and the program that started the pipeline reads it."""
        return join(self.root, f"result-{name}.pickle")


def write_table(path: str, table: pa.Table) -> None:
    """Writes a table as an Arrow IPC stream, for `read_table`."""
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
      ValueError: the file contains a type or function that is not allowed in results.
    """
    return _ResultReader(storage.read_bytes(path), path).load()


class _ResultReader(pickle.Unpickler):
    """Loads a pickle that consists of records, enumerations, arrays, sets, counters and simple values only.

    Other programs may be able to write to the workers' bucket, and an unrestricted pickle can run any code.
    """

    def __init__(self, content: bytes, path: str) -> None:
        super().__init__(io.BytesIO(content))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Returns the class or function that a pickle names. Called by `load`.

        Raises:
          ValueError: the class or function is not allowed in results.
        """
        if (module, name) == ("builtins", "getattr"):
            return self._member  # Python before 3.11.4 pickles a member of an enumeration as a call of getattr
        is_known = (module, name) in _OTHER_NAMES
        if is_known or (module.startswith(_OWN_PACKAGES) and "." not in name):
            found = super().find_class(module, name)
            if is_known or (isinstance(found, type) and _is_record(found)):
                return found
        raise ValueError(_describe_foreign(self._path, f"{module}.{name}"))

    def _member(self, kind: Any, name: str) -> enum.Enum:
        """Returns the member `name` of the enumeration `kind`.

        It replaces `getattr` in pickles, because `getattr` would give a pickle access to any Python function.

        Raises:
          ValueError: `kind` is not an enumeration, or has no such member.
        """
        if isinstance(kind, enum.EnumType) and name in kind.__members__:
            return kind[name]
        raise ValueError(_describe_foreign(self._path, f"the attribute {name} of {kind!r}"))


def _describe_foreign(path: str, content: str) -> str:
    return (
        f"{path} contains {content}, which this job never writes, so another program has written to this file; check "
        "who can write there, then run the same command again"
    )


def _is_record(kind: type) -> bool:
    return is_dataclass(kind) or issubclass(kind, tuple | enum.Enum)
