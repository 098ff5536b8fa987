import logging
import os
import time

import pytest

from common.cli import PREEMPTED
from trainer.distributed.watchdog import watching


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collects the exit statuses instead of exiting."""
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    return statuses


def test_a_run_without_progress_exits_as_preempted(ended: list[int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), watching(0.05, is_active=True):
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
    assert set(ended) == {PREEMPTED}
    assert "step_timeout_seconds (now 0.05)" in caplog.text


def test_a_run_with_progress_continues(ended: list[int]) -> None:
    with watching(2, is_active=True) as watchdog:
        for _ in range(30):
            time.sleep(0.1)
            watchdog.progress()
    assert not ended


def test_a_single_process_and_a_closed_watchdog_never_exit(ended: list[int]) -> None:
    with watching(0.01, is_active=False):
        time.sleep(0.1)
    with watching(0.2, is_active=True):
        pass
    time.sleep(0.4)
    assert not ended
