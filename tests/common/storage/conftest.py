"""Fixtures of tests about owners of directories."""

import os
import shutil
import subprocess

import pytest

from common.storage import owner_record
from tests.common.storage.owners import BEAT, LOOK, STALE

NAMESPACE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.getuid():
    NAMESPACE[1:1] = ["--user", "--map-root-user"]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the times of heartbeats."""
    monkeypatch.setattr(owner_record, "BEAT_SECONDS", BEAT)
    monkeypatch.setattr(owner_record, "LOOK_SECONDS", LOOK)
    monkeypatch.setattr(owner_record, "STALE_SECONDS", STALE)


@pytest.fixture
def namespace() -> list[str]:
    """Returns the first words of a command that runs in a new PID namespace."""
    if not shutil.which("unshare") or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow new PID namespaces (`unshare --pid` fails)")
    return NAMESPACE
