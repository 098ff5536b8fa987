"""Ownership of directories, which lets only one process at a time write to a directory.

The owner writes a record with its host, process, pod and start of ownership, and a heartbeat every `BEAT_SECONDS`; see
`owner_record.py`. `takeover.py` decides when another process may replace the owner. An owner that was suspended reads
the record before it writes again. If it finds the record of a successor, it stops.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from common.errors import OwnershipError, OwnershipLostError
from common.once import once
from common.storage import owner_record
from common.storage.owner_record import Owner, read_owner, remove_record, short_patience, write_beat
from common.storage.paths import OWNER, is_local, join, local_path
from common.storage.takeover import acquire

log = logging.getLogger(__name__)

_LOOKS_AT_NO_RECORD = 5
"""How often a missing or damaged record is read again, every `LOOK_SECONDS`, before the ownership is lost."""


def own_directory(uri: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which this process owns a directory.

    Does nothing if this thread is already in such a context. At its end, removes a local directory that this call has
    created, if the directory is still empty.

    Raises:
      InUseError: another process owns the directory.
      OwnershipLostError: the code in the context raised an error, and another process has taken over the directory;
        see `check_ownership`.
    """
    return _own(uri, join(uri, OWNER))


def own_output(uri: str) -> contextlib.AbstractContextManager[None]:
    """Like `own_directory`, for an output that is published whole. The record of a local output is next to it."""
    if not is_local(uri):
        return own_directory(uri)
    parent, name = os.path.split(local_path(uri))
    return _own(uri, join(parent, f".{name}.owner.json"))


def check_ownership(uri: str, patience: float | None = None) -> None:
    """Checks that this process still owns a directory; call it before publishing.

    Args:
      uri: the directory, or one below it.
      patience: seconds of retries if the storage does not answer; None: the limit in `limits.py`.

    Raises:
      OwnershipLostError: another process has taken over.
      OSError: the storage does not answer.
    """
    for ownership in _ownerships_above(uri):
        ownership.check(patience)


def try_to_check_ownership(uri: str) -> None:
    """Like `check_ownership`, but does nothing if the storage does not answer.

    Raises:
      OwnershipLostError: another process has taken over.
    """
    for ownership in _ownerships_above(uri):
        ownership.try_to_check()


def stop_if_lost(uri: str) -> None:
    """Raises OwnershipLostError if an earlier check or heartbeat found the ownership lost. Reads no files."""
    for ownership in _ownerships_above(uri):
        ownership.stop_if_lost()


class _Ownership:
    """A directory that this process owns."""

    def __init__(self, uri: str, record: str) -> None:
        self.key, self.thread = _key(uri), threading.get_ident()
        # absolute, because the process may change its working directory
        self._uri, self._record = uri, local_path(record) if is_local(record) else record
        above = [ownership.owner.replaced for ownership in _ownerships_above(uri)]
        self.owner: Owner = acquire(uri, record, _left_records().union(*above))
        self._is_lost = False
        self._successor: Owner | None = None
        self._is_released = threading.Event()
        self._heartbeat = threading.Thread(target=self._beat_until_released, name="heartbeat", daemon=True)
        self._heartbeat.start()

    def check(self, patience: float | None = None) -> None:
        """Raises OwnershipLostError if the directory's record names another owner, or stays missing or damaged.

        Reads a missing or damaged record several times: it can be missing for a moment while the storage restarts.
        """
        self.stop_if_lost()
        found = read_owner(self._record, patience)
        for _ in range(_LOOKS_AT_NO_RECORD):
            if found is not None and found.process is not None:
                break
            time.sleep(owner_record.LOOK_SECONDS)
            found = read_owner(self._record, patience)
        if found != self.owner:
            self._successor, self._is_lost = found, True
        self.stop_if_lost()

    def try_to_check(self) -> None:
        """Like `check`, but does nothing if the storage does not answer."""
        try:
            self.check(short_patience())
        except OwnershipError:
            raise
        except OSError as error:
            log.debug("the owner of %s could not be checked: %s", self._uri, error)

    def stop_if_lost(self) -> None:
        """Raises OwnershipLostError if an earlier check found the ownership lost. Reads no files."""
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
            f"more than {owner_record.STALE_SECONDS:g} s (it was suspended, or the storage did not answer); {advice}. "
            "Let the other process finish"
        )

    def release(self) -> None:
        """Stops the heartbeat. Removes the record unless the ownership is lost."""
        self._is_released.set()
        self._heartbeat.join(short_patience())  # it would write its file again
        if self._is_lost:
            return
        try:
            remove_record(self._record, self.owner.token, short_patience())
        except OSError as error:  # another process waits until the heartbeat is stale
            _left_records().add(self.owner.token)
            log.warning(
                "could not remove %s, the owner record of %s: %s. You need not do anything: the next command waits up "
                "to %g s, then takes over",
                self._record,
                self._uri,
                error,
                owner_record.STALE_SECONDS,
            )

    def _beat_until_released(self) -> None:
        has_failed = False
        while True:
            try:
                self.check(patience=0.0)  # the next heartbeat is the retry
                write_beat(self._record)
                has_failed = False
            except OwnershipError:
                return  # the main thread raises it at its next check
            except Exception as error:  # noqa: BLE001 (whatever it is, the next heartbeat may succeed)
                if not has_failed:
                    seconds = owner_record.BEAT_SECONDS
                    log.warning("the heartbeat in %s failed: %s; retrying every %g s", self._record, error, seconds)
                has_failed = True
            if self._is_released.wait(owner_record.BEAT_SECONDS):
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
    """Removes a local directory if it is new and still empty."""
    if is_new:
        with contextlib.suppress(OSError):  # it is not empty, or an output that was never created
            os.rmdir(local_path(uri))


@once
def _owned() -> dict[str, _Ownership]:
    """Returns the directories that this process owns, by path or URI."""
    return {}


@once
def _left_records() -> set[str]:
    """Returns the tokens of ownership records that this process no longer needs but could not remove."""
    return set()


def _ownerships_above(uri: str) -> list[_Ownership]:
    """Returns this process's ownerships of a directory and of its parents."""
    key = _key(uri)
    return [ownership for ownership in list(_owned().values()) if f"{key}/".startswith(f"{ownership.key}/")]


@lru_cache(maxsize=1024)  # training asks at every step, and the file system may not answer
def _key(uri: str) -> str:
    return os.path.realpath(local_path(uri)) if is_local(uri) else uri.rstrip("/")
