"""Becoming the owner of a directory, and taking it over from an owner that has ended.

A process that wants a directory looks at the directory's current owner:

    the owner runs on this machine, and its last heartbeat is recent    the process is refused at once
    the owner ran on this machine in this PID namespace, and has ended  the process takes over at once
    the process took over a parent directory from the same owner        the process takes over at once
    any other case, such as an owner in another container               the process waits: it is refused at the
                                                                        next heartbeat, or takes over after
                                                                        `STALE_SECONDS` without a heartbeat
"""

import logging
import time
import uuid
from collections.abc import Set
from datetime import UTC, datetime

from common.errors import InUseError
from common.storage import owner_record
from common.storage.owner_record import Owner, await_removal, create_record, read_beat, read_owner, remove_record
from common.storage.processes import current_process, is_running

log = logging.getLogger(__name__)

_MOST_CREATIONS = 60
"""How often creating a record is tried, every `LOOK_SECONDS`, before an error is raised."""


def acquire(uri: str, record: str, ended: Set[str]) -> Owner:
    """Makes this process the owner of a directory, and returns the new record.

    Removes the record of an earlier owner that has ended.

    Args:
      uri: the directory, for messages.
      record: path or URI of the directory's record.
      ended: tokens of records, and ids of processes (`Process.instance`), that no longer count as owners.

    Raises:
      InUseError: another process owns the directory.
      OSError: the record cannot be read after it was written.
    """
    here, replaced = current_process(), list[str]()
    token, since = uuid.uuid4().hex, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    for _ in range(_MOST_CREATIONS):
        found = read_owner(record)
        if found is None:
            owner = Owner(token, here, since, tuple(replaced))
            create_record(record, owner)
            found = read_owner(record)  # another process may have been faster
            if found == owner:
                return owner
        if found is not None and _has_ended(found, uri, record, ended):
            log.warning("taking over %s: %s has ended", uri, found)
            remove_record(record, found.token)
            await_removal(record, found.token)
            last = [found.process.instance] if found.process is not None and found.process != here else []
            replaced += [instance for instance in (*found.replaced, *last) if instance not in replaced]
        elif found is None:
            time.sleep(owner_record.LOOK_SECONDS)
    raise OSError(
        f"{record}, which names the owner of {uri}, could not be read after it was written; check the storage and its "
        "permissions"
    )


def _has_ended(found: Owner, uri: str, record: str, ended: Set[str]) -> bool:
    """Returns True if the owner `found` has ended, False if `record` was removed. Otherwise, raises InUseError."""
    runs = None if found.process is None else is_running(found.process)
    if runs is False or found.token in ended or (found.process is not None and found.process.instance in ended):
        return True
    beat = read_beat(record)
    if runs and beat is not None and abs(time.time() - beat) < owner_record.STALE_SECONDS:
        raise InUseError(_describe_use(uri, found, beat))
    log.warning(
        "%s was in use by %s; waiting up to %.0f s for a heartbeat, which shows whether that process still runs",
        uri,
        found,
        owner_record.STALE_SECONDS,
    )
    return _is_silent(found, beat, uri, record)


def _is_silent(found: Owner, beat: float | None, uri: str, record: str) -> bool:
    """Returns True after `STALE_SECONDS` without a heartbeat, by this process's clock.

    False if the record is removed. Raises InUseError after a heartbeat or a change of owner.
    """
    last, silent = time.monotonic(), 0.0
    while silent < owner_record.STALE_SECONDS:
        time.sleep(owner_record.LOOK_SECONDS)
        owner, newer = read_owner(record), read_beat(record)
        if owner is None:
            return False
        if (owner, newer) != (found, beat):
            raise InUseError(_describe_use(uri, owner, newer))
        now = time.monotonic()
        # if the storage was slower, it perhaps was for the owner, too
        silent += min(now - last, owner_record.BEAT_SECONDS)
        last = now
    return True


def _describe_use(uri: str, owner: Owner, beat: float | None) -> str:
    seen = "" if beat is None else f", last heartbeat {max(time.time() - beat, 0):.0f} s ago"
    return f"{uri} is in use by {owner}{seen}; wait until that process ends, end it, or choose another directory"
