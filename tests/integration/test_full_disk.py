"""A disk that fills up while a run trains on it, and is emptied again."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.processes import LONG, assert_same, finish, start, train_alone, wait_for
from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer.runs.layout import RunLayout

pytestmark = [pytest.mark.integration, pytest.mark.slow]

VISITORS = 20_000
SETTINGS = [*LONG, "epochs=60", "model.history_length=0", "model.dim=16"]
"""A checkpoint of 2 × 20,001 × 16 × 4 bytes and a few, of which a run holds three and writes a fourth."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "cartwheel", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Takes all that is free on a disk; the file that does."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 12))
    return ballast


def test_a_run_goes_on_while_the_disk_is_full_and_ends_as_if_it_never_had_been(disk: Path, tmp_path: Path) -> None:
    dataset, board = str(tmp_path / "dataset"), checkerboard()
    board |= {"visitors": [f"v{visitor}" for visitor in range(VISITORS)]}
    build_dataset(dataset, **board)
    train_alone("mf", dataset, tmp_path / "whole", *SETTINGS)

    process = start("mf", dataset, disk / "run", *SETTINGS)
    try:
        wait_for(process, "epoch 2:")
        kept = set(os.listdir(RunLayout(str(disk / "run")).checkpoints))
        ballast = fill(disk)
        told = wait_for(process, "could not be written: ")
        assert "No space left on device. It needs 2.4 MiB, with 0.0 MiB free. Earlier checkpoints are kept" in told
        wait_for(process, "epoch ")  # training goes on
        assert kept & set(os.listdir(RunLayout(str(disk / "run")).checkpoints))
        ballast.unlink()
        finish([process])
    finally:
        process.kill()
    assert_same(tmp_path / "whole", disk / "run")
