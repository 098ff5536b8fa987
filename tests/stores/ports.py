"""Reserves local ports, and waits for servers on them."""

import fcntl
import random
import socket
import tempfile
import time
from pathlib import Path
from typing import IO

_PORTS = range(20_000, 32_768)
"""Ports below those that Linux gives to clients. Otherwise, a client could take a port before its server starts."""
_locks: list[IO[str]] = []
"""Open files that reserve the ports of this process until it ends, so that no other test process uses them."""


def free_port() -> int:
    """Returns a port of 127.0.0.1 on which nothing listens, reserved for this process."""
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        lock = open(Path(tempfile.gettempdir(), f"cartwheel-port-{port}.lock"), "w")  # noqa: SIM115 (stays open)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as free:
                free.bind(("127.0.0.1", port))
        except OSError:  # reserved or in use
            lock.close()
            continue
        _locks.append(lock)
        return port
    raise OSError("no port is free")


def wait_for_port(port: int, limit_seconds: float = 600) -> None:
    """Waits until something listens on a port of 127.0.0.1."""
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.2)
