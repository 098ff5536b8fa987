"""Compares the peak memory of training with the formula in docs/operations.md."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.processes import train_arguments
from tests.trainer.dataset_builder import build_dataset, checkerboard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VISITORS, DIM = 400_000, 128
VECTORS_MIB = VISITORS * DIM * 4 / 2**20
TABLES_MIB = 2 * VECTORS_MIB
"""Size of the visitors' vectors and Adagrad accumulators, 390 MiB. The share of the items is negligible."""
SETTINGS = ("model.history_length=0", "epochs=3", "blend=false", "patience=none", "input.batch_size=64")

TRAIN = """
import sys
from trainer import cli
status = cli.main(sys.argv[1:])
print(open("/proc/self/status").read())
sys.exit(status)
"""


def peak_mib(dataset: str, workdir: Path, dim: int) -> float:
    """Returns the peak memory in MiB of a run with `dim` columns."""
    arguments = train_arguments("mf", dataset, workdir, (*SETTINGS, f"model.dim={dim}"))
    command = [sys.executable, "-c", TRAIN, *arguments]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=1200).stdout
    found = re.search(r"VmHWM:\s+(\d+) kB", printed)
    assert found is not None
    return int(found[1]) / 1024


def test_training_holds_its_tables_some_rows_of_a_checkpoint_and_the_vectors_for_validation(tmp_path: Path) -> None:
    """At most 5% of a checkpoint waits to be written. All three validations reuse the memory of the vectors."""
    board = checkerboard() | {"visitors": [f"v{visitor}" for visitor in range(VISITORS)]}
    dataset = build_dataset(str(tmp_path / "dataset"), **board).root
    more = peak_mib(dataset, tmp_path / "wide", DIM) - peak_mib(dataset, tmp_path / "narrow", 1)
    assert more == pytest.approx(1.05 * TABLES_MIB + VECTORS_MIB, rel=0.1)
