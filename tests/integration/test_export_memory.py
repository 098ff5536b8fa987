"""Tests that an export has one copy of its tables in memory, by comparing peaks for many and few columns."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.processes import finish, start
from tests.trainer.dataset_builder import build_dataset, checkerboard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VISITORS, DIM = 400_000, 128
TABLE_MIB = VISITORS * DIM * 4 / 2**20

EXPORT = """
import sys
from trainer.export import export
export(workdir=sys.argv[1], output=sys.argv[2])
print(open("/proc/self/status").read())
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkerboard with a large vocabulary of visitors, of whom few have events."""
    root, board = str(tmp_path_factory.mktemp("dataset")), checkerboard()
    board |= {"visitors": [f"v{visitor}" for visitor in range(VISITORS)], "validation": (), "test": ()}
    build_dataset(root, **board)
    return root


def peak_mib(dataset: str, folder: Path, dim: int) -> float:
    """Returns the peak memory in MiB of exporting a run with `dim` columns."""
    finish([start("mf", dataset, folder / "run", "model.history_length=0", f"model.dim={dim}", "epochs=1")])
    command = [sys.executable, "-c", EXPORT, str(folder / "run"), str(folder / "export")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=1200).stdout
    found = re.search(r"VmHWM:\s+(\d+) kB", printed)
    assert found is not None
    return int(found[1]) / 1024


def test_an_export_never_holds_a_table_twice(dataset: str, tmp_path: Path) -> None:
    more = peak_mib(dataset, tmp_path / "wide", DIM) - peak_mib(dataset, tmp_path / "narrow", 1)
    # 195 MiB of visitor vectors; reading them whole before creating the variable would need twice as much
    assert 0.8 * TABLE_MIB < more < 1.5 * TABLE_MIB
