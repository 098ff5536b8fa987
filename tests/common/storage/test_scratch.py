"""Tests that temporary folders are removed when their process has ended, and not earlier."""

import os
from pathlib import Path

import pytest

from common import storage
from tests.common.storage.owners import (
    first_line,
    running,
)

SCRATCH = """
import sys
from common import storage
print(storage.make_scratch("cache"), flush=True)
sys.stdin.readline()
"""


def test_the_scratch_folder_of_another_pid_namespace_is_kept(tmp_path: Path, namespace: list[str]) -> None:
    temporary = {"TMPDIR": str(tmp_path)}
    with running(SCRATCH, before=namespace, **temporary) as first, running(SCRATCH, **temporary) as killed:
        mine, left = Path(first_line(first)), Path(first_line(killed))
        killed.kill()
        killed.wait()
        with running(SCRATCH, **temporary) as second:
            assert Path(first_line(second)).is_dir()
            assert (mine.is_dir(), left.exists()) == (True, False)
            second.communicate("\n")
        first.communicate("\n")
    assert os.listdir(tmp_path) == [], "a process that ends removes its folders"


def test_a_scratch_folder_is_removed_at_its_end_even_after_an_error() -> None:
    with pytest.raises(ValueError, match="stopped"), storage.scratch_folder("export") as folder:
        Path(folder, "variables").write_bytes(b"1")
        raise ValueError("stopped")
    assert not Path(folder).exists()
