"""Exits a worker that makes no progress, such as one that waits for a hung worker; nothing else detects this."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from common.cli import PREEMPTED

log = logging.getLogger(__name__)

_FIRST_LIMIT_FACTOR = 5
"""Multiplies the limit until the first call of `progress`, because the first steps are compiled and take longer."""


class Watchdog:
    """Exits the process with the status of a preemption unless `progress` or `ping` is called in time.

    The limit is `limit_seconds`; before the first call of `progress`, it is `_FIRST_LIMIT_FACTOR` times as long.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._current_limit_seconds = _FIRST_LIMIT_FACTOR * limit_seconds
        self._last_progress = time.monotonic()
        self._is_closed = threading.Event()

    def progress(self) -> None:
        """Restarts the timer, and sets the limit to `limit_seconds`."""
        self._last_progress = time.monotonic()
        self._current_limit_seconds = self._limit_seconds

    def ping(self) -> None:
        """Restarts the timer, and keeps the current limit."""
        self._last_progress = time.monotonic()

    def close(self) -> None:
        """Makes `watch` return."""
        self._is_closed.set()

    def watch(self) -> None:
        """Checks the timer until `close` is called."""
        while not self._is_closed.wait(self._limit_seconds / 10):
            seconds = time.monotonic() - self._last_progress
            if seconds > self._current_limit_seconds:
                log.error(
                    "no progress for %.0f s: a worker hangs, or step_timeout_seconds (now %g) is too short; "
                    "start all workers again to resume from the last checkpoint",
                    seconds,
                    self._limit_seconds,
                )
                # the main thread is blocked in TensorFlow, where no exception reaches it
                os._exit(PREEMPTED)


@contextmanager
def watching(limit_seconds: float, *, is_active: bool) -> Iterator[Watchdog]:
    """Yields a watchdog that runs during the context, or does nothing if `is_active` is False."""
    watchdog = Watchdog(limit_seconds)
    if is_active:
        threading.Thread(target=watchdog.watch, name="watchdog", daemon=True).start()
    try:
        yield watchdog
    finally:
        watchdog.close()
