"""Stopping a factorization of full size: 1.4 million visitors of 64, 0.7 GB with their accumulators."""

import signal
import time
from pathlib import Path

import pytest

from tests.integration.processes import finish, start, wait_for
from tests.trainer.dataset_builder import build_dataset, checkerboard
from trainer import checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.alone]

VISITORS = 1_400_000
SETTINGS = ["epochs=100000", "model.history_length=0", "model.dim=64", "input.batch_size=1", "steps_per_call=20"]
"""Batches of one make an epoch 360 steps: seconds, at the end of which it is saved."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkerboard, in which few of the vocabulary's visitors do anything, and no validation takes time."""
    root, board = str(tmp_path_factory.mktemp("dataset")), checkerboard()
    board |= {"visitors": [f"v{visitor}" for visitor in range(VISITORS)], "validation": (), "test": ()}
    build_dataset(root, **board)
    return root


def test_sigterm_saves_tables_of_full_size_within_ten_seconds_and_a_second_one_ends_at_once(
    dataset: str, tmp_path: Path
) -> None:
    first = start("mf", dataset, tmp_path, *SETTINGS)
    wait_for(first, "epoch 1:")  # which saves beside the second epoch
    first.send_signal(signal.SIGTERM)
    wait_for(first, "asked to stop")
    begin = time.monotonic()
    first.send_signal(signal.SIGTERM)
    finish([first], -signal.SIGTERM)
    assert time.monotonic() - begin < 2

    second = start("mf", dataset, tmp_path, *SETTINGS)
    wait_for(second, "epoch ")
    begin = time.monotonic()
    second.send_signal(signal.SIGTERM)
    finish([second], 75)
    assert time.monotonic() - begin < 10
    step = checkpoint.last_step(str(tmp_path))
    assert step is not None
    assert checkpoint.read_state(str(tmp_path), step).arrays["visitor.accumulator"] == (VISITORS + 1, 64)
