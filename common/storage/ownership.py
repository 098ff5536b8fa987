"""Ownership of directories, which lets only one process at a time write to a directory.

The owner writes a record with its host, process, pod and start of ownership. The record never changes. In addition, the
owner writes a heartbeat every `BEAT_SECONDS`. A second process that wants the directory looks at the owner:

    the owner runs on this machine, and its last heartbeat is recent    the second process is refused at once
    the owner ran on this machine in this PID namespace, and has ended  the second process takes over at once
    any other case, such as an owner in another container               the second process waits: the next heartbeat
                                                                        refuses it, and it takes over after
                                                                        `STALE_SECONDS` without a heartbeat

An owner that was suspended reads the record before it writes again. If it finds the record of a successor, it stops.

    _owner.json          the record
    _owner.json.beat     the heartbeat in an object store; on a disk, the heartbeat is the record's modification time
    _owner.json.TOKEN    the claim, which names the only process that may remove the record with this token
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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import TypeVar

from common.errors import InUseError, OwnershipError, OwnershipLostError
from common.storage import files
from common.storage.limits import read_limits
from common.storage.paths import join
from common.storage.processes import Process, current_process, is_running
from common.storage.retrying import call_with_retries
from common.storage.stores import OWNER, Store, is_local, local_path, open_store

log = logging.getLogger(__name__)

Result = TypeVar("Result")

BEAT_SECONDS = 10.0
"""Seconds between two heartbeats."""
STALE_SECONDS = 60.0
"""Seconds without a heartbeat after which another process may take over the directory."""
_LOOKS_AT_NO_RECORD = 5
"""How often a missing or damaged record is read again, every `BEAT_SECONDS` / 10, before the ownership is lost."""
_MOST_CREATIONS = 60
"""How often creating a record is tried, every `BEAT_SECONDS` / 10, before an error is raised."""
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

    def __str__(self) -> str:
        return "a process with a damaged record" if self.process is None else f"{self.process}, since {self.since}"


def own_directory(uri: str) -> contextlib.AbstractContextManager[None]:
    """Makes this process the owner of a directory, such as a workdir, inside the context.

    Does nothing if the calling thread already owns the directory. If a local directory did not exist before the context
    and is empty at its end, the directory is removed.

    Raises:
      InUseError: another process owns the directory.
      OwnershipLostError: the body of the context failed, and another process has taken over. After a
        success, the ownership is not checked; see `check_ownership`.
    """
    return _own(uri, join(uri, OWNER))


def own_output(uri: str) -> contextlib.AbstractContextManager[None]:
    """Makes this process the owner of an output that is published as a whole; see `own_directory`.

    The record of a local output is next to the output, because the output itself must not exist before publication.
    """
    if not is_local(uri):
        return own_directory(uri)
    parent, name = os.path.split(local_path(uri))
    return _own(uri, join(parent, f".{name}.owner.json"))


def check_ownership(uri: str, patience: float | None = None) -> None:
    """Checks that this process has not lost its ownership of a directory or of one of its parents.

    Call this function before a write that other processes rely on, such as a publication.

    Args:
      uri: the directory.
      patience: how long to retry if the storage does not answer, in seconds; None: the limit in `limits.py`.

    Raises:
      OwnershipLostError: another process has taken over.
      OSError: the storage does not answer, so the write that follows would fail, too.
    """
    for ownership in _ownerships_above(uri):
        ownership.check(patience)


def try_to_check_ownership(uri: str) -> None:
    """Like `check_ownership`, but does nothing if the storage does not answer.

    Call this function before a write that may fail without ending the job, such as a line of a log.

    Raises:
      OwnershipLostError: another process has taken over.
    """
    for ownership in _ownerships_above(uri):
        ownership.try_to_check()


def stop_if_lost(uri: str) -> None:
    """Raises OwnershipLostError if an earlier check or heartbeat found that a directory is lost. Reads no files.

    A directory is lost if this process no longer owns it.
    """
    for ownership in _ownerships_above(uri):
        ownership.stop_if_lost()


class _Ownership:
    """A directory that this process owns."""

    def __init__(self, uri: str, record: str) -> None:
        self.key, self.thread = _key(uri), threading.get_ident()
        # absolute, because the process may change its working directory
        self._uri, self._record = uri, local_path(record) if is_local(record) else record
        self._owner = _acquire(uri, record)
        self._is_lost = False
        self._successor: Owner | None = None
        self._is_released = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat_until_released, name="heartbeat", daemon=True)
        self._heartbeat.start()

    def check(self, patience: float | None = None) -> None:
        """Reads the record. Raises OwnershipLostError if the record names another owner, or stays missing or damaged.

        A missing or damaged record is read again several times, because a record may look like this for a moment while
        a store restarts or a directory is remounted.
        """
        self.stop_if_lost()
        found = _read_owner(self._record, patience)
        for _ in range(_LOOKS_AT_NO_RECORD):
            if found is not None and found.process is not None:
                break
            time.sleep(BEAT_SECONDS / 10)
            found = _read_owner(self._record, patience)
        if found != self._owner:
            self._successor, self._is_lost = found, True
        self.stop_if_lost()

    def try_to_check(self) -> None:
        """Like `check`, but does nothing if the storage does not answer."""
        try:
            self.check(_short_patience())
        except OwnershipError:
            raise
        except OSError as error:
            log.debug("the owner of %s could not be checked: %s", self._uri, error)

    def stop_if_lost(self) -> None:
        """Raises OwnershipLostError if an earlier check found that the ownership is lost. Reads no files."""
        if not self._is_lost:
            return
        advice = "this process stops and writes nothing more"
        if self._successor is None or self._successor.process is None:
            state = "was removed" if self._successor is None else "is damaged"
            raise OwnershipLostError(
                f"{self._record} {state}, so {self._uri} may have another owner; {advice}. "
                f"If another process uses {self._uri}, let it finish; otherwise, run the same command again"
            )
        raise OwnershipLostError(
            f"{self._uri} was taken over by {self._successor}, because the heartbeat of this process had stopped for "
            f"more than {STALE_SECONDS:g} s (it was suspended, or the storage did not answer); {advice}. Let the other "
            "process finish"
        )

    def release(self) -> None:
        """Stops the heartbeat. Removes the record unless the ownership is lost."""
        self._is_released.set()
        self._heartbeat.join(_short_patience())  # it would write its file again
        if self._is_lost:
            return
        try:
            _remove(self._record, self._owner.token, _short_patience())
        except OSError as error:  # another process waits until the heartbeat is stale
            _left_records().add(self._owner.token)
            log.warning("the record of this process as the owner of %s could not be removed: %s", self._uri, error)

    def _beat_until_released(self) -> None:
        has_failed = False
        while True:
            try:
                self.check(patience=0.0)  # the next heartbeat is the retry
                _beat(self._record)
                has_failed = False
            except OwnershipError:
                return  # the main thread raises it at its next check
            except Exception as error:  # noqa: BLE001 (whatever it is, the next heartbeat may succeed)
                if not has_failed:
                    log.warning(
                        "the heartbeat in %s failed: %s; retrying every %g s", self._record, error, BEAT_SECONDS
                    )
                has_failed = True
            if self._is_released.wait(BEAT_SECONDS):
                return


@contextmanager
def _own(uri: str, record: str) -> Iterator[None]:
    held = _owned().get(_key(uri))
    if held is not None and held.thread == threading.get_ident():
        yield
        return
    is_new = is_local(uri) and not os.path.exists(local_path(uri))
    try:
        ownership = _Ownership(uri, record)
    except BaseException:
        _remove_if(uri, is_new=is_new)
        raise
    _owned()[ownership.key] = ownership
    try:
        yield
    except OwnershipError:
        raise
    except Exception:
        ownership.try_to_check()  # a successor may be the cause: it removes unfinished files
        raise
    finally:
        if _owned().get(ownership.key) is ownership:  # otherwise, another thread is its successor
            del _owned()[ownership.key]
        ownership.release()
        _remove_if(uri, is_new=is_new)


def _remove_if(uri: str, *, is_new: bool) -> None:
    """Removes a local directory that this process created (`is_new`), if the directory is still empty."""
    if is_new:
        with contextlib.suppress(OSError):  # it is not empty, or an output that was never created
            os.rmdir(local_path(uri))


@cache
def _owned() -> dict[str, _Ownership]:
    """Returns the directories that this process owns, by path or URI."""
    return {}


@cache
def _left_records() -> set[str]:
    """Returns the tokens of records that this process no longer needs but could not remove."""
    return set()


@cache
def _removal_lock() -> threading.Lock:
    """Returns the lock that a thread holds while it removes a record.

    A claim excludes only other processes, because all threads of a process write the same claim.
    """
    return threading.Lock()


def _ownerships_above(uri: str) -> list[_Ownership]:
    """Returns this process's ownerships of a directory and of its parents."""
    key = _key(uri)
    return [ownership for ownership in list(_owned().values()) if f"{key}/".startswith(f"{ownership.key}/")]


@lru_cache(maxsize=1024)  # training asks at every step, and the file system may not answer
def _key(uri: str) -> str:
    return os.path.realpath(local_path(uri)) if is_local(uri) else uri.rstrip("/")


def _acquire(uri: str, record: str) -> Owner:
    """Writes the record of this process and returns its content. First removes the record of an owner that has ended.

    Raises:
      InUseError: another process owns the directory.
      OSError: the record cannot be read after it was written.
    """
    owner = Owner(uuid.uuid4().hex, current_process(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    for _ in range(_MOST_CREATIONS):
        found = _read_owner(record)
        if found is None:
            files.create(record, (json.dumps(asdict(owner), indent=2, allow_nan=False) + "\n").encode())
            found = _read_owner(record)  # another process may have been faster
            if found == owner:
                return owner
        if found is not None and _has_ended(found, uri, record):
            log.warning("taking over %s: %s has ended", uri, found)
            _remove(record, found.token)
            _await_removal(record, found.token)
        elif found is None:
            time.sleep(BEAT_SECONDS / 10)
    raise OSError(
        f"{record}, which names the owner of {uri}, could not be read after it was written; check the storage and its "
        "permissions"
    )


def _has_ended(found: Owner, uri: str, record: str) -> bool:
    """Returns True if an owner has ended. If this cannot be determined, waits for a heartbeat; see `_is_silent`.

    Raises:
      InUseError: the owner is alive.
    """
    runs = None if found.process is None else is_running(found.process)
    if runs is False or found.token in _left_records():
        return True
    beat = _read_beat(record)
    if runs and beat is not None and abs(time.time() - beat) < STALE_SECONDS:
        raise InUseError(_describe_use(uri, found, beat))
    log.warning("%s was in use by %s; waiting for a heartbeat for up to %.0f s", uri, found, STALE_SECONDS)
    return _is_silent(found, beat, uri, record)


def _is_silent(found: Owner, beat: float | None, uri: str, record: str) -> bool:
    """Returns True after `STALE_SECONDS` without a heartbeat, or False as soon as the owner's record is removed.

    The time is measured by this process's clock, because the clock of the owner's machine may differ.

    Raises:
      InUseError: the owner wrote a heartbeat, or another process became the owner.
    """
    last, silent = time.monotonic(), 0.0
    while silent < STALE_SECONDS:
        time.sleep(BEAT_SECONDS / 10)
        owner, newer = _read_owner(record), _read_beat(record)
        if owner is None:
            return False
        if (owner, newer) != (found, beat):
            raise InUseError(_describe_use(uri, owner, newer))
        now = time.monotonic()
        silent += min(now - last, BEAT_SECONDS)  # if the storage was slower, it perhaps was for the owner, too
        last = now
    return True


def _describe_use(uri: str, owner: Owner, beat: float | None) -> str:
    seen = "" if beat is None else f", last heartbeat {max(time.time() - beat, 0):.0f} s ago"
    return f"{uri} is in use by {owner}{seen}; wait until it ends, end it, or choose another directory"


def _remove(record: str, token: str, patience: float | None = None) -> None:
    """Removes a record if it has this token, unless another process is removing it.

    While the claim of this process exists, no other process removes the record. Therefore, no new owner can write its
    own record between the check of the token and the removal.
    """
    claim, name = _claim_path(record, token), json.dumps(asdict(current_process()), allow_nan=False).encode()
    with _removal_lock():
        _call(claim, lambda store: store.create(claim, name), patience)
        if _read(claim, patience) != name:
            return
        owner = _read_owner(record, patience)
        if owner is not None and owner.token == token:
            if not is_local(record):
                _call(record, lambda store: store.remove(_beat_path(record)), patience)
            _call(record, lambda store: store.remove(record), patience)
        _call(claim, lambda store: store.remove(claim), patience)


def _await_removal(record: str, token: str) -> None:
    """Waits until no process is removing the record with this token.

    Deletes the claim of a process that has ended, or any claim that still exists after `STALE_SECONDS`.
    """
    claim, deadline = _claim_path(record, token), time.monotonic() + STALE_SECONDS
    while (content := _read(claim)) is not None:
        if time.monotonic() > deadline or _is_of_ended_process(content):
            files.remove(claim)
            return
        time.sleep(BEAT_SECONDS / 10)


def _is_of_ended_process(claim: bytes) -> bool:
    try:
        return is_running(Process(**json.loads(claim))) is False
    except (ValueError, TypeError):  # it is being written
        return False


def _beat(record: str) -> None:
    """Writes a heartbeat."""
    if not is_local(record):
        path, content = _beat_path(record), f"{time.time():.6f}".encode()
        _call(path, lambda store: store.write(path, content), 0.0)
        return
    # in place: changes the time also on file systems that ignore `utime`, needs no space, and harms no other record
    with open(local_path(record), "r+b") as file:
        file.write(b"{")


def _read_beat(record: str) -> float | None:
    """Returns the time of the last heartbeat, in seconds since 1970. None: there is no heartbeat yet."""
    try:
        if is_local(record):
            # opened, because network file systems ask the server only then
            with open(local_path(record), "rb") as file:
                return os.fstat(file.fileno()).st_mtime
        return float(_read(_beat_path(record)) or b"")
    except (FileNotFoundError, ValueError):
        return None


def _beat_path(record: str) -> str:
    return f"{record}.beat"


def _claim_path(record: str, token: str) -> str:
    return f"{record}.{token}"


def _read_owner(record: str, patience: float | None = None) -> Owner | None:
    """Reads a record; returns None if it does not exist. Retries for `patience` seconds (None: see `limits.py`)."""
    content = _read(record, patience)
    if content is None:
        return None
    try:
        values = json.loads(content)
        return Owner(str(values["token"]), Process(**values["process"]), str(values["since"]))
    except (ValueError, KeyError, TypeError):  # it is being written, or damaged
        return Owner("", None, "")


def _short_patience() -> float:
    return min(_SHORT_PATIENCE_SECONDS, read_limits().patience_seconds)


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
