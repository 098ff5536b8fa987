"""Stops a command at Ctrl-C, SIGTERM or SIGHUP, so that it cleans up first."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import ClassVar, NoReturn

from common import storage
from common.cli import INTERRUPTED, TERMINATED

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a command. A terminal sends SIGHUP when it is closed."""
_RAISE_AGAIN_SECONDS = 0.05


class StopSignals:
    """Turns a signal into an exception in the main thread, so that `finally` and `with` clean up.

    Ctrl-C raises KeyboardInterrupt, SIGTERM and SIGHUP raise SystemExit. If Python drops the exception, as in
    `__del__`, it is raised again.
    """

    is_process_stopped: ClassVar[bool] = False
    """Whether a signal has stopped this process."""

    def __init__(self, status: int = TERMINATED) -> None:
        """Installs the handlers. `status` is the exit status after SIGTERM or SIGHUP."""
        self._status = status
        self.received: signal.Signals | None = None
        for number in (signal.SIGINT, *TERMINATION_SIGNALS):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` ignores SIGHUP, and `&` SIGINT
                signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._raise)
        self._report = sys.unraisablehook
        sys.unraisablehook = self._on_dropped

    @property
    def status(self) -> int:
        """Exit status of a command that a signal stopped."""
        return INTERRUPTED if self.received == signal.SIGINT else self._status

    def caused(self, error: BaseException) -> bool:
        """Returns True if a signal came before the error, or the error is a KeyboardInterrupt."""
        if isinstance(error, KeyboardInterrupt) and self.received is None:
            self.received = signal.SIGINT
        return self.received is not None

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        self.received = signal.Signals(number)
        self._raise(number, frame)

    def _raise(self, *_: object) -> NoReturn:
        StopSignals.is_process_stopped = True
        raise KeyboardInterrupt if self.received == signal.SIGINT else SystemExit(self._status)

    def _on_dropped(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Raises a signal's exception again soon after Python dropped it."""
        if self.received is not None and isinstance(dropped.exc_value, SystemExit | KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _RAISE_AGAIN_SECONDS)
        else:
            self._report(dropped)


def run_command(main: Callable[[], int]) -> NoReturn:
    """Runs a command and exits with its status, also after a signal."""
    try:
        status = main()
    except (KeyboardInterrupt, SystemExit) as stop:
        if not StopSignals.is_process_stopped:
            raise
        status = INTERRUPTED if isinstance(stop, KeyboardInterrupt) else int(stop.code or 0)
    exit_process(status)


def exit_process(status: int) -> NoReturn:
    """Exits with `status`.

    Skips Python's cleanup where it may crash: if tensorflow-io is loaded, or after a signal while threads run.
    """
    if not StopSignals.is_process_stopped and "tensorflow_io" not in sys.modules:
        sys.exit(status)
    try:
        storage.remove_scratch()
        for stream in filter(None, (sys.stdout, sys.stderr)):
            with contextlib.suppress(OSError, ValueError):  # a closed or broken stream
                stream.flush()
    finally:
        os._exit(status)


def describe_stop(stop: StopSignals, output: str | None, *, resumes: bool) -> str:
    """Returns one line about a stopped command and its output.

    Args:
      stop: the signals of the command.
      output: path or URI of the new output; None if the command publishes nothing.
      resumes: whether the same command resumes the work.
    """
    cause = "interrupted" if stop.received is None or stop.status == INTERRUPTED else f"stopped by {stop.received.name}"
    if output is not None and storage.was_published(output):
        return f"{cause}; {output} is complete"
    return f"{cause}; {'run the same command again to resume' if resumes else 'nothing was published'}"
