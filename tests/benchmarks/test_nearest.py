"""The nearest-neighbour baselines are tuned on the validation window."""

import pytest

from benchmarks import nearest
from benchmarks.tuning import Search
from tests.trainer.tiny_runs import checkerboard_dataset
from trainer.evaluation.cases import next_items


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return checkerboard_dataset(str(tmp_path_factory.mktemp("nearest")))


def test_every_baseline_is_tuned_and_built_with_its_best_settings(dataset, monkeypatch):
    few = Search(
        {"half_life_rows": None, "num_neighbours": 200}, {"half_life_rows": (None, 2.0), "num_neighbours": (5,)}
    )
    monkeypatch.setattr(nearest, "SEARCHES", dict.fromkeys(nearest.SEARCHES, few))
    tried = nearest.tune_neighbours(dataset, next_items)
    assert {name: len(grid) for name, grid in tried.items()} == dict.fromkeys(nearest.SEARCHES, 3)
    assert all(0 < one["validation"] <= 1 for grid in tried.values() for one in grid)
    assert set(nearest.best_neighbours(dataset, tried)) == set(nearest.SEARCHES)
