"""Single files: read, write, list, checksum, copy; a store that does not answer is tried again."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from common.errors import ContractError
from common.storage.cache import hash_file, process_cache
from common.storage.retrying import call_with_retries
from common.storage.stores import Store, is_local, local_path, open_store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Result = TypeVar("Result")

_READ_BYTES = 8 << 20
_UPLOADS_AT_ONCE = 8


def exists(uri: str) -> bool:
    """True where a file or a directory stands."""
    return _call(uri, "looking for", lambda store: store.exists(uri))


def size(uri: str) -> int:
    """Bytes of a file; FileNotFoundError where there is none."""
    return _call(uri, "reading", lambda store: store.size(uri))


def read_bytes(uri: str, begin: int = 0, end: int | None = None) -> bytes:
    """The bytes [begin, end) of a file, end None: to its end; FileNotFoundError where there is none."""
    return _call(uri, "reading", lambda store: store.read(uri, begin, end))


def write_bytes(uri: str, content: bytes) -> None:
    """Writes a file whole or not at all; missing parent directories are made."""
    _change(uri, "writing", lambda store: store.write(uri, content))


def open_binary(uri: str, piece_bytes: int = _READ_BYTES) -> BinaryIO:
    """A file opened for reading; of a store it is fetched in pieces, each of which is tried again by itself."""
    if is_local(uri):
        return open(local_path(uri), "rb")
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(uri), piece_bytes))


def remove(uri: str) -> None:
    """Removes a file, or a directory with all below it; nothing happens where there is none."""
    _change(uri, "removing", lambda store: store.remove(uri))


def list_files(uri: str) -> list[str]:
    """Names, relative to `uri`, of all files below it, sorted; an absent directory has none."""
    return sorted(_call(uri, "listing", lambda store: store.list_files(uri)))


def find_files(pattern: str) -> list[str]:
    """The files that a pattern with `*`, `?`, `[…]` and `**` matches, sorted."""
    return sorted(_call(pattern, "listing", lambda store: store.glob(pattern)))


def sha256(uri: str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open_binary(uri) as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def upload(path: str, uri: str) -> str:
    """Copies a local file to a URI, reads it there again to verify it, and returns its SHA-256.

    Raises:
      OSError: it cannot be written, or reads otherwise than it was written.
    """
    expected = hash_file(path)
    for _ in range(2):  # once more: it may have been changed on its way
        _change(uri, "writing", lambda store: store.put(path, uri))
        if sha256(uri) == expected:
            return expected
    raise OSError(f"{uri} reads otherwise than it was written, twice (sha256 expected {expected[:12]}…)")


def upload_all(folder: str, names: Sequence[str], destination: str) -> dict[str, str]:
    """Uploads files of a local folder, several at once; their SHA-256 by name.

    Raises:
      OSError: see `upload`; what was uploaded before stays there.
    """
    with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as executor:
        uploads = {
            name: executor.submit(upload, f"{folder}/{name}", f"{destination.rstrip('/')}/{name}") for name in names
        }
        try:
            return {name: done.result() for name, done in uploads.items()}
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def is_intact(uri: str, sha256_expected: str) -> bool:
    """True where a file has this checksum; one that is not local is fetched into the cache for it."""
    if is_local(uri):
        return sha256(uri) == sha256_expected
    try:
        with local_copy(uri, sha256_expected):
            return True
    except ContractError:
        return False


@contextmanager
def local_copy(uri: str, sha256: str) -> Iterator[str]:
    """The local path of a file with this checksum, to be read while the context lasts.

    A local file is read where it lies, unverified; any other is verified as it is fetched into the bounded cache.

    Raises:
      ContractError: the fetched file is not the one of this checksum.
    """
    if is_local(uri):
        yield local_path(uri)
        return
    path = process_cache().acquire(uri, sha256)
    try:
        yield path
    finally:
        process_cache().release(sha256)


class _RemoteFile(io.RawIOBase):
    """Reads a file of a store by ranges."""

    def __init__(self, uri: str) -> None:
        self._uri, self._size, self._position = uri, size(uri), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        begin, end = self._position, min(self._position + len(view), self._size)
        if begin >= end:
            return 0
        content = _call(self._uri, "reading", lambda store: store.read(self._uri, begin, end))
        view[: len(content)] = content
        self._position += len(content)
        return len(content)


def _call(uri: str, doing: str, action: Callable[[Store], Result]) -> Result:
    store = open_store(uri)
    return action(store) if is_local(uri) else call_with_retries(lambda: action(store), doing, uri)


def _change(uri: str, doing: str, action: Callable[[Store], None]) -> None:
    try:
        _call(uri, doing, action)
    except FileNotFoundError as error:
        if is_local(uri):
            raise
        # an object needs nothing to exist but its bucket
        bucket = "/".join(uri.split("/")[:3])
        raise OSError(f"{doing} {uri} failed: {bucket} does not exist; make it, or correct its name") from error
