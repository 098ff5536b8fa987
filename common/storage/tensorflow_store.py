"""Stores behind TensorFlow's file systems."""

import contextlib
import importlib
import os
from functools import cache

from common.storage.paths import is_local
from common.storage.store_protocol import create_in_steps


def is_served_by_tensorflow(uri: str) -> bool:
    """Returns True if TensorFlow can open the URI. It opens local and gs:// URIs; with tensorflow-io, also s3://."""
    if is_local(uri):
        return True
    scheme = uri.partition("://")[0]
    # unlike Google's other clients, TensorFlow ignores the variable that points to an emulator
    is_emulated = scheme == "gs" and "STORAGE_EMULATOR_HOST" in os.environ
    return not is_emulated and scheme in _tensorflow_schemes()


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
        create_in_steps(self, uri, content)

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


@cache
def _tensorflow_schemes() -> frozenset[str]:
    """Returns the URI schemes that TensorFlow can open. Imports tensorflow-io first, because it may add s3."""
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        os.environ.setdefault("S3_ENDPOINT", endpoint)  # tensorflow-io's name for it
    with contextlib.suppress(Exception):  # it fails in several ways if it was built for another TensorFlow
        importlib.import_module("tensorflow_io")
    return frozenset(importlib.import_module("tensorflow").io.gfile.get_registered_schemes())
