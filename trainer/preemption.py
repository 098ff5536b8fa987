"""Stopping in time: SIGTERM asks a run to finish its step and save."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Preempted(Exception):  # noqa: N818 (a way to end, not an error)
    """The run ends before its end by no fault of its own, and goes on from what it saved when it is started again."""


class StopRequest:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.is_made = False

    def make(self) -> None:
        """Asks the run to stop after its present steps."""
        self.is_made = True


@contextmanager
def stop_on_sigterm(request: StopRequest | None) -> Iterator[StopRequest]:
    """The request given, or one that the first SIGTERM makes; the second ends the process at once.

    Outside the main thread, where Python delivers no signals, none is made.
    """
    if request is not None or threading.current_thread() is not threading.main_thread():
        yield request or StopRequest()
        return
    made = StopRequest()

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature of a handler)
        # nothing is logged here: the signal may have come in the middle of a line of the log
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        made.make()

    previous = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield made
    finally:
        signal.signal(signal.SIGTERM, previous)
