"""Kills a command of the trainer at a chosen point, as SIGKILL can hit it."""

import signal
import subprocess
from collections.abc import Sequence

from tests.warm_python import start_python

_LIMIT_SECONDS = 1800
_PROGRAM = """
import importlib, os, signal, sys
from trainer import cli

module, _, name = sys.argv[1].rpartition(".")
setattr(importlib.import_module(module), name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
sys.exit(cli.main(sys.argv[2:]))
"""


def start_command(arguments: Sequence[str]) -> subprocess.Popen:
    """Starts `cartwheel` with these arguments: a command of the trainer and its flags."""
    return _start(["-m", "trainer", *arguments])


def start_to_be_killed(function: str, arguments: Sequence[str]) -> subprocess.Popen:
    """Starts `cartwheel` with these arguments; SIGKILL ends it when it calls a function.

    Args:
      function: the module that calls the function, and the name of the function there.
      arguments: as for `start_command`.
    """
    return _start(["-c", _PROGRAM, function, *arguments])


def finish(process: subprocess.Popen, status: int) -> None:
    """Waits until a process ends, and checks its exit status."""
    log = process.communicate(timeout=_LIMIT_SECONDS)[1]
    assert process.returncode == status, log


def kill_in(function: str, arguments: Sequence[str]) -> None:
    """Runs a command until SIGKILL ends it; see `start_to_be_killed`."""
    finish(start_to_be_killed(function, arguments), -signal.SIGKILL)


def _start(arguments: Sequence[str]) -> subprocess.Popen:
    return start_python(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
