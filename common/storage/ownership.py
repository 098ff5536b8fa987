"""One owner per directory: the process that writes to it, shown by a record that its heartbeat keeps alive.

A record names its owner: host, process, pod, since when. The owner updates the record every `BEAT_SECONDS`. Another
process that wants the directory decides:

    the owner runs on this machine, and its last heartbeat is recent    refused at once
    it ran on this machine, in this PID namespace, and has ended        taken over at once
    it cannot be seen from here                                         refused at its next heartbeat; taken over if
                                                                        there is none for `STALE_SECONDS`

An owner that was suspended finds the record of its successor before it writes again, and stops.
"""

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import TypeVar

from common.storage import files
from common.storage.paths import join
from common.storage.processes import Process, current_process, is_running
from common.storage.retrying import call_with_retries
from common.storage.stores import Store, is_local, local_path, open_store

log = logging.getLogger(__name__)

Result = TypeVar("Result")

OWNER = "_owner.json"
"""Name of the record in a directory that exists while it is written to."""
BEAT_SECONDS = 10.0
"""Seconds between two heartbeats."""
STALE_SECONDS = 60.0
"""An owner without a heartbeat for this long has lost its directory to the next process that wants it."""
_LEAST_BEATS_WATCHED = 2
"""Heartbeats to wait for in any case, because the clock of the owner's machine may differ from this one's."""
# also counts while the machine is suspended
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class OwnershipError(OSError):
    """Another process owns the directory: it was there first, or it took over when this process was suspended."""


@dataclass(frozen=True)
class Owner:
    """The content of a record."""

    token: str
    """Unique; empty if the record is damaged."""
    process: Process | None
    """The owner; None if the record is damaged."""
    since: float
    """When it became the owner, in seconds since 1970."""
    beat: float
    """Its last heartbeat, in seconds since 1970; on a local disk, the time at which the record was modified."""

    def __str__(self) -> str:
        who = self.process or "an unknown process"
        since = datetime.fromtimestamp(self.since, UTC)
        return f"{who}, since {since:%Y-%m-%d %H:%M:%S} UTC, last heartbeat {time.time() - self.beat:.0f} s ago"


def own_directory(uri: str) -> contextlib.AbstractContextManager[None]:
    """Makes this process the owner of a directory that it writes to, such as a workdir, inside the context.

    A thread that already owns the directory keeps it. A new local directory that is still empty at the end is removed.

    Raises:
      OwnershipError: another process owns it.
    """
    return _own(uri, join(uri, OWNER))


def own_output(uri: str) -> contextlib.AbstractContextManager[None]:
    """Makes this process the owner of an output that is published as a whole; see `own_directory`.

    A local output must not exist, so its record is next to it.
    """
    if not is_local(uri):
        return own_directory(uri)
    parent, name = os.path.split(local_path(uri))
    return _own(uri, join(parent, f".{name}.owner.json"))


def check_ownership(uri: str, *, often: bool = False) -> None:
    """Checks that this process has not lost a directory, or one above it; does nothing if it never owned it.

    Args:
      uri: the directory that is about to be written to.
      often: called many times a second: a recent heartbeat is enough.

    Raises:
      OwnershipError: another process has taken over.
      OSError: the record cannot be read.
    """
    key = _key(uri)
    for ownership in list(_owned().values()):
        if f"{key}/".startswith(f"{ownership.key}/"):
            ownership.check_recent() if often else ownership.check()


class _Ownership:
    """A directory that this process owns."""

    def __init__(self, uri: str, record: str) -> None:
        self.key, self.thread = _key(uri), threading.get_ident()
        self._uri, self._record = uri, record
        self._owner = _acquire(uri, record)
        self._successor: Owner | None = None
        self._is_lost = False
        self._checked = time.clock_gettime(_CLOCK)
        self._lock = threading.Lock()
        self._is_released = threading.Event()
        threading.Thread(target=self._beat_until_released, name="heartbeat", daemon=True).start()

    def check(self, patience: float | None = None) -> None:
        """Reads the record and updates it; raises OwnershipError if it is another owner's."""
        with self._lock:
            self._raise_if_lost()
            self._checked = time.clock_gettime(_CLOCK)
            found = self._beat(patience)
            self._is_lost = found is None or found.token != self._owner.token
            self._successor = found
        self._raise_if_lost()

    def _beat(self, patience: float | None) -> Owner | None:
        """Updates the record if it is this process's; returns the record that was found."""
        found = _read(self._record, patience)
        if found is None or found.token != self._owner.token:
            return found
        if is_local(self._record):
            os.utime(local_path(self._record))  # needs no space, and cannot overwrite the record of a successor
        else:
            content = _encode(replace(self._owner, beat=time.time()))
            _call(self._record, lambda store: store.write(self._record, content), patience)
        return found

    def check_recent(self) -> None:
        """Like `check`, but reads the record only if the heartbeat has stopped, as after a suspension."""
        self._raise_if_lost()
        if time.clock_gettime(_CLOCK) - self._checked > STALE_SECONDS / 2 and not self._lock.locked():
            self.check()

    def release(self) -> None:
        """Removes the record, unless it is another owner's."""
        self._is_released.set()
        with self._lock:
            try:
                found = _read(self._record)
                if found is not None and found.token == self._owner.token:
                    files.remove(self._record)
            except OSError as error:  # another process waits until the heartbeat is stale
                _left_records().add(self._owner.token)
                log.warning("the record of this process as the owner of %s could not be removed: %s", self._uri, error)

    def _beat_until_released(self) -> None:
        has_failed = False
        while not self._is_released.wait(BEAT_SECONDS):
            try:
                self.check(patience=0.0)  # the next heartbeat is the retry
                has_failed = False
            except OwnershipError:
                return  # the main thread raises it at its next check
            except OSError as error:
                log.log(
                    logging.DEBUG if has_failed else logging.WARNING,
                    "the heartbeat of this process in %s failed: %s; retrying every %g s",
                    self._record,
                    error,
                    BEAT_SECONDS,
                )
                has_failed = True

    def _raise_if_lost(self) -> None:
        if not self._is_lost or self._is_released.is_set():
            return
        advice = "this process stops and writes nothing more"
        if self._successor is None:
            raise OwnershipError(f"{self._record} was removed, so {self._uri} may have another owner; {advice}")
        raise OwnershipError(
            f"{self._uri} was taken over by {self._successor}, because the heartbeat of this process had stopped for "
            f"more than {STALE_SECONDS:g} s (it was suspended, or the storage did not answer); {advice}. Let the other "
            "process finish"
        )


@contextmanager
def _own(uri: str, record: str) -> Iterator[None]:
    held = _owned().get(_key(uri))
    if held is not None and held.thread == threading.get_ident():
        yield
        return
    is_new = is_local(uri) and not os.path.exists(local_path(uri))
    ownership = _Ownership(uri, record)
    _owned()[ownership.key] = ownership
    try:
        yield
    finally:
        del _owned()[ownership.key]
        ownership.release()
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty, or an output that was never created
                os.rmdir(local_path(uri))


@cache
def _owned() -> dict[str, _Ownership]:
    """Returns the directories that this process owns."""
    return {}


@cache
def _left_records() -> set[str]:
    """Returns the tokens of records that this process no longer needs but could not remove."""
    return set()


def _key(uri: str) -> str:
    return os.path.realpath(local_path(uri)) if is_local(uri) else uri.rstrip("/")


def _acquire(uri: str, record: str) -> Owner:
    """Writes the record of this process, after that of an owner that has ended; raises OwnershipError otherwise."""
    now = time.time()
    owner = Owner(uuid.uuid4().hex, current_process(), now, now)
    while True:
        found = _read(record)
        if found is None:
            files.create(record, _encode(owner))
            found = _read(record)  # a store may have no conditional writes, or its answer may have been lost
            if found is not None and found.token == owner.token:
                return owner
        if found is not None and _has_ended(found, uri, record):
            _take(found, uri, record)


def _has_ended(found: Owner, uri: str, record: str) -> bool:
    """Returns whether an owner has ended; waits for a heartbeat if it cannot be seen from here.

    Raises:
      OwnershipError: the owner is alive.
    """
    runs = None if found.process is None else is_running(found.process)
    if runs is False or found.token in _left_records():
        return True
    age = time.time() - found.beat
    if runs and age < STALE_SECONDS:
        raise OwnershipError(_describe(uri, found))
    least = _LEAST_BEATS_WATCHED * BEAT_SECONDS
    seconds = min(max(STALE_SECONDS - age, least), STALE_SECONDS)
    log.warning("%s was in use by %s; waiting for a heartbeat for up to %.0f s", uri, found, seconds)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(BEAT_SECONDS / 10)
        now = _read(record)
        if now is None:
            return False  # it has ended by itself, so the caller tries again
        if now != found:
            raise OwnershipError(_describe(uri, now))
    return True


def _take(found: Owner, uri: str, record: str) -> None:
    """Removes the record of an owner that has ended, unless another process was faster."""
    if _read(record) == found:
        log.warning("taking over %s: %s has ended", uri, found)
        files.remove(record)


def _describe(uri: str, owner: Owner) -> str:
    return f"{uri} is in use by {owner}; wait until it ends, end it, or choose another directory"


def _read(record: str, patience: float | None = None) -> Owner | None:
    """Reads a record; None if there is none. Retries for `patience` seconds; None: as long as every operation."""
    try:
        content = _call(record, lambda store: store.read(record), patience)
        return _decode(content, os.stat(local_path(record)).st_mtime if is_local(record) else None)
    except FileNotFoundError:
        return None


def _encode(owner: Owner) -> bytes:
    return (json.dumps(asdict(owner), indent=2, allow_nan=False) + "\n").encode()


def _decode(content: bytes, modified: float | None) -> Owner:
    try:
        values = json.loads(content)
        beat = float(values["beat"]) if modified is None else modified
        return Owner(str(values["token"]), Process(**values["process"]), float(values["since"]), beat)
    except (ValueError, KeyError, TypeError):  # it is being written, or damaged
        moment = modified or 0.0
        return Owner("", None, moment, moment)


def _call(record: str, action: Callable[[Store], Result], patience: float | None) -> Result:
    store = open_store(record)
    if is_local(record):
        return action(store)
    return call_with_retries(lambda: action(store), "checking the owner in", record, patience)
