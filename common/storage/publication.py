"""Publishes directories whole or not at all.

A local directory is renamed into place. In an object store, which has no rename, the files are uploaded, and a marker
file is uploaded last. Readers treat a directory without its marker as unfinished. During the upload, the directory also
contains the file `CLAIM`. If the process is killed, this file shows a later process that the upload is unfinished. The
publisher owns the destination during the publication; see `ownership.py`.
"""

import contextlib
import glob
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from common.storage import files
from common.storage.disk_space import explain_full_disk
from common.storage.ownership import check_ownership, own_output, try_to_check_ownership
from common.storage.paths import is_local, is_owner_file, local_path, nearest_existing
from common.storage.retrying import call_with_retries
from common.storage.scratch import make_scratch
from common.storage.store_protocol import Store
from common.storage.stores import open_store

CLAIM = "_unfinished"


_published: set[str] = set()
"""Destinations that this process has published."""


def publish_directory(destination: str, *, marker: str | None = None) -> AbstractContextManager[str]:
    """Yields a local directory to fill, then publishes it at `destination`; after an error, publishes nothing.

    Args:
      destination: path or URI of the new directory.
      marker: file that marks the directory as complete, uploaded last; None: there is no such file.

    Raises:
      FileExistsError: `destination` exists and is not empty; it is left unchanged.
      OwnershipError: another process is publishing to `destination`, or has taken over.
      OSError: `destination` is not writable; raised before the directory is filled.
    """
    refuse_existing(destination, marker=marker)
    return _publish_locally(destination) if is_local(destination) else _publish_to_store(destination, marker)


def refuse_existing(destination: str, *, marker: str | None = None) -> None:
    """Raises an error if a directory cannot be published at a destination.

    The destination must be missing, empty, or an unfinished upload. Write permission is checked for local paths only,
    see `check_writable`.

    Args:
      destination: path or URI of the new directory.
      marker: file that marks an upload as complete; None: there is no such file.

    Raises:
      FileExistsError: `destination` is not empty, or one of its parents is a file.
      PermissionError: the nearest existing parent of a local path is not writable.
    """
    if not is_local(destination):
        names = files.list_files(destination)
        if names and (CLAIM not in names or marker in names):
            raise FileExistsError(f"{destination} already exists and is not empty; choose another output or remove it")
        return
    path = local_path(destination)
    if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path) or os.listdir(path)):
        raise FileExistsError(f"{destination} already exists and is not empty; choose another output or remove it")
    above = nearest_existing(path)
    if not os.path.isdir(above):
        raise FileExistsError(f"{destination} cannot be created: {above} is a file; choose another output")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{destination} cannot be created: {above} is not writable; choose another output")


def was_published(destination: str) -> bool:
    """Returns whether this process has published `destination`."""
    return destination in _published


def record_publication(destination: str) -> None:
    """Records that `destination` is complete, for `was_published`."""
    _published.add(destination)


def check_writable(uri: str) -> None:
    """Checks write access to an object store with a small file; ignores local paths.

    Raises:
      PermissionError: credentials are missing or insufficient.
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
    with own_output(destination):
        refuse_existing(destination)  # the process that owned it until now may have published it
        for abandoned in glob.glob(f"{glob.escape(parent)}/.{glob.escape(name)}.partial-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        # next to the destination: a rename cannot cross file systems
        staging = tempfile.mkdtemp(prefix=f".{name}.partial-", dir=parent)
        try:
            with explain_full_disk(destination):
                yield staging
            check_ownership(destination)
            _move(staging, local_path(destination))
            record_publication(destination)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _move(staging: str, path: str) -> None:
    if os.path.isdir(path):
        os.rmdir(path)  # `refuse_existing` found it empty; if it no longer is, this fails without loss
    os.chmod(staging, 0o777 & ~_umask())  # temporary folders are private
    os.rename(staging, path)


@contextmanager
def _publish_to_store(destination: str, marker: str | None) -> Iterator[str]:
    with own_output(destination):
        check_writable(destination)
        refuse_existing(destination, marker=marker)  # the process that owned it until now may have published it
        # leftovers of a killed process: `refuse_existing` lets nothing else pass
        call_with_retries(lambda: _clear(open_store(destination), destination), "removing", destination)
        claim = f"{destination.rstrip('/')}/{CLAIM}"
        files.write_bytes(claim, b"")
        staging = make_scratch("output")
        try:
            with explain_full_disk(staging):
                yield staging
            _upload(staging, destination, marker)
            record_publication(destination)
        except BaseException:
            _withdraw(destination, marker)
            raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        check_ownership(destination)  # the claim could be a successor's
        files.remove(claim)


def _upload(staging: str, destination: str, marker: str | None) -> None:
    names = [name for name in files.list_files(staging) if name != marker]
    check_ownership(destination)
    files.upload_all(staging, names, destination, lambda: try_to_check_ownership(destination))
    check_ownership(destination)
    if marker:
        files.upload_all(staging, [marker], destination)


def _withdraw(destination: str, marker: str | None) -> None:
    """Removes an unfinished upload, its marker first; ignores errors."""
    with contextlib.suppress(Exception):
        check_ownership(destination, patience=0.0)
        store = open_store(destination)
        if marker:  # its upload may have succeeded even if the response was lost
            store.remove(f"{destination.rstrip('/')}/{marker}")
        _clear(store, destination)


def _clear(store: Store, destination: str) -> None:
    """Removes all files of a destination except its ownership files."""
    for name in store.list_files(destination):
        if not is_owner_file(name):
            store.remove(f"{destination.rstrip('/')}/{name}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
