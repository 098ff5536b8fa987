"""Owners of directories for tests: processes that own one, records, a clock."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import fsspec

from common.storage.processes import current_process

ROOT = Path(__file__).parents[3]
BEAT, LOOK, STALE = 0.1, 0.01, 0.8
"""Short times of heartbeats in seconds, for the fixture `fast`."""
OWN = f"""
import sys, time
from common import storage
from common.storage import owner_record
owner_record.BEAT_SECONDS, owner_record.LOOK_SECONDS, owner_record.STALE_SECONDS = {BEAT}, {LOOK}, {STALE}
with storage.own_directory(sys.argv[1]):
    print("owns", flush=True)
    sys.stdin.readline()
    storage.try_to_check_ownership(sys.argv[1])
    print("still owns", flush=True)
"""


@contextmanager
def running(code: str, *arguments: str, before: list[str] | None = None, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Starts a program that prints a line when it is ready and waits for a line."""
    process = subprocess.Popen(
        [*(before or []), sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=os.environ | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def in_thread(work: Callable[[], object]) -> None:
    """Calls `work` in another thread and raises its error here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (raised below)
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


def ended_process() -> dict[str, object]:
    """Returns the identity of a process that ran on this machine and has ended."""
    child = subprocess.Popen(["true"])
    child.wait()
    return asdict(current_process()) | {"id": child.pid, "instance": "ended"}


def names_in(folder: str) -> list[str]:
    """Returns the names of all files of a directory in the in-memory store, even of those that `list_files` hides."""
    return sorted(Path(name).name for name in fsspec.filesystem("memory").find(folder))


def other_owner(token: str = "other", replaced: Sequence[str] = (), **process: object) -> bytes:
    """Returns the owner record of a process on another machine; `process` replaces its values."""
    there = {
        "host": "elsewhere",
        "pod": "train-0-x7k2p",
        "id": 7,
        "boot": "other",
        "namespace": "pid:[1]",
        "start": "1",
        "instance": "other",
    }
    record = {"token": token, "process": there | process, "since": "2026-11-30 01:02:03 UTC", "replaced": replaced}
    return json.dumps(record).encode()


class Clock:
    """Replaces `time` in the module; sleeping takes no time."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until a condition holds; fails after ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def raise_error(error: Exception) -> None:
    raise error
