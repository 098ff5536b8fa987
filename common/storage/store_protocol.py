"""The operations of a store of files, which the local disk, TensorFlow's file systems and fsspec implement."""

import time
from typing import Protocol

_SETTLE_SECONDS = 1.0
"""Pause after a file is created without a conditional write. Concurrent writers finish during the pause."""


class Store(Protocol):
    """Operations on files by URI. The methods raise the errors of the underlying library."""

    def exists(self, uri: str) -> bool:
        """Returns True if `uri` is a file, or a directory that contains a file."""
        ...

    def size(self, uri: str) -> int:
        """Returns the size of a file in bytes."""
        ...

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        """Reads the bytes [begin, end) of a file, or fewer if it ends earlier."""
        ...

    def write(self, uri: str, content: bytes) -> None:
        """Writes a file whole or not at all."""
        ...

    def create(self, uri: str, content: bytes) -> None:
        """Writes a file unless it exists. Of several concurrent writers, one succeeds.

        To learn which writer succeeded, read the file. In stores without conditional writes, the last writer succeeds,
        and the call waits until other writers have probably finished.
        """
        ...

    def get(self, uri: str, path: str) -> None:
        """Copies a file to a local path."""
        ...

    def put(self, path: str, uri: str) -> None:
        """Copies a local file into the store, whole or not at all."""
        ...

    def list_files(self, uri: str) -> list[str]:
        """Lists all files below the directory `uri`, as relative paths."""
        ...

    def glob(self, pattern: str) -> list[str]:
        """Lists the URIs of the files that match a pattern."""
        ...

    def remove(self, uri: str) -> None:
        """Removes a file, or a directory with its contents."""
        ...


def create_in_steps(store: Store, uri: str, content: bytes) -> None:
    """Creates a file in a store without conditional writes; see `Store.create`."""
    if not store.exists(uri):
        store.write(uri, content)
        time.sleep(_SETTLE_SECONDS)
