"""Starts Python programs in which TensorFlow is already imported, because the import takes six seconds of CPU time.

The first program of a test process starts a server: a Python process that has imported the packages and nothing else.
For each program the server forks a process, which takes its arguments, variables, directory and standard streams from
the request. The process becomes a child of the test process, so that signals and exit statuses are real.
"""

import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "trainer": ("tensorflow", "trainer.cli", "trainer.train", "trainer.pages.report", "trainer.workflows.auto"),
    "preprocessing": ("tensorflow", "preprocessing.cli", "preprocessing.pipeline", "preprocessing.pages.report"),
}
"""Modules that a server imports, by the package of its programs."""
_READ_AT_START = ("PYTHON", "LD_", "TF_CPP", "TF_ENABLE", "TF_XLA", "XLA_", "CUDA_", "OMP_")
"""Prefixes of environment variables that are read only during the imports, so a forked process would ignore them."""
_PR_SET_CHILD_SUBREAPER = 36


def start_python(
    arguments: Sequence[str], *, package: str = "trainer", env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen:
    """Starts a program like `subprocess.Popen([sys.executable, *arguments], …)`.

    Args:
      arguments: `-m MODULE …` or `-c CODE …`.
      package: key of `PACKAGES`.
      env: variables of the process; None: those of this process.
      options: cwd, start_new_session and streams, as for Popen.
    """
    variables = dict(os.environ if env is None else env)
    if sys.platform != "linux" or _variables_at_start(variables) != _variables_at_start(dict(os.environ)):
        return subprocess.Popen([sys.executable, *arguments], env=variables, **options)
    return _ForkedProcess(_server(package), [sys.executable, *arguments], variables, **options)


def _variables_at_start(variables: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(_READ_AT_START)}


class _ForkedProcess(subprocess.Popen):
    """A process that a server forked."""

    def __init__(self, server: socket.socket, command: list[str], variables: dict[str, str], **options: Any) -> None:
        self._server = server
        super().__init__(command, env=variables, **options)

    def _execute_child(self, command: list[str], *options: Any) -> None:
        """Sends the request; replaces the private method of Popen that starts a program (of Python 3.11)."""
        cwd, variables, pipes, start_new_session = options[4], options[5], options[9:15], options[-2]
        request = {
            "arguments": command[1:],
            "cwd": os.path.abspath(cwd or os.getcwd()),
            "variables": variables,
            "start_new_session": start_new_session,
        }
        ends = (pipes[0], pipes[3], pipes[5])  # of the new process, -1 for the stream of this process
        streams = [number if end == -1 else end for number, end in enumerate(ends)]
        try:
            socket.send_fds(self._server, [json.dumps(request).encode()], streams)
            answer = self._server.recv(64)
        finally:
            self._close_pipe_fds(*pipes)
        if not answer:
            raise OSError("the server of warm Python processes has ended; see its standard error")
        self.pid = int(answer)
        self._child_created = True


@functools.cache
def _server(package: str) -> socket.socket:
    """Starts the server of a package and returns the connection to it; the server ends with this process."""
    # an orphan becomes a child of this process: it can wait for processes that the server forked
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        command = [sys.executable, "-m", "tests.warm_python", str(there.fileno()), *PACKAGES[package]]
        _server_processes.append(subprocess.Popen(command, cwd=ROOT, pass_fds=[there.fileno()]))
    return here


_server_processes: list[subprocess.Popen] = []
"""Kept, because a deleted Popen warns that its process is still running."""


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Forks a process for each request and answers with its id. Only the forked process returns: its request."""
    while True:
        message, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            sys.exit()
        reader, writer = os.pipe()
        if between := os.fork():
            os.close(writer)
            with open(reader, "rb") as answer:
                os.waitpid(between, 0)
                connection.send(answer.read())
            for stream in streams:
                os.close(stream)
        elif process := os.fork():
            os.write(writer, str(process).encode())
            os._exit(0)
        else:
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            for number in (reader, writer, connection.detach(), *streams):
                os.close(number)
            return json.loads(message)


def _run(request: dict[str, Any]) -> None:
    """Runs the requested program as `__main__` of this process."""
    if request["start_new_session"]:
        os.setsid()
    os.environ.clear()
    os.environ.update(request["variables"])
    os.chdir(request["cwd"])
    kind, program, *arguments = request["arguments"]
    sys.argv = [kind, *arguments]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.freeze()  # the collector of each process would copy all pages
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
