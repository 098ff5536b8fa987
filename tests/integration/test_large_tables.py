"""Stops a full-size factorization of 1.4 million visitors and 235,000 items with 64 columns.

The tables take 0.84 GB, including accumulators.
"""

import signal
from pathlib import Path

import pytest

from tests.integration.processes import finish, start, wait_for
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tools.tables import read_results
from trainer.runs import checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.same_numbers, pytest.mark.slow]

VISITORS, ITEMS = 1_400_000, 235_000
SETTINGS = ["epochs=100000", "model.history_length=0", "model.dim=64", "input.batch_size=64", "steps_per_execution=20"]
"""Settings of a run whose epochs have 563 steps, take seconds, and end with a checkpoint."""
GRACE_SECONDS = 120
"""Seconds between SIGTERM and SIGKILL in k8s/base; `benchmarks.scaling` measures the seconds of a save."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkerboard with large vocabularies and without validation. Few visitors and items have events."""
    root, board = str(tmp_path_factory.mktemp("dataset")), checkerboard(num_visitors=6000, num_items=2000)
    vocabularies = {
        "visitors": [f"v{visitor}" for visitor in range(VISITORS)],
        "items": [f"i{item}" for item in range(ITEMS)],
    }
    build_dataset(root, **board | vocabularies | {"validation": (), "test": ()})
    return root


def test_the_recorded_time_of_saving_is_a_tenth_of_the_grace_period_at_most() -> None:
    """The time on this machine would depend on other programs, so the recorded time is checked."""
    assert read_results()["scaling"]["figures"]["checkpoint"]["seconds_when_waited_for"] <= GRACE_SECONDS / 10


def test_sigterm_saves_full_size_tables_and_a_second_one_exits_at_once(dataset: str, tmp_path: Path) -> None:
    first = start("mf", dataset, tmp_path, *SETTINGS)
    wait_for(first, "epoch 1:")  # its checkpoint is written during the second epoch
    first.send_signal(signal.SIGTERM)
    wait_for(first, "stop requested")
    first.send_signal(signal.SIGTERM)
    finish([first], 143)

    second = start("mf", dataset, tmp_path, *SETTINGS)
    wait_for(second, "epoch ")
    second.send_signal(signal.SIGTERM)
    finish([second], 75)
    step = checkpoint.last_step(str(tmp_path))
    assert step is not None
    third = start("mf", dataset, tmp_path, *SETTINGS)
    try:
        wait_for(third, f"resuming from the checkpoint of step {step} ")  # every file verified
        wait_for(third, "epoch ")
    finally:
        third.kill()
        third.communicate()
    arrays = checkpoint.read_state(str(tmp_path), step).arrays
    # (1,400,001 × 64 + 235,001 × 65, including a column of biases) × 4 bytes, twice: 0.84 GB
    assert (arrays["visitor.accumulator"], arrays["item.accumulator"]) == ((VISITORS + 1, 64), (ITEMS + 1, 65))
