"""Temporary local folders. Later processes remove the folders of killed processes.

Each process keeps its temporary folders in one parent folder, and keeps this parent locked. The kernel releases the
lock when the process ends, even if it is killed. Therefore, a parent folder that another process can lock is abandoned.
This also works between containers that have the same host name.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

from common.once import once
from common.storage.processes import boot_id

_PREFIX = "cartwheel-scratch"
_own_folders: list[tuple[str, int]] = []
"""Parent folders, each with the id of the process that made it; a forked child inherits the list."""


def make_scratch(name: str) -> str:
    """Creates a private folder NAME-…, which is removed when the process ends."""
    return tempfile.mkdtemp(prefix=f"{name}-", dir=_process_folder(tempfile.gettempdir(), os.getpid()))


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[str]:
    """Yields a private folder NAME-…, which is removed at the end of the context."""
    folder = make_scratch(name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def hold_temporary_files(name: str) -> Iterator[None]:
    """Redirects Python's `tempfile` to a folder that is removed after the context.

    A signal could otherwise leave the temporary files of libraries behind.
    """
    before = tempfile.gettempdir()
    with scratch_folder(name) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def remove_scratch() -> None:
    """Removes all temporary folders of this process. Call it before an exit without Python's cleanup."""
    for folder, process in _own_folders:
        _remove_own(folder, process)


@once
def _process_folder(parent: str, process: int) -> str:
    """Creates a folder for a process. The result is cached per process id, so a forked child gets its own folder."""
    # another kernel may not know of the locks if the folder of temporary files is shared over a network
    prefix = f"{_PREFIX}-{boot_id()[:8]}-"
    _remove_abandoned(parent, prefix)
    new = tempfile.mkdtemp(prefix=f".{_PREFIX}-", dir=parent)  # a name that no process removes before it is locked
    with contextlib.suppress(OSError):  # a file system without locks: no other process can lock the folder either
        fcntl.flock(os.open(new, os.O_RDONLY), fcntl.LOCK_EX)
    folder = os.path.join(parent, prefix + os.path.basename(new).rpartition("-")[2])
    os.rename(new, folder)
    _own_folders.append((folder, process))
    atexit.register(_remove_own, folder, process)
    return folder


def _remove_own(folder: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: str, prefix: str) -> None:
    """Removes each folder PREFIX… in `parent` if the process that created it has ended."""
    for entry in os.listdir(parent):
        if entry.startswith(prefix):
            with contextlib.suppress(OSError):  # its process runs, or another process has just removed it
                _remove_if_unlocked(os.path.join(parent, entry))


def _remove_if_unlocked(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
