"""Stopping in time: SIGTERM asks a run to finish its step and save."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED_AT_ONCE = 128 + signal.SIGTERM
"""Exit status after a second SIGTERM, as a shell tells of a process that the signal ended."""


class Preempted(Exception):  # noqa: N818 (a way to end, not an error)
    """The run ends before its end by no fault of its own, and goes on from what it saved when it is started again."""


class StopRequest:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.is_requested = False

    def request(self) -> None:
        """Asks the run to stop after its present steps."""
        self.is_requested = True


@contextmanager
def stop_on_sigterm(request: StopRequest | None) -> Iterator[StopRequest]:
    """The request given, or one that the first SIGTERM makes; the second ends the process at once.

    Outside the main thread, where Python delivers no signals, none is made.
    """
    if request is not None or threading.current_thread() is not threading.main_thread():
        yield request or StopRequest()
        return
    made = StopRequest()
    arrived, told = os.pipe()
    os.set_blocking(told, False)
    # a handler of Python's runs between two of the main thread's own instructions, and so once for all the signals
    # that come while it is in TensorFlow; what is written to the pipe reaches the thread at once, signal by signal
    threading.Thread(target=_count_signals, args=(arrived, made), name="sigterm", daemon=True).start()
    previous = signal.signal(signal.SIGTERM, _leave_it_to_the_thread)
    before = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    try:
        yield made
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, previous)
        os.close(told)


def _leave_it_to_the_thread(number: int, frame: FrameType | None) -> None:
    """Stands where the default would end the process."""


def _count_signals(arrived: int, request: StopRequest) -> None:
    """Reads the numbers of the signals that arrive, until the other end is closed."""
    while number := os.read(arrived, 1):
        if number[0] != signal.SIGTERM:
            continue
        if request.is_requested:
            os._exit(STOPPED_AT_ONCE)
        request.request()
    os.close(arrived)
