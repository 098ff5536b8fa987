"""Stores behind fsspec plugins, such as `s3fs` and `gcsfs`."""

import contextlib
import logging
import os
from functools import cache
from typing import Any

import fsspec

from common.storage.retrying import http_status
from common.storage.store_protocol import create_in_steps
from common.uris import OBJECT_STORES

_EXISTS = (409, 412)
"""HTTP statuses of a conditional write that fails because the file exists, or another process is writing it."""
_UNSUPPORTED = (400, 501)
"""HTTP statuses of stores that do not support conditional writes."""
_UNSUPPORTED_NAMES = ("TypeError", "NotImplementedError", "ParamValidationError")
"""Errors of plugins and client libraries that do not support conditional writes."""


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
            create_in_steps(self, uri, content)

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


def open_fsspec(uri: str) -> FsspecStore:
    """Opens the store of a URI. Raises ValueError if no plugin for its scheme is installed."""
    _quiet_plugins()
    scheme = uri.partition("://")[0]
    try:
        file_system, _ = fsspec.core.url_to_fs(uri, **_options(scheme))
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"cannot open {uri}: {error}; install s3:// and gs:// support with `pip install '.[storage]'` in the clone"
        ) from error
    # in an object store, creating a directory would create the bucket, even one with a misspelt name
    return FsspecStore(file_system, has_directories=scheme not in OBJECT_STORES)


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


@cache
def _quiet_plugins() -> None:
    """Hides log messages below level ERROR that fsspec plugins write, because some contain credentials."""
    for name in ("botocore", "aiobotocore", "boto3", "s3fs", "google", "urllib3", "aiohttp", "asyncio", "fsspec"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # logs the traceback of every error that it also raises
