"""An export holds its tables once: its peak beside that of the same run with hardly any columns."""

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
    """The checkerboard, in which few of the vocabulary's visitors do anything."""
    root, board = str(tmp_path_factory.mktemp("dataset")), checkerboard()
    board |= {"visitors": [f"v{visitor}" for visitor in range(VISITORS)], "validation": (), "test": ()}
    build_dataset(root, **board)
    return root


def peak_mib(dataset: str, folder: Path, dim: int) -> float:
    """The most memory that exporting a run of so many columns takes."""
    finish([start("mf", dataset, folder / "run", "model.history_length=0", f"model.dim={dim}", "epochs=1")])
    command = [sys.executable, "-c", EXPORT, str(folder / "run"), str(folder / "export")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout
    found = re.search(r"VmHWM:\s+(\d+) kB", printed)
    assert found is not None
    return int(found[1]) / 1024


def test_an_export_never_has_a_whole_table_twice_in_memory(dataset: str, tmp_path: Path) -> None:
    more = peak_mib(dataset, tmp_path / "wide", DIM) - peak_mib(dataset, tmp_path / "narrow", 1)
    # 195 MiB of visitors' vectors; twice as many if they were read as a whole before they become a variable
    assert 0.8 * TABLE_MIB < more < 1.5 * TABLE_MIB
