"""Stops a command at Ctrl-C, SIGTERM or SIGHUP, so that it cleans up first."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from common import storage
from common.cli import INTERRUPTED, TERMINATED

TERMINATION_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a command. A terminal sends SIGHUP when it is closed."""
_RAISE_AGAIN_SECONDS = 0.05


class StopSignals:
    """Turns a signal into an exception in the main thread, so that context managers and `finally` blocks clean up.

    The exception is KeyboardInterrupt for Ctrl-C and otherwise SystemExit. Without handlers, the first process of a
    container would ignore SIGTERM and be killed half a minute later.

    Python drops an exception that is raised in a `__del__` or in a callback of a weak reference; this class raises it
    again. A library may replace the exception with an error of its own. `caused` returns True for such an error.
    """

    def __init__(self, status: int = TERMINATED) -> None:
        """Installs the handlers.

        Args:
          status: exit status after SIGTERM or SIGHUP.
        """
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
        """Returns True if a signal came before the error.

        A KeyboardInterrupt counts as a signal, because tools may raise KeyboardInterrupt without a signal.
        """
        if isinstance(error, KeyboardInterrupt) and self.received is None:
            self.received = signal.SIGINT
        return self.received is not None

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        self.received = signal.Signals(number)
        self._raise(number, frame)

    def _raise(self, *_: object) -> NoReturn:
        raise KeyboardInterrupt if self.received == signal.SIGINT else SystemExit(self._status)

    def _on_dropped(self, dropped: "sys.UnraisableHookArgs") -> None:
        """Raises a signal's exception again, a moment after Python dropped it. Reports other exceptions as usual."""
        if self.received is not None and isinstance(dropped.exc_value, SystemExit | KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, _RAISE_AGAIN_SECONDS)
        else:
            self._report(dropped)


def exit_process(status: int) -> NoReturn:
    """Exits with `status`.

    Skips Python's cleanup if the cleanup may crash (status 134): after a signal, because threads of TensorFlow may
    still run, and if tensorflow-io is loaded.
    """
    if status in (INTERRUPTED, TERMINATED) or "tensorflow_io" in sys.modules:
        storage.remove_scratch()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def describe_stop(stop: StopSignals, output: str | None, *, resumes: bool) -> str:
    """Describes in one line that a signal stopped a command, and whether the command's output is complete.

    Args:
      stop: the signals of the command.
      output: path or URI of the new output; None if the command publishes nothing.
      resumes: whether the same command, run again, resumes the work.
    """
    cause = "interrupted" if stop.received is None or stop.status == INTERRUPTED else f"stopped by {stop.received.name}"
    if output is not None and _is_complete(output):
        return f"{cause}; {output} is complete"
    return f"{cause}; {'run the same command again to resume' if resumes else 'nothing was published'}"


def _is_complete(output: str) -> bool:
    try:
        storage.refuse_existing(output)
    except FileExistsError:
        return True
    except OSError:
        return False
    return False
