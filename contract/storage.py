"""Files, local or in an object store: read, write, list, checksum, and publish a directory whole or not at all.

Local paths use the operating system; any other scheme goes through fsspec, whose plugin for it (`s3fs`, `gcsfs`) comes
with the `storage` extra.
"""

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO, Literal

import fsspec

_CHUNK_BYTES = 1 << 20


def is_local(uri: str) -> bool:
    """True for a plain path or a `file://` URI."""
    return "://" not in uri or uri.startswith("file://")


def local_path(uri: str) -> str:
    """The operating system's path of a local URI."""
    if not is_local(uri):
        raise ValueError(f"{uri} is not a local path; copy it to a local directory first and give that")
    return os.path.abspath(os.path.expanduser(uri.removeprefix("file://")))


def exists(uri: str) -> bool:
    """True where a file or a directory stands."""
    file_system, path = _open_file_system(uri)
    return bool(file_system.exists(path))


def read_bytes(uri: str) -> bytes:
    """The whole content of a file; FileNotFoundError where there is none."""
    file_system, path = _open_file_system(uri)
    return bytes(file_system.cat_file(path))


def write_bytes(uri: str, content: bytes) -> None:
    """Writes a file whole or not at all; missing parent directories are made."""
    file_system, path = _open_file_system(uri)
    file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
    if not is_local(uri):  # an object store shows an object only once it is complete
        file_system.pipe_file(path, content)
        return
    partial = f"{path}.partial-{os.getpid()}"
    file_system.pipe_file(partial, content)
    os.replace(partial, path)


def open_binary(uri: str, mode: Literal["rb", "wb"]) -> AbstractContextManager[BinaryIO]:
    """A file opened for reading or writing piece by piece; missing parent directories are made."""
    file_system, path = _open_file_system(uri)
    if mode == "wb":
        file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
    opened: AbstractContextManager[BinaryIO] = file_system.open(path, mode)
    return opened


def remove(uri: str) -> None:
    """Removes a file, or a directory with all below it; nothing happens where there is none."""
    file_system, path = _open_file_system(uri)
    if file_system.exists(path):
        file_system.rm(path, recursive=True)


def list_files(uri: str) -> list[str]:
    """Names, relative to `uri`, of all files below it, sorted; an absent directory has none."""
    file_system, path = _open_file_system(uri)
    prefix = path.rstrip("/") + "/"
    return sorted(str(name).removeprefix(prefix) for name in file_system.find(path))


def sha256(uri: str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    file_system, path = _open_file_system(uri)
    with file_system.open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def publish_directory(destination: str, *, marker: str | None = None) -> Iterator[str]:
    """Gives a local directory to fill; on success it appears at `destination` whole, on failure not at all.

    A local destination appears by one rename. In an object store the files are uploaded with `marker`, a name relative
    to the directory, last: readers take a directory without its marker for unfinished.

    Raises:
      FileExistsError: something stands at `destination` already; it is left as it is.
    """
    refuse_existing(destination)
    staging = _make_staging(destination)
    try:
        yield staging
        _publish(staging, destination, marker)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def refuse_existing(destination: str) -> None:
    """Raises FileExistsError where a directory cannot be published: something stands there, or above it a file."""
    if not is_local(destination):
        if exists(destination) and list_files(destination):
            raise FileExistsError(f"{destination} already exists and is not empty; choose another output or remove it")
        return
    path = local_path(destination)
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path) or os.listdir(path)):
        raise FileExistsError(f"{destination} already exists and is not empty; choose another output or remove it")
    above = path
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise FileExistsError(f"{destination} cannot be made: {above} is a file; choose another output")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{destination} cannot be made: {above} may not be written to; choose another output")


def _make_staging(destination: str) -> str:
    if not is_local(destination):
        return tempfile.mkdtemp(prefix="cartwheel-")
    parent, name = os.path.split(local_path(destination))
    os.makedirs(parent, exist_ok=True)
    _remove_abandoned(parent, f".{name}.partial-{socket.gethostname()}-")
    # beside the destination: a rename cannot cross file systems
    return tempfile.mkdtemp(prefix=f".{name}.partial-{socket.gethostname()}-{os.getpid()}-", dir=parent)


def _remove_abandoned(parent: str, prefix: str) -> None:
    """Removes what killed processes of this machine left of the same destination."""
    for entry in os.listdir(parent):
        process = entry.removeprefix(prefix).partition("-")[0]
        if entry.startswith(prefix) and process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(os.path.join(parent, entry), ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _publish(staging: str, destination: str, marker: str | None) -> None:
    if is_local(destination):
        path = local_path(destination)
        if os.path.isdir(path):
            os.rmdir(path)  # refuse_existing found it empty; it fails, and nothing is lost, if it no longer is
        os.chmod(staging, 0o777 & ~_umask())  # mkdtemp makes it private
        os.rename(staging, path)
        return
    file_system, path = _open_file_system(destination)
    names = [name for name in list_files(staging) if name != marker]
    for name in names + ([marker] if marker else []):
        file_system.put_file(os.path.join(staging, name), f"{path.rstrip('/')}/{name}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _open_file_system(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI and the path in it; untyped, for fsspec ships no types."""
    try:
        file_system, path = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"cannot open {uri}: {error}; `pip install cartwheel[storage]` brings s3:// and gs://"
        ) from error
    return file_system, path
