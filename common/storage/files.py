"""Operations on single files, with retries: read, write, list, checksum, copy."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from common.errors import ContractError
from common.storage.cache import hash_file, process_cache
from common.storage.paths import is_local, is_owner_file, local_path
from common.storage.retrying import call_with_retries
from common.storage.store_protocol import Store
from common.storage.stores import open_store

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Result = TypeVar("Result")

_READ_BYTES = 8 << 20
_UPLOADS_AT_ONCE = 8


def exists(uri: str) -> bool:
    """Returns True if `uri` is an existing file or directory."""
    return _call(uri, "looking for", lambda store: store.exists(uri))


def size(uri: str) -> int:
    """Returns the size of a file in bytes; raises FileNotFoundError if the file does not exist."""
    return _call(uri, "reading", lambda store: store.size(uri))


def read_bytes(uri: str, begin: int = 0, end: int | None = None) -> bytes:
    """Reads the bytes [begin, end) of a file; `end` None: to the end of the file.

    Raises:
      FileNotFoundError: the file does not exist.
    """
    return _call(uri, "reading", lambda store: store.read(uri, begin, end))


def write_bytes(uri: str, content: bytes) -> None:
    """Writes a file whole or not at all; creates missing parent directories."""
    _change(uri, "writing", lambda store: store.write(uri, content))


def create(uri: str, content: bytes) -> None:
    """Writes a new file. Does nothing if the file exists; see `Store.create`."""
    _change(uri, "writing", lambda store: store.create(uri, content))


def open_binary(uri: str, piece_bytes: int = _READ_BYTES) -> BinaryIO:
    """Opens a file for reading. A remote file is fetched in pieces of `piece_bytes`."""
    if is_local(uri):
        return open(local_path(uri), "rb")
    return cast(BinaryIO, io.BufferedReader(_RemoteFile(uri), piece_bytes))


def remove(uri: str) -> None:
    """Removes a file, or a directory with its contents; does nothing if `uri` does not exist."""
    _change(uri, "removing", lambda store: store.remove(uri))


def list_files(uri: str) -> list[str]:
    """Lists all files below a directory as sorted relative paths; [] if there is no directory.

    Omits ownership files.
    """
    try:
        found = _call(uri, "listing", lambda store: store.list_files(uri))
        return sorted(name for name in found if not is_owner_file(name))
    except FileNotFoundError:  # gcsfs raises it if the bucket does not exist, the next write reports that
        return []


def find_files(pattern: str) -> list[str]:
    """Returns the sorted paths that match a pattern with `*`, `?`, `[…]` and `**`."""
    return sorted(_call(pattern, "listing", lambda store: store.glob(pattern)))


def sha256(uri: str) -> str:
    """Computes the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open_binary(uri) as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def upload(path: str, uri: str) -> str:
    """Copies a local file to a URI, verifies the copy, and returns its SHA-256.

    Raises:
      OSError: the file cannot be written, or its copy differs.
    """
    expected = hash_file(path)
    for _ in range(2):  # retried once: the transfer may have damaged it
        _change(uri, "writing", lambda store: store.put(path, uri))
        if sha256(uri) == expected:
            return expected
    raise OSError(
        f"{uri} was uploaded twice, and both times its content differed from the local file (expected sha256 "
        f"{expected[:12]}…); check whether another process writes there"
    )


def upload_all(
    folder: str, names: Sequence[str], destination: str, before_each: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Uploads files of a local folder concurrently and returns their SHA-256 by name.

    After an error, no further upload starts; files that were already uploaded remain.

    Args:
      folder: local folder.
      names: names of the files in `folder`.
      destination: path or URI of the directory to copy to.
      before_each: called before each upload, in the thread that uploads; its errors are raised.

    Raises:
      OSError: a file cannot be written, or its copy differs.
    """

    def upload_one(name: str) -> str:
        before_each()
        return upload(f"{folder}/{name}", f"{destination.rstrip('/')}/{name}")

    with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as executor:
        uploads = {name: executor.submit(upload_one, name) for name in names}
        try:
            return {name: done.result() for name, done in uploads.items()}
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def is_intact(uri: str, sha256_expected: str) -> bool:
    """Returns True if a file has the expected checksum. Caches a remote file.

    Raises:
      FileNotFoundError: the file does not exist.
    """
    if is_local(uri):
        return sha256(uri) == sha256_expected
    try:
        with local_copy(uri, sha256_expected):
            return True
    except ContractError:
        return False


@contextmanager
def local_copy(uri: str, sha256: str) -> Iterator[str]:
    """Yields a local path of a file, valid inside the context.

    A remote file is cached and verified; a local file is neither copied nor verified.

    Raises:
      ContractError: the checksum of the fetched file is not `sha256`.
      OSError: the file cannot be fetched.
    """
    if is_local(uri):
        yield local_path(uri)
        return
    cache = process_cache()
    path = cache.acquire(uri, sha256)
    try:
        yield path
    finally:
        cache.release(sha256)


class _RemoteFile(io.RawIOBase):
    """A remote file, opened for reading. Each read fetches a range of bytes."""

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
        # an object needs no parent except its bucket
        bucket = "/".join(uri.split("/")[:3])
        raise OSError(f"{doing} {uri} failed: {bucket} does not exist; create it or correct its name") from error
