"""Ends a worker whose run stands still: another worker that hangs, unlike one that died, is told by nothing else."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

STATUS = 75
"""Of a run that was preempted: started again together, the workers go on from the last checkpoint."""


_BEGINNING = 5
"""Times the limit until the first progress: what runs is compiled before."""


class Watchdog:
    """FeatureValues of every progress; ends the process when it was told of none for too long."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._allowed_seconds = _BEGINNING * limit_seconds
        self._since = time.monotonic()
        self._is_over = threading.Event()

    def progress(self) -> None:
        """The run goes on."""
        self._since = time.monotonic()
        self._allowed_seconds = self._limit_seconds

    def close(self) -> None:
        """Watches no longer."""
        self._is_over.set()

    def watch(self) -> None:
        """Returns once it is closed; never, if progress fails to come."""
        while not self._is_over.wait(self._limit_seconds / 10):
            seconds = time.monotonic() - self._since
            if seconds > self._allowed_seconds:
                log.error(
                    "nothing moved for %.0f s: a worker hangs, or step_timeout_seconds (now %g) is too short; "
                    "started again together, the workers go on from the last checkpoint",
                    seconds,
                    self._limit_seconds,
                )
                # the main thread waits in TensorFlow for what does not come: no exception reaches it
                os._exit(STATUS)


@contextmanager
def watching(limit_seconds: float, *, is_active: bool) -> Iterator[Watchdog]:
    """A watchdog while the context lasts; one that is not active ends nothing."""
    watchdog = Watchdog(limit_seconds)
    if is_active:
        threading.Thread(target=watchdog.watch, name="watchdog", daemon=True).start()
    try:
        yield watchdog
    finally:
        watchdog.close()
