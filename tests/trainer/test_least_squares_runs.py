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


def test_least_squares_do_not_depend_on_the_number_of_replicas(dataset: Dataset, tmp_path: Path) -> None:
    for count in (1, 2, 3, 4):  # the number of replicas need not divide anything
        run(make_config("mf", *ALS, f"devices={count}"), dataset, tmp_path / str(count))
    for count in (2, 3, 4):
        np.testing.assert_allclose(
            list(losses(tmp_path / str(count)).values()), list(losses(tmp_path / "1").values()), rtol=1e-5
        )
        # the vectors may be rotated differently, the scores may not differ
        np.testing.assert_allclose(
            all_scores(dataset, tmp_path / str(count)), all_scores(dataset, tmp_path / "1"), atol=1e-4
        )


def test_least_squares_resumed_between_sweeps_equal_an_uninterrupted_run(dataset: Dataset, tmp_path: Path) -> None:
    config = make_config("mf", *ALS)
    run(config, dataset, tmp_path / "whole")
    with pytest.raises(Preempted, match="stopped at step 2 of 4"):
        # the validation after the first sweep also checks for a stop
        run(config, dataset, tmp_path / "stopped", stop_after=3)
    run(config, dataset, tmp_path / "stopped")
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    found = list(losses(tmp_path / "whole").values())
    assert len(found) == 4
    assert found == sorted(found, reverse=True)


def test_the_power_of_the_weights_changes_the_solution(dataset: Dataset, tmp_path: Path) -> None:
    """Kinds weigh differently, so with a power of 0 their weights have no effect."""
    for power in (0, 1):
        for heavy in (1, 5):
            settings = [f"als.weight_power={power}", f"loss.event_weights={heavy},1,1", "epochs=1"]
            run(make_config("mf", *ALS, *settings), dataset, tmp_path / f"{power}-{heavy}")
    losses_of = {path.name: list(losses(path).values()) for path in tmp_path.iterdir()}
    assert losses_of["0-1"] == losses_of["0-5"]
    assert losses_of["1-1"] != losses_of["1-5"]


def test_least_squares_learn_the_checkerboard(dataset: Dataset, tmp_path: Path) -> None:
    # two columns suffice for two kinds of visitors; more would memorise each visitor's missing items
    result = run(make_config("mf", *ALS, "model.dim=2", "epochs=8"), dataset, tmp_path)
    assert result["validation_metric"] == "ndcg@20"
    # visitors not in training are folded in from their histories
    assert same_parity_share(dataset, tmp_path, num_new=6) > 0.95
