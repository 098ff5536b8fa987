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
OWNED_MIB = 3 * VECTORS_MIB
"""Size of the visitors' vectors, of Adagrad's accumulators and of the vectors for validation, 586 MiB. The share of the
items is negligible."""
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


def test_training_holds_its_tables_and_the_vectors_for_validation_and_a_tenth_more_at_most(tmp_path: Path) -> None:
    """Checkpoints are read while they are written. All three validations reuse the memory of the vectors."""
    board = checkerboard() | {"visitors": [f"v{visitor}" for visitor in range(VISITORS)]}
    dataset = build_dataset(str(tmp_path / "dataset"), **board).root
    more = peak_mib(dataset, tmp_path / "wide", DIM) - peak_mib(dataset, tmp_path / "narrow", 1)
    assert OWNED_MIB < more < 1.1 * OWNED_MIB, more
