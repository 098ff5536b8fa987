"""The soak of `soak.py`, shortened: a few kills on a small run."""

from pathlib import Path

import pytest

from tests.integration.soak import soak
from tests.trainer.dataset_builder import build_dataset, checkerboard

pytestmark = pytest.mark.integration


def test_a_run_of_two_workers_that_is_killed_again_and_again_ends_with_the_same_tables(tmp_path: Path) -> None:
    data = str(tmp_path / "dataset")
    build_dataset(data, **checkerboard(), num_shards=3, block_rows=20)
    settings = [
        "input.batch_size=64",
        "model.dim=8",
        "steps_per_call=2",
        "epochs=60",
        "patience=none",
        "checkpoint_every_steps=4",
    ]
    result = soak(data, tmp_path, kills=3, seed=1, settings=settings, max_delay=1.0)
    assert result["same_tables"]
    assert result["kills"] >= 1
    assert result["last_step"] == 360
