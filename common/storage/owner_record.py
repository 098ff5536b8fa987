"""The record of a directory's owner. The record never changes; heartbeats show that the owner is alive.

_owner.json          the record
_owner.json.beat     the heartbeat in an object store; on a disk, the heartbeat is the record's modification time
_owner.json.TOKEN    the claim to remove the record that contains TOKEN; it names the only process that may do so
"""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

from common.json_files import encode_json
from common.once import once
from common.storage import files
from common.storage.limits import read_limits
from common.storage.paths import is_local, local_path
from common.storage.processes import Process, current_process, is_running
from common.storage.retrying import call_with_retries
from common.storage.store_protocol import Store
from common.storage.stores import open_store

Result = TypeVar("Result")

BEAT_SECONDS = 10.0
"""Seconds between two heartbeats."""
STALE_SECONDS = 60.0
"""Seconds without a heartbeat after which another process may take over the directory."""
LOOK_SECONDS = 1.0
"""Seconds between two looks at a record that is expected to change."""
_SHORT_PATIENCE_SECONDS = 5.0
"""How long an operation is retried if its failure does no harm. A shorter limit in `limits.py` takes precedence."""


@dataclass(frozen=True)
class Owner:
    """The content of an ownership record."""

    token: str
    """Unique id of the record; empty if the record is damaged."""
    process: Process | None
    """The process that owns the directory; None if the record is damaged."""
    since: str
    """Time at which the process became the owner, by its own clock."""
    replaced: tuple[str, ...] = ()
    """Ids (`Process.instance`) of earlier owners that lost the directory, oldest first."""

    def __str__(self) -> str:
        return (
            "a process with a damaged record" if self.process is None else f"{self.process} (owner since {self.since})"
        )


def create_record(record: str, owner: Owner) -> None:
    """Writes an ownership record unless one exists already. Read it afterwards to learn the owner."""
    files.create(record, encode_json(asdict(owner)))


def read_owner(record: str, patience: float | None = None) -> Owner | None:
    """Reads an ownership record; None if it is missing. `patience`: seconds of retries; None: see `limits.py`."""
    content = _read(record, patience)
    if content is None:
        return None
    try:
        values = json.loads(content)
        process = Process(**values["process"])
        return Owner(str(values["token"]), process, str(values["since"]), tuple(map(str, values["replaced"])))
    except (ValueError, KeyError, TypeError):  # it is being written, or damaged
        return Owner("", None, "")


def write_beat(record: str) -> None:
    """Writes a heartbeat for an ownership record. Never rewrites the record: it may already be another owner's."""
    if not is_local(record):
        path, content = _beat_path(record), f"{time.time():.6f}".encode()
        _call(path, lambda store: store.write(path, content), 0.0)
        return
    path = local_path(record)
    try:  # in place: changes the time also on file systems that ignore `utime`
        with open(path, "r+b") as file:
            file.write(b"{")
    except OSError:  # some file systems need space for that, and the disk may be full
        before = os.stat(path).st_mtime
        os.utime(path)
        if os.stat(path).st_mtime == before:
            raise


def read_beat(record: str) -> float | None:
    """Returns the time of the last heartbeat, in seconds since 1970; None without a heartbeat."""
    try:
        if is_local(record):
            # opened, because network file systems ask the server only then
            with open(local_path(record), "rb") as file:
                return os.fstat(file.fileno()).st_mtime
        return float(_read(_beat_path(record)) or b"")
    except (FileNotFoundError, ValueError):
        return None


def remove_record(record: str, token: str, patience: float | None = None) -> None:
    """Removes an ownership record if it has this token, unless another process is removing it.

    A process first creates a claim, a file that only one process can create. So no other process can replace the
    record between the check of the token and the removal.
    """
    claim, name = _claim_path(record, token), json.dumps(asdict(current_process()), allow_nan=False).encode()
    with _removal_lock():
        _call(claim, lambda store: store.create(claim, name), patience)
        if _read(claim, patience) != name:
            return
        owner = read_owner(record, patience)
        if owner is not None and owner.token == token:
            if not is_local(record):
                _call(record, lambda store: store.remove(_beat_path(record)), patience)
            _call(record, lambda store: store.remove(record), patience)
        _call(claim, lambda store: store.remove(claim), patience)


def await_removal(record: str, token: str) -> None:
    """Waits until no other process is removing the ownership record with this token.

    That process has a claim, see `remove_record`. Removes the claim if the process has ended, or after `STALE_SECONDS`.
    """
    claim, deadline = _claim_path(record, token), time.monotonic() + STALE_SECONDS
    while (content := _read(claim)) is not None:
        if time.monotonic() > deadline or _is_of_ended_process(content):
            files.remove(claim)
            return
        time.sleep(LOOK_SECONDS)


def short_patience() -> float:
    """Returns for how many seconds to retry operations that may fail without harm."""
    return min(_SHORT_PATIENCE_SECONDS, read_limits().patience_seconds)


@once
def _removal_lock() -> threading.Lock:
    """Returns a lock for `remove_record`: the lock excludes other threads, the claim excludes other processes."""
    return threading.Lock()


def _is_of_ended_process(claim: bytes) -> bool:
    try:
        return is_running(Process(**json.loads(claim))) is False
    except (ValueError, TypeError):  # it is being written
        return False


def _beat_path(record: str) -> str:
    return f"{record}.beat"


def _claim_path(record: str, token: str) -> str:
    return f"{record}.{token}"


def _read(path: str, patience: float | None = None) -> bytes | None:
    try:
        return _call(path, lambda store: store.read(path), patience)
    except FileNotFoundError:
        return None


def _call(path: str, action: Callable[[Store], Result], patience: float | None) -> Result:
    store = open_store(path)
    if is_local(path):
        return action(store)
    return call_with_retries(lambda: action(store), "checking the owner in", path, patience)
