import logging
import os
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from common.cli import PREEMPTED
from trainer.distributed import watchdog
from trainer.distributed.watchdog import watching

HANG_SECONDS = 300
"""Time limit for waits that take milliseconds on an idle machine."""


class Clock:
    """A clock of the watchdog that only the test advances."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.reads = 0

    def monotonic(self) -> float:
        self.reads += 1
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Advances the clock and waits until the watchdog has read it twice, so that it has acted on the new time."""
        self.seconds += seconds
        expected, deadline = self.reads + 2, time.monotonic() + HANG_SECONDS
        while self.reads < expected:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def watchdog_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "watchdog"]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Collects the exit statuses instead of exiting."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    yield statuses
    for thread in watchdog_threads():  # one that outlived the fixture would end pytest
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()


def test_a_run_without_progress_exits_as_preempted(
    ended: list[int], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), watching(0.05, is_active=True) as running:
        running.progress()
        clock.advance(0.04)
        assert not ended
        clock.advance(0.02)
        assert set(ended) == {PREEMPTED}
    assert "step_timeout_seconds (now 0.05)" in caplog.text


def test_the_first_progress_may_take_five_times_as_long(ended: list[int], clock: Clock) -> None:
    with watching(0.05, is_active=True):
        clock.advance(0.24)
        assert not ended
        clock.advance(0.02)
        assert ended


def test_pings_before_the_first_step_restart_its_longer_limit(ended: list[int], clock: Clock) -> None:
    with watching(0.05, is_active=True) as running:
        for _ in range(3):
            clock.advance(0.24)
            running.ping()
        clock.advance(0.24)
        assert not ended
        clock.advance(0.02)
        assert ended


def test_a_run_with_progress_continues(ended: list[int], clock: Clock) -> None:
    with watching(0.05, is_active=True) as running:
        for _ in range(30):
            clock.advance(0.04)
            running.progress()
    assert not ended


@pytest.mark.usefixtures("ended")
def test_a_single_process_has_no_watchdog() -> None:
    with watching(0.01, is_active=False):
        assert not watchdog_threads()


def test_a_closed_watchdog_ends(ended: list[int]) -> None:
    with watching(10, is_active=True):
        (thread,) = watchdog_threads()
    thread.join(HANG_SECONDS)
    assert not thread.is_alive()
    assert not ended
