"""Directories that appear whole or not at all.

A local destination appears by one rename. An object store has none, so the files are uploaded with the marker last:
readers take a directory without its marker for unfinished. While a publication goes on, a claim stands there too: by it
a process that starts anew knows what a killed one left, and two that publish to the same place notice each other.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from common.storage import files
from common.storage.scratch import make_scratch
from common.storage.stores import is_local, local_path, open_store

CLAIM = "_unfinished"


def publish_directory(destination: str, *, marker: str | None = None) -> AbstractContextManager[str]:
    """Gives a local directory to fill; on success it appears at `destination` whole, on failure not at all.

    Args:
      marker: a file of the directory by which its readers know that it is whole.

    Raises:
      FileExistsError: something stands at `destination` already; it is left as it is.
      OSError: it cannot be written to: known before the directory is given.
    """
    refuse_existing(destination, marker=marker)
    return _publish_locally(destination) if is_local(destination) else _publish_to_store(destination, marker)


def refuse_existing(destination: str, *, marker: str | None = None) -> None:
    """Raises FileExistsError where a directory cannot be published: something stands there, or above it a file."""
    if not is_local(destination):
        names = files.list_files(destination)
        if names and (CLAIM not in names or marker in names):
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


def check_writable(uri: str) -> None:
    """Writes a small file below a directory of a store and removes it: what is forbidden is told before the work.

    Raises:
      PermissionError: there are no credentials, or they do not suffice.
      OSError: the bucket does not exist, or the store does not answer.
    """
    if is_local(uri):
        return
    probe = f"{uri.rstrip('/')}/.writable-{uuid.uuid4().hex}"
    files.write_bytes(probe, b"")
    files.remove(probe)


@contextmanager
def _publish_locally(destination: str) -> Iterator[str]:
    parent, name = os.path.split(local_path(destination))
    os.makedirs(parent, exist_ok=True)
    staging = make_scratch(name, parent)  # beside the destination: a rename cannot cross file systems
    try:
        yield staging
        path = local_path(destination)
        if os.path.isdir(path):
            os.rmdir(path)  # refuse_existing found it empty; it fails, and nothing is lost, if it no longer is
        os.chmod(staging, 0o777 & ~_umask())  # a scratch folder is private
        os.rename(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _publish_to_store(destination: str, marker: str | None) -> Iterator[str]:
    check_writable(destination)
    files.remove(destination)  # what a killed process left: `refuse_existing` let nothing else pass
    claim, owner = f"{destination.rstrip('/')}/{CLAIM}", uuid.uuid4().hex.encode()
    files.write_bytes(claim, owner)
    staging = make_scratch("cartwheel-output")
    try:
        yield staging
        names = [name for name in files.list_files(staging) if name != marker]
        files.upload_all(staging, names, destination)
        _check_owner(claim, owner, destination)
        if marker:
            files.upload_all(staging, [marker], destination)
    except BaseException:
        _withdraw(destination, marker, claim, owner)
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    files.remove(claim)


def _check_owner(claim: str, owner: bytes, destination: str) -> None:
    try:
        found = files.read_bytes(claim)
    except FileNotFoundError:
        found = b""
    if found != owner:
        raise FileExistsError(f"another process has begun to publish to {destination}; this one has published nothing")


def _withdraw(destination: str, marker: str | None, claim: str, owner: bytes) -> None:
    """Removes what was uploaded, if the store answers at once; if not, the claim tells that it is unfinished."""
    store = open_store(destination)
    with contextlib.suppress(Exception):
        if store.read(claim) == owner:
            if marker:  # it may have arrived though its answer did not
                store.remove(f"{destination.rstrip('/')}/{marker}")
            store.remove(destination)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
