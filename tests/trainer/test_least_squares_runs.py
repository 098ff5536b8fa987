from pathlib import Path

import numpy as np
import pytest

from tests.trainer.tiny_runs import (
    all_scores,
    assert_same,
    checkerboard_dataset,
    losses,
    make_config,
    run,
    same_parity_share,
)
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


ALS = ("solver=als", "epochs=4", "als.unobserved_weight=0.1", "als.batch_entries=32")


@pytest.fixture(scope="module")
def whole(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one replica."""
    workdir = tmp_path_factory.mktemp("whole")
    run(make_config("mf", *ALS), dataset, workdir)
    return workdir


def test_least_squares_do_not_depend_on_the_number_of_replicas(dataset: Dataset, whole: Path, tmp_path: Path) -> None:
    run(make_config("mf", *ALS, "devices=3"), dataset, tmp_path)  # 3 divides neither the visitors nor the items
    np.testing.assert_allclose(list(losses(tmp_path).values()), list(losses(whole).values()), rtol=1e-5)
    # the vectors may be rotated differently, the scores may not differ
    np.testing.assert_allclose(all_scores(dataset, tmp_path), all_scores(dataset, whole), atol=1e-4)


def test_least_squares_resumed_between_sweeps_equal_an_uninterrupted_run(
    dataset: Dataset, whole: Path, tmp_path: Path
) -> None:
    config = make_config("mf", *ALS)
    with pytest.raises(Preempted, match="stopped at step 2 of 4"):
        # the run also checks for a stop after the checkpoint of the first sweep, and in its validation
        run(config, dataset, tmp_path, stop_after=4)
    run(config, dataset, tmp_path)
    assert_same(whole, tmp_path)
    assert losses(whole) == losses(tmp_path)
    found = list(losses(whole).values())
    assert len(found) == 4
    assert found == sorted(found, reverse=True)


def test_the_power_of_the_weights_changes_the_solution(dataset: Dataset, tmp_path: Path) -> None:
    """Kinds weigh differently, so with a power of 0 their weights have no effect."""
    for power, heavy in ((0, 1), (0, 5), (1, 5)):
        settings = [f"als.weight_power={power}", f"loss.event_weights={heavy},1,1", "epochs=1"]
        run(make_config("mf", *ALS, *settings), dataset, tmp_path / f"{power}-{heavy}")
    losses_of = {path.name: list(losses(path).values()) for path in tmp_path.iterdir()}
    assert losses_of["0-5"] == losses_of["0-1"]
    assert losses_of["1-5"] != losses_of["0-1"], "weights of 1 are the same with every power"


def test_least_squares_learn_the_checkerboard(dataset: Dataset, tmp_path: Path) -> None:
    # two columns suffice for two kinds of visitors; more would memorise each visitor's missing items
    result = run(make_config("mf", *ALS, "model.dim=2", "epochs=8"), dataset, tmp_path)
    assert result["validation_metric"] == "ndcg@20"
    # visitors not in training are folded in from their histories
    assert same_parity_share(dataset, tmp_path, num_new=6) > 0.95
