"""A shop's own event kinds determine weights, targets, the size of the models, and the exported signature."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from contract.schema import Split
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.trainer.tiny_runs import make_config, run
from trainer.config.losses import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.config.run import TargetConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import training_batches
from trainer.data.interactions import read_interactions
from trainer.evaluate import evaluate
from trainer.evaluation.cases import build_cases, next_items, returning_visitors
from trainer.evaluation.config import EvaluationConfig
from trainer.export import export
from trainer.runs.record import read_record

KINDS = ("open", "like", "list", "order")


def make_board(root: Path, weights: tuple[float, ...] | None = None) -> Dataset:
    """Builds a checkerboard in which the kinds of the shop rotate from event to event."""
    board = checkerboard()
    for name in ("train", "validation", "test"):
        board[name] = [event._replace(kind=KINDS[number % 4]) for number, event in enumerate(board[name])]
    return build_dataset(str(root), **board, kinds=KINDS, weights=weights)


def make_shop(root: Path, weights: tuple[float, ...] | None = None) -> Dataset:
    """Anna saw a and b before the cut. After it, she opens c, orders d and opens a again, and Bob is new."""
    return build_dataset(
        str(root),
        train=[("anna", "a", "open", 1), ("anna", "b", "list", 2)],
        test=[
            ("anna", "c", "open", 10),
            ("anna", "d", "order", 11),
            ("anna", "a", "open", 12),
            ("bob", "a", "open", 13),
            ("bob", "b", "order", 14),
        ],
        visitors=["anna"],
        items=["a", "b", "c", "d"],
        kinds=KINDS,
        weights=weights,
    )


def test_weights_are_those_of_the_settings_or_of_the_shop_or_the_default_of_the_loss(tmp_path: Path) -> None:
    plain = make_shop(tmp_path / "plain").manifest
    weighted = make_shop(tmp_path / "weighted", weights=(0.0, 1.0, 2.0, 5.0)).manifest
    assert SampledSoftmaxConfig().weights_by_kind(plain) == (1, 1, 1, 1)
    assert SquaredErrorConfig().weights_by_kind(plain) == (1, 2, 3, 4)
    for loss in (SampledSoftmaxConfig, SquaredErrorConfig):
        assert loss().weights_by_kind(weighted) == (0, 1, 2, 5)
        assert loss(event_weights=(1.0, 1.0, 1.0, 9.0)).weights_by_kind(weighted) == (1, 1, 1, 9)
        with pytest.raises(
            ValueError,
            match=r"loss.event_weights must be 4 numbers, one for each event kind of the dataset "
            r"\(open, like, list, order\), got \(1.0, 2.0\)",
        ):
            loss(event_weights=(1.0, 2.0)).weights_by_kind(weighted)


def test_only_events_of_the_chosen_kinds_make_an_item_relevant(tmp_path: Path) -> None:
    dataset = make_shop(tmp_path / "shop")
    every = build_cases(dataset, Split.TEST)
    assert every.kinds == KINDS
    assert every.relevant.values.tolist() == [2, 3]
    orders = build_cases(dataset, Split.TEST, returning_visitors, ["order"])
    assert orders.relevant.values.tolist() == [3]
    assert orders.kinds == ("order",)
    np.testing.assert_array_equal(orders.is_kind, [[True]])
    # the moment is the cut; bob's first row is of another kind, so bob still has no history
    assert orders.timestamp_ms.tolist() == [10]
    assert orders.num_without_history == 1


def test_events_of_other_kinds_are_history_of_the_next_item(tmp_path: Path) -> None:
    cases = build_cases(make_shop(tmp_path / "shop"), Split.TEST, next_items, ["order"])
    assert cases.relevant.values.tolist() == [3, 1]
    begins, ends = cases.history.begins, cases.history.ends
    histories = [cases.history.item[begin:end].tolist() for begin, end in zip(begins, ends, strict=True)]
    assert histories == [[0, 1, 2], [0]]


def train_on_board(preset: str, folder: Path) -> str:
    """Trains a run that weighs orders four times and is evaluated on likes and orders; returns its directory."""
    dataset, workdir = make_board(folder / "board", weights=(1.0, 1.0, 1.0, 4.0)), folder / "run"
    run(make_config(preset, "evaluate.kinds=like,order"), dataset, workdir)
    record = read_record(str(workdir))
    assert list(record.events) == list(KINDS)
    # a quarter of the rows has weight 4: (3 + 4) / 4; the towers skip each visitor's first row, of kind 0 or 2
    weights = np.array(list(record.events.values())) / record.training_rows
    assert record.mean_event_weight == pytest.approx(weights @ [1, 1, 1, 4])
    return str(workdir)


def test_a_run_is_evaluated_on_the_chosen_kinds_of_the_shop(tmp_path: Path) -> None:
    workdir = train_on_board("mf", tmp_path)

    def kinds_of(result: dict) -> set[str]:
        groups = result["protocols"]["next_item"]["groups"]
        return {name for name in groups if name.endswith(" events")}

    # one event per visitor, of kinds 0 … 3 in turn
    assert kinds_of(evaluate(workdir=workdir)) == {"like events", "order events"}
    chosen = evaluate(workdir=workdir, config=EvaluationConfig(evaluate=TargetConfig(kinds=("list",))))
    assert kinds_of(chosen) == {"list events"}
    assert chosen["protocols"]["next_item"]["cases"]["cases"] == 15


def test_an_export_takes_the_kinds_of_the_shop_and_its_card_lists_them(tmp_path: Path) -> None:
    export(workdir=train_on_board("nn", tmp_path), output=str(tmp_path / "export"))
    recommend = tf.saved_model.load(str(tmp_path / "export")).signatures["recommend_events"]
    query = {
        "visitor_id": tf.constant(["v0"]),
        "history": tf.constant([["i0"]]),
        "history_age_ms": tf.constant([[5]], tf.int64),
        "k": tf.constant([3]),
        "exclude_seen": tf.constant([True]),
    }
    assert recommend(**query, history_event=tf.constant([["order"]]))["item_id"].shape == (1, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="history_event must be one of open, like, list, order"):
        recommend(**query, history_event=tf.constant([["transaction"]]))
    assert "(open, like, list or order)" in (tmp_path / "export/assets.extra/model_card.md").read_text()


def test_an_unknown_kind_is_refused_before_training(tmp_path: Path) -> None:
    dataset = make_board(tmp_path / "board")
    message = "evaluate.kinds must be among the dataset's event kinds, open, like, list, order, got purchase"
    with pytest.raises(ValueError, match=message):
        run(make_config("mf", "evaluate.kinds=purchase,order"), dataset, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_weight_of_a_row_multiplies_that_of_its_kind(tmp_path: Path) -> None:
    dataset = build_dataset(
        str(tmp_path / "shop"),
        train=[
            ("anna", "a", "open", 1, 0.5),
            ("anna", "b", "order", 2, 3.0),
            ("bob", "a", "order", 3, 2.0),
            ("bob", "a", "open", 4),
        ],
        visitors=["anna", "bob"],
        items=["a", "b"],
        kinds=KINDS,
        weights=(1.0, 1.0, 1.0, 4.0),
    )
    weights = SampledSoftmaxConfig().weights_by_kind(dataset.manifest)
    np.testing.assert_array_equal(read_interactions(dataset, weights).toarray(), [[0.5, 12], [8 + 1, 0]])
    config = make_config("notebook-mf").input
    (batch,) = training_batches(dataset.training_events, config, seed=0, epochs=1, event_weights=weights)
    found = list(zip(batch.item.numpy(), batch.event.numpy(), batch.weight.numpy(), strict=True))[:4]
    assert sorted(found) == [(0, 0, 0.5), (0, 0, 1), (0, 3, 8), (1, 3, 12)]
    run(make_config("notebook-mf"), dataset, tmp_path / "run")
    assert read_record(str(tmp_path / "run")).mean_event_weight == (0.5 + 12 + 8 + 1) / 4
