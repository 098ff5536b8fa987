"""What files lie in: the local disk, a store that TensorFlow serves, or one that an fsspec plugin serves."""

import contextlib
import glob
import importlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import fsspec

_PARTIAL = re.compile(r"\.partial-[0-9a-f]{32}$")  # names of `_replacing`
_OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci")
# of signed addresses: whoever reads the address may read the file
_SECRET_PARAMETERS = ("x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature", "sig", "token")


class Store(Protocol):
    """Files by URI; every method raises the errors of the library that serves it."""

    def exists(self, uri: str) -> bool:
        """True where a file stands, or a directory with a file in it."""
        ...

    def size(self, uri: str) -> int:
        """Bytes of a file."""
        ...

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        """The bytes [begin, end) of a file, fewer where it ends before; end None: to its end."""
        ...

    def write(self, uri: str, content: bytes) -> None:
        """Writes a file whole or not at all."""
        ...

    def get(self, uri: str, path: str) -> None:
        """Copies a file to a local path."""
        ...

    def put(self, path: str, uri: str) -> None:
        """Copies a local file into the store, whole or not at all."""
        ...

    def list_files(self, uri: str) -> list[str]:
        """Names, relative to `uri`, of all files below it."""
        ...

    def glob(self, pattern: str) -> list[str]:
        """URIs of the files that a pattern matches."""
        ...

    def remove(self, uri: str) -> None:
        """Removes a file, or a directory with all below it."""
        ...


def is_local(uri: str) -> bool:
    """True for a plain path or a `file://` URI."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """The operating system's path of a local URI."""
    if not is_local(uri):
        raise ValueError(f"{uri} is not a local path; copy it to a local directory first and give that")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def is_served_by_tensorflow(uri: str) -> bool:
    """True where TensorFlow itself opens files of this scheme: local ones, gs://, and s3:// with tensorflow-io."""
    if is_local(uri):
        return True
    scheme = uri.partition("://")[0]
    # TensorFlow knows nothing of the variable that sends every other client of Google's storage to an emulator
    is_emulated = scheme == "gs" and "STORAGE_EMULATOR_HOST" in os.environ
    return not is_emulated and scheme in _tensorflow_schemes()


def open_store(uri: str) -> Store:
    """The store that a URI names: TensorFlow's own where it serves the scheme, else an fsspec plugin's.

    Raises:
      ValueError: nothing serves the scheme, or the URI holds a credential.
    """
    if is_local(uri):
        return LocalStore()
    _refuse_credentials(uri)
    if is_served_by_tensorflow(uri):
        return TensorFlowStore()
    _quiet_plugins()
    scheme = uri.partition("://")[0]
    try:
        file_system, _ = fsspec.core.url_to_fs(uri, **_options(scheme))
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"cannot open {uri}: {error}; `pip install '.[storage]'` in the clone brings s3:// and gs://"
        ) from error
    # in an object store making a directory would make the bucket: one of a mistaken name, for all to see
    return FsspecStore(file_system, has_directories=scheme not in _OBJECT_STORES)


class LocalStore:
    """The local disk, or whatever is mounted there."""

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

    def get(self, uri: str, path: str) -> None:
        shutil.copyfile(local_path(uri), path)

    def put(self, path: str, uri: str) -> None:
        with _replacing(local_path(uri)) as partial:
            shutil.copyfile(path, partial)

    def list_files(self, uri: str) -> list[str]:
        """What is being written, or was left half written, is no file yet."""
        return [name for name in _names_below(uri) if not _PARTIAL.search(name)]

    def glob(self, pattern: str) -> list[str]:
        found = glob.glob(pattern.removeprefix("file://"), recursive=True)
        return [path for path in found if os.path.isfile(path) and not _PARTIAL.search(path)]

    def remove(self, uri: str) -> None:
        path = local_path(uri)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)


def remove_partial(uri: str) -> None:
    """Removes what killed processes left half written below a local directory; other stores show only whole files."""
    if is_local(uri):
        for name in filter(_PARTIAL.search, _names_below(uri)):
            with contextlib.suppress(FileNotFoundError):  # its writer lives, and has just finished
                os.remove(os.path.join(local_path(uri), name))


class FsspecStore:
    """A store that an fsspec plugin serves."""

    def __init__(self, file_system: Any, *, has_directories: bool) -> None:
        """Takes fsspec's file system, untyped, for fsspec ships no types."""
        self._files, self._has_directories = file_system, has_directories

    def exists(self, uri: str) -> bool:
        return bool(self._files.exists(uri))

    def size(self, uri: str) -> int:
        return int(self._files.size(uri))

    def read(self, uri: str, begin: int = 0, end: int | None = None) -> bytes:
        # by keyword: the plugins differ in the order
        return bytes(self._files.cat_file(uri, start=begin or None, end=end))

    def write(self, uri: str, content: bytes) -> None:
        self._make_parent(uri)
        self._files.pipe_file(uri, content)

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
        # file by file: `rm` takes names for patterns, and removes the bucket with all that lies in it
        for name in self._files.find(uri):
            self._files.rm_file(name)

    def _make_parent(self, uri: str) -> None:
        if self._has_directories:
            self._files.makedirs(self._files._parent(uri), exist_ok=True)


class TensorFlowStore:
    """A store that TensorFlow's own file systems serve."""

    def __init__(self) -> None:
        """Imports TensorFlow, which takes seconds: never at import time."""
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
        """Raises where S3 does not answer: of a file, tensorflow-io then says that there is none."""
        if uri.startswith("s3://"):
            self._gfile.exists("/".join(uri.split("/")[:3]) + "/")


def _names_below(uri: str) -> list[str]:
    root = local_path(uri)
    found = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    return [os.path.relpath(path, root) for path in found]


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[str]:
    """Gives a name to write to, which takes the place of `path` at the end; where that fails, nothing is left."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    partial = f"{path}.partial-{uuid.uuid4().hex}"  # workers on several machines may have the same process id
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:  # a full disk above all
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


@cache
def _tensorflow_schemes() -> frozenset[str]:
    """What TensorFlow says it serves: tensorflow-io may import and still register nothing."""
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        os.environ.setdefault("S3_ENDPOINT", endpoint)  # what tensorflow-io calls it
    with contextlib.suppress(Exception):  # built for another TensorFlow it fails in several ways
        importlib.import_module("tensorflow_io")
    return frozenset(importlib.import_module("tensorflow").io.gfile.get_registered_schemes())


@cache
def _quiet_plugins() -> None:
    """Lets no plugin log below an error: at DEBUG they write requests with the credentials in them."""
    for name in ("botocore", "aiobotocore", "boto3", "s3fs", "google", "urllib3", "aiohttp", "asyncio", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # logs a traceback of every error that it also raises


def _options(scheme: str) -> dict[str, Any]:
    """What fsspec's plugin of a scheme is told beside the environment."""
    # what other processes write must be seen, and this package tries again itself
    if scheme in ("s3", "s3a"):
        return {"use_listings_cache": False, "config_kwargs": {"retries": {"max_attempts": 1}}}
    if scheme in ("gs", "gcs"):
        # Google's own clients are anonymous before an emulator too
        anonymous = {"token": "anon"} if "STORAGE_EMULATOR_HOST" in os.environ else {}
        return {"use_listings_cache": False, "consistency": "md5", **anonymous}
    return {}


def _refuse_credentials(uri: str) -> None:
    parts = urlsplit(uri)
    is_signed = any(name.lower() in _SECRET_PARAMETERS for name, _ in parse_qsl(parts.query))
    # a secret may hold slashes, and the bucket then stands in the path; a colon is also that of a port
    after_colon = parts.netloc.partition(":")[2]
    has_password = ":" in parts.netloc and (parts.scheme in _OBJECT_STORES or not after_colon.isdigit())
    if is_signed or has_password or "@" in parts.netloc:
        raise ValueError(
            f"an address of {parts.scheme}:// was given with a credential in it, which the run's records would keep; "
            "give it in the environment instead"
        )
