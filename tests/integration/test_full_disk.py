"""Trains on a disk that fills up and later has free space again."""

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
SETTINGS = [*LONG, "epochs=10", "model.history_length=0", "model.dim=16"]
"""Settings of a run of 60 steps.

A checkpoint has a few more than 2 × 20,001 × 16 × 4 bytes. The run keeps two checkpoints while it writes another.
"""

FULL_FROM, FREE_FROM = 16, 36
"""Steps of the first checkpoint on the full disk, and of the first one after it."""

WAITING = f"""
import os, sys, time
from trainer import cli
from trainer.runs.checkpoint_writer import CheckpointWriter

begin = CheckpointWriter.begin

def wait_and_begin(self, step, *arguments, **options):
    if step in {(FULL_FROM, FREE_FROM)}:
        self.finish()  # publishes the checkpoint before and removes older ones, or drops it
        print("waiting at step", step, file=sys.stderr, flush=True)
        while not os.path.exists(os.environ["TEST_FOLDER"] + "/continue-" + str(step)):
            time.sleep(0.01)
    begin(self, step, *arguments, **options)

CheckpointWriter.begin = wait_and_begin
sys.exit(cli.main(sys.argv[1:]))
"""
"""A trainer that waits for the test before two of its checkpoints, at times when it is not writing a checkpoint."""


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
    """Writes a file until the disk has no space left and returns its path."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 12))
    return ballast


def test_a_run_keeps_its_checkpoints_and_continues_while_its_disk_is_full(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))
    dataset, board = str(tmp_path / "dataset"), checkerboard()
    board |= {"visitors": [f"v{visitor}" for visitor in range(VISITORS)]}
    build_dataset(dataset, **board)
    train_alone("mf", dataset, tmp_path / "whole", *SETTINGS)

    process = start("mf", dataset, disk / "run", *SETTINGS, program=("-c", WAITING))
    checkpoints = Path(RunLayout(str(disk / "run")).checkpoints)
    try:
        wait_for(process, f"waiting at step {FULL_FROM}")
        kept = sorted(os.listdir(checkpoints))
        ballast = fill(disk)
        (tmp_path / f"continue-{FULL_FROM}").touch()
        error = wait_for(process, f"checkpoint of step {FULL_FROM} could not be written: ")
        assert (
            "No space left on device. The checkpoint needs 2.4 MiB, and the disk has 0.0 MiB free. Earlier "
            "checkpoints are kept" in error
        )
        wait_for(process, f"waiting at step {FREE_FROM}")
        assert sorted(os.listdir(checkpoints)) == kept
        ballast.unlink()
        (tmp_path / f"continue-{FREE_FROM}").touch()
        finish([process])
    finally:
        process.kill()
    assert_same(tmp_path / "whole", disk / "run")
