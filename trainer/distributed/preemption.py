"""Preemption: on SIGTERM or SIGHUP, a run finishes its current steps, saves a checkpoint and stops."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from common.cli import TERMINATED
from common.signals import TERMINATION_SIGNALS


class Preempted(Exception):  # noqa: N818 (not an error)
    """The run was interrupted; it resumes from its last checkpoint when it is started again."""


class StopRequest:
    """A flag that requests a run to stop."""

    def __init__(self) -> None:
        self.is_requested = False

    def request(self) -> None:
        """Requests that the run stop after its current steps."""
        self.is_requested = True


@contextmanager
def stop_on_signals(request: StopRequest | None) -> Iterator[StopRequest]:
    """Yields the stop request of a run: `request` or, if None, a new one.

    The first SIGTERM or SIGHUP sets the new request; the second one ends the process at once. If `request` is given, or
    outside the main thread, no signals are handled.
    """
    if request is not None or threading.current_thread() is not threading.main_thread():
        yield request or StopRequest()
        return
    new_request = StopRequest()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    # Python runs no handlers while the main thread is in TensorFlow; afterwards, it runs a handler only once, even for
    # several signals. Through the pipe, the thread receives every signal immediately
    threading.Thread(target=_read_signals, args=(read_end, new_request), name="signals", daemon=True).start()
    # ignored signals stay ignored, such as SIGHUP under `nohup`
    handlers = {number: signal.getsignal(number) for number in TERMINATION_SIGNALS}
    handled = [number for number, handler in handlers.items() if handler is not signal.SIG_IGN]
    for number in handled:
        signal.signal(number, _ignore)
    previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    try:
        yield new_request
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number in handled:
            signal.signal(number, handlers[number])
        os.close(write_end)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Does nothing; `_read_signals` handles the signal."""


def _read_signals(read_end: int, request: StopRequest) -> None:
    """Sets `request` at the first signal in the pipe; ends the process at the second."""
    while number := os.read(read_end, 1):
        if number[0] not in TERMINATION_SIGNALS:
            continue
        if request.is_requested:
            os._exit(TERMINATED)
        request.request()
    os.close(read_end)
