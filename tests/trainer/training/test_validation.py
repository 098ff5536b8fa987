from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer.config.presets import PRESETS
from trainer.distributed.replicas import start_replicas
from trainer.models.build import build_inference_model, build_tables
from trainer.runs.checkpoint import StoredTable, TrainState
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.training.callbacks import TrainingCallbacks, Validation
from trainer.training.validation import make_next_item_validator, make_validator

ITEMS = ["a", "b", "c", "d"]


def model_with(bias):
    return DotModel(np.zeros((1, 1)), np.zeros((4, 1)), np.array(bias))


@pytest.fixture
def dataset(tmp_path):
    return build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "a")],
        validation=[("anna", "c", "addtocart", 10)],
        visitors=["anna"],
        items=ITEMS,
    )


def test_validates_a_ranking_model_by_ndcg(dataset):
    validator = make_validator(PRESETS["mf"], dataset)
    assert (validator.metric, validator.is_higher_better) == ("ndcg@20", True)
    assert validator.visitors.tolist() == [0]
    # the seen a is excluded; the relevant c is first, then second: 1 / log2(3)
    assert validator.measure(model_with([9, 1, 3, 2])) == pytest.approx(1)
    assert validator.measure(model_with([9, 3, 2, 1])) == pytest.approx(0.63093, abs=1e-5)
    assert validator.measure(model_with([9, 1, 3, 2])) == pytest.approx(1)


def test_validates_a_rating_model_by_squared_error(dataset):
    validator = make_validator(PRESETS["notebook-mf"], dataset)
    assert (validator.metric, validator.is_higher_better) == ("mse", False)
    # addtocart has weight 2: (0.5 - 2)²
    assert validator.measure(model_with([0, 0, 0.5, 0])) == pytest.approx(2.25)


def test_there_is_no_validator_without_a_split_or_without_visitors_to_rank_for(tmp_path, caplog):
    alone = build_dataset(str(tmp_path / "alone"), train=[("anna", "a")], visitors=["anna"], items=ITEMS)
    assert make_validator(PRESETS["mf"], alone) is None
    assert make_next_item_validator(PRESETS["nn"], alone) is None
    newcomers = build_dataset(
        str(tmp_path / "newcomers"),
        train=[("anna", "a")],
        validation=[("new", "b", "view", 10)],
        visitors=["anna"],
        items=ITEMS,
    )
    assert make_validator(PRESETS["mf"], newcomers) is None
    assert make_next_item_validator(PRESETS["nn"], newcomers) is None
    assert "so the last checkpoint is used as the best" in caplog.text


def test_validates_a_sequence_model_by_next_items(dataset, caplog):
    with caplog.at_level("INFO"):
        validator = make_next_item_validator(PRESETS["nn"], dataset)
        make_validator(PRESETS["mf"], dataset)
    assert [record.getMessage() for record in caplog.records] == [
        "each validation measures ndcg@20 for 1 next items of the validation split",
        "each validation measures ndcg@20 for 1 returning visitors of the validation split",
    ]
    assert (validator.metric, validator.is_higher_better) == ("ndcg@20", True)
    # the seen a remains a candidate: c is second, 1 / log2(3), then third, 1 / log2(4)
    assert validator.measure(model_with([9, 1, 3, 2])) == pytest.approx(0.63093, abs=1e-5)
    assert validator.measure(model_with([9, 3, 2, 1])) == pytest.approx(1 / 2)


def test_a_validation_reads_only_the_vectors_of_the_visitors_that_it_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitors = [f"v{number}" for number in range(200)]
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[(visitor, "a") for visitor in visitors],
        validation=[(visitors[number], "c", "view", 10) for number in (3, 120)],
        visitors=visitors,
        items=ITEMS,
    )
    config = PRESETS["mf"]
    config = replace(config, model=replace(config.model, history_length=0))
    replicas, workdir = start_replicas(2, None), str(tmp_path / "run")
    state = TrainState(build_tables(config, dataset, replicas), [], [])
    writer = CheckpointWriter(workdir, state, replicas, run="r", steps_per_epoch=1)
    validator = make_validator(config, dataset)
    assert validator is not None
    callbacks = TrainingCallbacks(
        workdir=workdir,
        schedule=Mock(steps_per_epoch=1),
        replicas=replicas,
        writer=writer,
        validation=Validation(validator, build_inference_model(config, dataset)),
        run_log=Mock(),
        watchdog=Mock(),
        request=Mock(is_requested=False),
        checkpoint_every_seconds=None,
        patience=None,
    )
    read: list[slice] = []
    get_rows = StoredTable.__getitem__

    def read_rows(table: StoredTable, rows: slice) -> np.ndarray:
        if table.shape[0] >= len(visitors):  # the table of items is shorter
            read.append(rows)
        return get_rows(table, rows)

    monkeypatch.setattr(StoredTable, "__getitem__", read_rows)
    for step in (1, 2):
        writer.begin(step)
        callbacks.on_train_start(step)
    assert sorted(validator.visitors) == [3, 120]
    assert read == 2 * [slice(3, 4), slice(120, 121)]
