"""A cache of remote files on the local disk. Each file is fetched once and verified. The total size is bounded."""

import hashlib
import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict

from common.errors import ContractError
from common.once import once
from common.storage.limits import read_limits
from common.storage.retrying import call_with_retries
from common.storage.scratch import make_scratch
from common.storage.stores import open_store

_CHUNK_BYTES = 1 << 20


def hash_file(path: str) -> str:
    """Computes the hexadecimal SHA-256 of a local file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


class Cache:
    """A thread-safe cache on the local disk for remote files. The key of a file is its SHA-256.

    Evicts the least recently used files, but no file in use.
    """

    def __init__(self, max_bytes: int) -> None:
        """Creates an empty cache in a folder that is removed when the process ends.

        `max_bytes` limits the total size, except for files in use.
        """
        self._max_bytes = max_bytes
        self._folder = make_scratch("cache")
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by SHA-256, the least recently used first
        self._users: dict[str, int] = {}
        self._fetching: dict[str, threading.Lock] = {}
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def acquire(self, uri: str, sha256: str) -> str:
        """Returns the local path of a file, fetched if necessary. The file stays until `release`.

        Raises ContractError if the fetched file's checksum is not `sha256`, OSError if fetching fails.
        """
        with self._lock:
            self._users[sha256] = self._users.get(sha256, 0) + 1
            fetching = self._fetching.setdefault(sha256, threading.Lock())
        try:
            with fetching:  # several threads may need the same file at the same time
                if sha256 not in self._sizes:
                    self._fetch(uri, sha256)
        except BaseException:
            self.release(sha256)
            raise
        with self._lock:
            self._sizes.move_to_end(sha256)
        return self._path(sha256)

    def release(self, sha256: str) -> None:
        """Ends one use of a file: call it once per `acquire`. The cache may evict unused files."""
        with self._lock:
            self._users[sha256] -= 1
            if not self._users[sha256]:
                del self._users[sha256], self._fetching[sha256]
            self._make_room(0)

    def adopt(self, path: str, sha256: str) -> None:
        """Moves a local file with the checksum `sha256` into the cache."""
        self._insert(path, sha256)

    def _fetch(self, uri: str, sha256: str) -> None:
        store = open_store(uri)
        size = call_with_retries(lambda: store.size(uri), "reading", uri)
        with self._lock:
            self._make_room(size)
        handle, path = tempfile.mkstemp(dir=self._folder)
        os.close(handle)
        try:
            for _ in range(2):  # retried once: the transfer may have been cut off
                call_with_retries(lambda: store.get(uri, path), "reading", uri)
                found = hash_file(path)
                if found == sha256:
                    self._insert(path, sha256)
                    return
            raise ContractError(
                f"{uri} is damaged: it was read twice and has sha256 {found[:12]}…, expected {sha256[:12]}…; restore "
                "the file, or repeat the command that wrote it"
            )
        finally:
            if os.path.exists(path):
                os.remove(path)

    def _insert(self, path: str, sha256: str) -> None:
        size = os.path.getsize(path)
        with self._lock:
            self._make_room(0 if sha256 in self._sizes else size)
            shutil.move(path, self._path(sha256))
            self._sizes[sha256] = size

    def _make_room(self, size: int) -> None:
        """Evicts unused files until `size` bytes fit, if possible. The caller holds the lock."""
        for sha256 in list(self._sizes):
            if sum(self._sizes.values()) + size <= self._max_bytes:
                return
            if sha256 not in self._users:
                del self._sizes[sha256]
                os.remove(self._path(sha256))

    def _path(self, sha256: str) -> str:
        return os.path.join(self._folder, sha256)


@once
def process_cache() -> Cache:
    """Returns the cache of this process."""
    return Cache(read_limits().cache_bytes)
