"""Compares the peak memory of training with the formula of `k8s/sizing.py`, which submit.py uses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from k8s.sizing import GIB, ModelSize, train_memory
from tests.integration.processes import train_arguments
from tests.trainer.dataset_builder import build_dataset, checkerboard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VISITORS, DIM = 400_000, 128
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


def formula_mib(dim: int) -> float:
    """Returns the MiB of memory that `submit.py` requests; the share of the items is negligible."""
    size = ModelSize(table_rows=VISITORS, ranked_rows=VISITORS, dim=dim)
    return train_memory(size, gpus=0, nodes=1) * GIB / 2**20


def test_training_holds_its_tables_some_rows_of_a_checkpoint_and_the_vectors_for_validation(tmp_path: Path) -> None:
    """At most 5% of a checkpoint waits to be written. All three validations reuse the memory of the vectors."""
    board = checkerboard() | {"visitors": [f"v{visitor}" for visitor in range(VISITORS)]}
    dataset = build_dataset(str(tmp_path / "dataset"), **board).root
    more = peak_mib(dataset, tmp_path / "wide", DIM) - peak_mib(dataset, tmp_path / "narrow", 1)
    # 127 more columns: 1.05 × 388 MiB of tables and 194 MiB of vectors
    expected = formula_mib(DIM) - formula_mib(1)
    assert expected == pytest.approx(601, abs=1)
    assert more == pytest.approx(expected, rel=0.1)
