"""Tests that a process knows which other processes run."""

import os
from dataclasses import asdict

import pytest

from common.storage import processes
from common.storage.processes import current_process, is_running
from tests.common.storage.owners import raise_error


@pytest.mark.parametrize(
    ("of_proc", "of_kill", "expected"),
    [
        (FileNotFoundError(), None, None),  # hidepid=2 hides the processes of other users
        (PermissionError(), PermissionError(), None),
        (FileNotFoundError(), PermissionError(), None),
        (FileNotFoundError(), ProcessLookupError(), False),
    ],
    ids=["hidden", "unreadable", "hidden-of-another-user", "ended"],
)
def test_a_hidden_process_is_not_taken_for_one_that_has_ended(
    of_proc: OSError, of_kill: OSError | None, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = current_process()
    other = processes.Process(**asdict(here) | {"id": 1 << 21, "instance": "other"})
    read = processes._read_stat
    monkeypatch.setattr(
        processes, "_read_stat", lambda process: raise_error(of_proc) if process == other.id else read(process)
    )
    monkeypatch.setattr(os, "kill", lambda *_: raise_error(of_kill) if of_kill else None)
    assert (is_running(here), is_running(other)) == (True, expected)
