"""Tests runs of the counted models: the choice by validation, several replicas, interruption and resumption."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.trainer.ranking.fakes import queries_of
from tests.trainer.tiny_runs import assert_same, checkerboard_dataset, losses, make_config, run, same_parity_share
from trainer.data.dataset import Dataset
from trainer.distributed.preemption import Preempted
from trainer.distributed.replicas import start_replicas
from trainer.models.trained_run import open_trained_run
from trainer.runs import checkpoint
from trainer.train import train
from trainer.training.count import CountTrainer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


COUNTED = ("walk", "session_knn", "ease")
ONE = ("model.item_power=0.5", "model.neighbour_power=0.25", "model.visitor_power=0.5", "model.recency_power=1")


@pytest.mark.parametrize("preset", COUNTED)
def test_a_counted_model_learns_the_checkerboard_also_for_new_visitors(
    preset: str, dataset: Dataset, tmp_path: Path
) -> None:
    run(make_config(preset), dataset, tmp_path)
    # with EASE, the item of the history has no weight for itself, so it is not among the ten best
    assert same_parity_share(dataset, tmp_path, num_new=6) == (0.9 if preset == "ease" else 1)


def test_each_epoch_is_a_combination_and_the_best_in_validation_is_the_model(tmp_path: Path) -> None:
    # visitors of i0 also touched i1 three times and i2 once, and those of the validation split continue with i2; i1 has
    # more visitors, so only a high power of the neighbour's visitors ranks i2 first
    pairs = [("i0", "i1"), ("i0", "i1"), ("i0", "i1"), ("i0", "i2"), *[("i3", "i1")] * 5]
    train = [
        (f"v{v}", item, "view", 10 * v + number) for v, pair in enumerate(pairs) for number, item in enumerate(pair)
    ]
    train += [(f"w{v}", "i0", "view", v) for v in range(4)]
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=train,
        validation=[(f"w{v}", "i2", "view", 1000) for v in range(4)],
        visitors=[f"v{v}" for v in range(9)] + [f"w{v}" for v in range(4)],
        items=[f"i{item}" for item in range(4)],
    )
    powers = ("neighbour_power=0,2,0", "item_power=0,0,0", "visitor_power=0,0,0", "recency_power=0,0,0")
    result = run(make_config("walk", *(f"model.{power}" for power in powers)), dataset, tmp_path / "run")
    # i2 is second, then first, then second: NDCG 1 / log2(3) and 1
    assert checkpoint.read_validations(str(tmp_path / "run")).values == pytest.approx({1: 0.63093, 2: 1.0, 3: 0.63093})
    assert (result["steps"], result["epochs"], result["best_step"]) == (3, 3, 2)
    assert checkpoint.read_dense_weights(str(tmp_path / "run"), 2)[0].tolist() == [0, 2, 0, 0]


def test_without_a_validation_split_the_last_combination_is_the_model(tmp_path: Path) -> None:
    dataset = build_dataset(str(tmp_path / "dataset"), **{**checkerboard(), "validation": [], "test": []})
    run(make_config("walk"), dataset, tmp_path / "run")
    powers = checkpoint.read_weights(str(tmp_path / "run")).dense[0]
    np.testing.assert_allclose(powers, make_config("walk").model.combinations[-1])


def test_given_powers_are_the_only_combination(dataset: Dataset, tmp_path: Path) -> None:
    assert run(make_config("walk", *ONE), dataset, tmp_path)["steps"] == 1


@pytest.mark.parametrize("preset", COUNTED)
def test_a_counted_model_does_not_depend_on_the_number_of_replicas(
    preset: str, dataset: Dataset, tmp_path: Path
) -> None:
    for count in (1, 2, 4):
        run(make_config(preset, f"devices={count}"), dataset, tmp_path / str(count))
    one = checkpoint.read_weights(str(tmp_path / "1"), "last")
    for count in (2, 4):
        other = checkpoint.read_weights(str(tmp_path / str(count)), "last")
        for name in one.tables:
            np.testing.assert_array_equal(other.tables[name], one.tables[name])
        assert losses(tmp_path / str(count)) == pytest.approx(losses(tmp_path / "1"))


@pytest.mark.parametrize("preset", COUNTED)
def test_a_run_resumed_between_combinations_equals_an_uninterrupted_one(
    preset: str, dataset: Dataset, tmp_path: Path
) -> None:
    config = make_config(preset)
    whole = run(config, dataset, tmp_path / "whole")
    with pytest.raises(Preempted, match=r"stopped at step 2 of [34]"):
        # the run also checks for a stop after the checkpoint of the first combination, and in its validation
        run(config, dataset, tmp_path / "stopped", stop_after=4)
    resumed = run(config, dataset, tmp_path / "stopped")
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    for name in ("best_step", "best_validation", "steps"):
        assert resumed[name] == whole[name]


def test_the_loss_is_the_share_of_the_weight_that_is_dropped(tmp_path: Path) -> None:
    # one visitor of four items: all weights are equal, and of the four of each item, three are kept
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", item, "view", number) for number, item in enumerate("abcd")],
        visitors=["anna"],
        items=list("abcd"),
    )
    run(make_config("walk", *ONE, "model.num_neighbours=3"), dataset, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx({1: 0.25})


def test_ease_drops_nothing_if_no_items_occur_together(tmp_path: Path) -> None:
    events = [("anna", "a"), ("bob", "b")]
    dataset = build_dataset(str(tmp_path), train=events, visitors=["anna", "bob"], items=["a", "b"])
    pings: list[None] = []
    dataset = replace(dataset, on_progress=lambda: pings.append(None))
    trainer = CountTrainer(make_config("ease"), dataset, start_replicas(1, None))
    pings.clear()
    assert trainer.advance(0, 1).tolist() == [0]
    assert pings, "the watchdog of a cluster would end the run"
    assert trainer.remedy == "raise model.l2"


def test_the_loss_of_a_session_knn_is_the_share_of_the_items_whose_timelines_are_dropped(tmp_path: Path) -> None:
    # two visitors have the items a and b; only the latest timeline of each item is kept
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[(visitor, item, "view", number) for number, visitor in enumerate(("anna", "bob")) for item in "ab"],
        visitors=["anna", "bob"],
        items=list("ab"),
    )
    run(make_config("session_knn", "model.max_timelines=1"), dataset, tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx({1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5})


def test_the_latest_items_of_a_visitor_are_compared(tmp_path: Path) -> None:
    events = [("anna", item, "view", number) for number, item in enumerate("abc")]
    dataset = build_dataset(str(tmp_path / "dataset"), train=events, visitors=["anna"], items=["a", "b", "c"])
    run(make_config("session_knn", "model.max_items=2"), dataset, tmp_path / "run")
    model = open_trained_run(str(tmp_path / "run")).model
    # the timeline has b and c only
    assert (model.catalogue_scores(queries_of([0], [[1]])).numpy()[0] > 0).tolist() == [False, True, True]
    assert (model.catalogue_scores(queries_of([0], [[0]])).numpy()[0] < 0).all()


def test_events_of_a_kind_with_a_weight_of_0_are_skipped(tmp_path: Path) -> None:
    events = [("anna", "a", "view", 0), ("anna", "b", "transaction", 1), ("anna", "c", "view", 2)]
    dataset = build_dataset(str(tmp_path / "dataset"), train=events, visitors=["anna"], items=["a", "b", "c"])
    for name, weights, reached in (("all", "1,1,1", [True, True]), ("views", "1,1,0", [False, True])):
        run(make_config("walk", *ONE, f"loss.event_weights={weights}"), dataset, tmp_path / name)
        model = open_trained_run(str(tmp_path / name)).model
        # whether a leads to b and to c
        assert (model.catalogue_scores(queries_of([0], [[0]])).numpy()[0, 1:] > 0).tolist() == reached
    with pytest.raises(ValueError, match=r"no training event of .* has a weight above 0"):
        run(make_config("walk", "loss.event_weights=0,1,0"), dataset, tmp_path / "none")


def test_the_latest_items_of_a_visitor_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    events = [("anna", item, "view", number) for number, item in enumerate("abc")]
    dataset = build_dataset(str(tmp_path / "dataset"), train=events, visitors=["anna"], items=["a", "b", "c"])
    with caplog.at_level(logging.INFO):
        run(make_config("walk", *ONE, "model.max_items=2"), dataset, tmp_path / "run")
    model = open_trained_run(str(tmp_path / "run")).model
    # b leads to itself and c, but not to a
    assert (model.catalogue_scores(queries_of([0], [[1]])).numpy()[0] > 0).tolist() == [False, True, True]
    assert "combination 1 of 1: item_power 0.5, neighbour_power 0.25, visitor_power 0.5, recency_power 1" in caplog.text


def test_a_warm_start_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="from the training events alone; drop --warm-start"):
        train(make_config("walk"), data=dataset.root, workdir=str(tmp_path / "run"), warm_start=str(tmp_path / "other"))


def test_a_run_ends_when_the_callback_of_a_validation_requests_it(dataset: Dataset, tmp_path: Path) -> None:
    seen = []

    def on_validation(epoch: int, value: float) -> bool:
        seen.append((epoch, value))
        return epoch == 2

    result = train(make_config("walk"), data=dataset.root, workdir=str(tmp_path), on_validation=on_validation)
    assert (result["steps"], result["is_stopped_early"]) == (2, True)
    assert dict(seen) == checkpoint.read_validations(str(tmp_path)).values
