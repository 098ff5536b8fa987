"""Stores of files: the local disk, TensorFlow's file systems, fsspec plugins."""

import contextlib
import glob
import importlib
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

import fsspec

from common.storage.retrying import http_status
from common.uris import refuse_credentials

_PARTIAL = re.compile(r"\.partial-[0-9a-f]{32}$")  # names of `_replacing`
OWNER = "_owner.json"
"""Name of an ownership record, and prefix of the names of the other ownership files; see `ownership.py`."""
_EXISTS = (409, 412)
"""HTTP statuses of a conditional write that fails because the file exists, or another process is writing it."""
_UNSUPPORTED = (400, 501)
"""HTTP statuses of stores that do not support conditional writes."""
_UNSUPPORTED_NAMES = ("TypeError", "NotImplementedError", "ParamValidationError")
"""Errors of plugins and client libraries that do not support conditional writes."""
_SETTLE_SECONDS = 1.0
"""Pause after a file is created without a conditional write. Concurrent writers finish during the pause."""
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci")


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


def is_local(uri: str) -> bool:
    """Returns True for a plain path or a `file://` URI."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """Returns the absolute path of a local URI. Raises ValueError if the URI is not local."""
    if not is_local(uri):
        raise ValueError(f"{uri} is not a local path; copy it to a local directory first")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def is_served_by_tensorflow(uri: str) -> bool:
    """Returns True if TensorFlow can open the URI. It opens local and gs:// URIs; with tensorflow-io, also s3://."""
    if is_local(uri):
        return True
    scheme = uri.partition("://")[0]
    # unlike Google's other clients, TensorFlow ignores the variable that points to an emulator
    is_emulated = scheme == "gs" and "STORAGE_EMULATOR_HOST" in os.environ
    return not is_emulated and scheme in _tensorflow_schemes()


def is_owner_file(name: str) -> bool:
    """Returns True if a relative path is an ownership file; see `ownership.py`."""
    return name.rpartition("/")[2].startswith(OWNER)


def open_store(uri: str) -> Store:
    """Opens the store of a URI. Raises ValueError if its scheme is unknown, or if it may contain a credential."""
    if is_local(uri):
        return LocalStore()
    refuse_credentials(uri)
    if is_served_by_tensorflow(uri):
        return TensorFlowStore()
    _quiet_plugins()
    scheme = uri.partition("://")[0]
    try:
        file_system, _ = fsspec.core.url_to_fs(uri, **_options(scheme))
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"cannot open {uri}: {error}; install s3:// and gs:// support with `pip install '.[storage]'` in the clone"
        ) from error
    # in an object store, creating a directory would create the bucket, even one with a misspelt name
    return FsspecStore(file_system, has_directories=scheme not in _OBJECT_STORES)


class LocalStore:
    """The local disk and mounted file systems."""

    def exists(self, uri: str) -> bool:
        return os.path.exists(local_path(uri))

    def size(self, uri: str) -> int:
        return os.path.getsize(local_path(uri))

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        with open(local_path(uri), "rb") as file:
            file.seek(begin)
            return file.read(-1 if end is None else end - begin)

    def write(self, uri: str, content: bytes) -> None:
        with _replacing(local_path(uri)) as partial, open(partial, "wb") as file:
            file.write(content)

    def create(self, uri: str, content: bytes) -> None:
        path = local_path(uri)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        partial = f"{path}.partial-{uuid.uuid4().hex}"
        try:
            with open(partial, "xb") as file:
                file.write(content)
            with contextlib.suppress(FileExistsError):
                _link(partial, path)
        except OSError as error:
            error.filename = error.filename or path  # writing names no file
            raise
        finally:
            with contextlib.suppress(OSError):
                os.remove(partial)

    def get(self, uri: str, path: str) -> None:
        shutil.copyfile(local_path(uri), path)

    def put(self, path: str, uri: str) -> None:
        with _replacing(local_path(uri)) as partial:
            shutil.copyfile(path, partial)

    def list_files(self, uri: str) -> list[str]:
        """Lists all files below a directory, except unfinished ones."""
        return [name for name in _names_below(uri) if not _PARTIAL.search(name)]

    def glob(self, pattern: str) -> list[str]:
        pattern = os.path.expanduser(pattern.removeprefix("file://"))
        # a file may have `[` in its name
        found = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
        return [path for path in found if os.path.isfile(path) and not _PARTIAL.search(path)]

    def remove(self, uri: str) -> None:
        path = local_path(uri)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)


def _link(partial: str, path: str) -> None:
    """Gives the file `partial` the name `path`. Raises FileExistsError if `path` exists."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        with open(path, "xb"):
            pass
        try:
            os.replace(partial, path)
        except OSError:
            os.remove(path)
            raise


def remove_partial(uri: str) -> None:
    """Removes unfinished files below a local directory; ignores other stores."""
    if is_local(uri):
        for name in filter(_PARTIAL.search, _names_below(uri)):
            with contextlib.suppress(FileNotFoundError):  # its writer is alive and has just finished
                os.remove(os.path.join(local_path(uri), name))


class FsspecStore:
    """A store behind an fsspec plugin."""

    def __init__(self, file_system: Any, *, has_directories: bool) -> None:
        """Wraps an fsspec file system.

        `has_directories`: whether a write needs an existing parent directory; object stores need none.
        """
        self._files, self._has_directories = file_system, has_directories

    def exists(self, uri: str) -> bool:
        return bool(self._files.exists(uri))

    def size(self, uri: str) -> int:
        return int(self._files.size(uri))

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        # by keyword: plugins differ in the order of arguments
        return bytes(self._files.cat_file(uri, start=begin or None, end=end))

    def write(self, uri: str, content: bytes) -> None:
        self._make_parent(uri)
        self._files.pipe_file(uri, content)

    def create(self, uri: str, content: bytes) -> None:
        self._make_parent(uri)
        try:
            self._files.pipe_file(uri, content, mode="create")
        except FileExistsError:
            return
        except Exception as error:
            status = http_status(error)
            if status in _EXISTS:
                return
            if status not in _UNSUPPORTED and type(error).__name__ not in _UNSUPPORTED_NAMES:
                raise
            _create_in_steps(self, uri, content)

    def get(self, uri: str, path: str) -> None:
        self._files.get_file(uri, path)

    def put(self, path: str, uri: str) -> None:
        self._make_parent(uri)
        self._files.put_file(path, uri)

    def list_files(self, uri: str) -> list[str]:
        root = self._files._strip_protocol(uri).rstrip("/") + "/"
        return [
            name.removeprefix(root)
            for name in map(str, self._files.find(uri))
            if name.startswith(root) and name != root
        ]

    def glob(self, pattern: str) -> list[str]:
        found = self._files.glob(pattern, detail=True)
        return [str(self._files.unstrip_protocol(name)) for name, about in found.items() if about["type"] == "file"]

    def remove(self, uri: str) -> None:
        if self._has_directories and self._files.exists(uri):
            self._files.rm(uri, recursive=True)
            return
        # file by file: `rm` treats names as patterns and may remove the whole bucket
        for name in self._files.find(uri):
            with contextlib.suppress(FileNotFoundError):  # the answer to the first try was lost
                self._files.rm_file(name)

    def _make_parent(self, uri: str) -> None:
        if self._has_directories:
            self._files.makedirs(self._files._parent(uri), exist_ok=True)


class TensorFlowStore:
    """A store behind one of TensorFlow's file systems."""

    def __init__(self) -> None:
        """Imports TensorFlow only now, because the import takes seconds."""
        self._gfile = importlib.import_module("tensorflow").io.gfile

    def exists(self, uri: str) -> bool:
        is_found = bool(self._gfile.exists(uri))
        if not is_found:
            self._check_reachable(uri)
        return is_found

    def size(self, uri: str) -> int:
        try:
            return int(self._gfile.stat(uri).length)
        except Exception:
            self._check_reachable(uri)
            raise

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        try:
            with self._gfile.GFile(uri, "rb") as file:
                file.seek(begin)
                return bytes(file.read(-1 if end is None else end - begin))
        except Exception:
            self._check_reachable(uri)
            raise

    def write(self, uri: str, content: bytes) -> None:
        with self._gfile.GFile(uri, "wb") as file:
            file.write(content)

    def create(self, uri: str, content: bytes) -> None:
        _create_in_steps(self, uri, content)

    def get(self, uri: str, path: str) -> None:
        self._gfile.copy(uri, path, overwrite=True)

    def put(self, path: str, uri: str) -> None:
        self._gfile.copy(path, uri, overwrite=True)

    def list_files(self, uri: str) -> list[str]:
        root = uri.rstrip("/") + "/"
        found = [f"{folder.rstrip('/')}/{name}" for folder, _, names in self._gfile.walk(uri) for name in names]
        if not found:
            self._check_reachable(uri)
        return [name.removeprefix(root) for name in found]

    def glob(self, pattern: str) -> list[str]:
        found = [uri for uri in self._gfile.glob(pattern) if not self._gfile.isdir(uri)]
        if not found:
            self._check_reachable(pattern)
        return found

    def remove(self, uri: str) -> None:
        if self._gfile.isdir(uri):
            self._gfile.rmtree(uri)
        elif self.exists(uri):
            self._gfile.remove(uri)

    def _check_reachable(self, uri: str) -> None:
        """Raises an error if S3 does not answer, because tensorflow-io would report every file as missing."""
        if uri.startswith("s3://"):
            self._gfile.exists("/".join(uri.split("/")[:3]) + "/")


def _create_in_steps(store: Store, uri: str, content: bytes) -> None:
    """Creates a file in a store without conditional writes; see `Store.create`."""
    if not store.exists(uri):
        store.write(uri, content)
        time.sleep(_SETTLE_SECONDS)


def _names_below(uri: str) -> list[str]:
    root = local_path(uri)
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return [os.path.relpath(path, root) for path in found]


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
    """Yields a temporary path. A file written there replaces `path` on success, and is removed after an error."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.partial-{uuid.uuid4().hex}"  # unique: workers on several machines may have the same process id
    try:
        yield partial
        os.replace(partial, path)
    except BaseException as error:  # most often a full disk
        with contextlib.suppress(OSError):
            os.remove(partial)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = path  # writing names no file
        raise


@cache
def _tensorflow_schemes() -> frozenset[str]:
    """Returns the URI schemes that TensorFlow can open. Imports tensorflow-io first, because it may add s3."""
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        os.environ.setdefault("S3_ENDPOINT", endpoint)  # tensorflow-io's name for it
    with contextlib.suppress(Exception):  # it fails in several ways if it was built for another TensorFlow
        importlib.import_module("tensorflow_io")
    return frozenset(importlib.import_module("tensorflow").io.gfile.get_registered_schemes())


@cache
def _quiet_plugins() -> None:
    """Hides log messages below level ERROR that fsspec plugins write, because some contain credentials."""
    for name in ("botocore", "aiobotocore", "boto3", "s3fs", "google", "urllib3", "aiohttp", "asyncio", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # logs the traceback of every error that it also raises


def _options(scheme: str) -> dict[str, Any]:
    """Returns the options to pass to an fsspec plugin; the plugin reads credentials from the environment."""
    # files written by other processes must be visible, and this package does the retries
    if scheme in ("s3", "s3a"):
        return {"use_listings_cache": False, "config_kwargs": {"retries": {"max_attempts": 1}}}
    if scheme in ("gs", "gcs"):
        # like Google's own clients, anonymous with an emulator
        anonymous = {"token": "anon"} if "STORAGE_EMULATOR_HOST" in os.environ else {}
        return {"use_listings_cache": False, "consistency": "md5", **anonymous}
    return {}
