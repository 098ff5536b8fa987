import json
import logging

import numpy as np
import pytest

from common.errors import ContractError
from contract.schema import Split, SplitMethod
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer.config.presets import PRESETS
from trainer.evaluate import evaluate
from trainer.runs.record import RunRecord
from trainer.trained_run import TrainedRun

NUM_VISITORS = 40
ITEMS = [f"i{place}" for place in range(30)]


def build(root, split_method=SplitMethod.TIME, *, returning=True):
    """Visitor v has viewed item v mod 10, bought item 10, and views item v mod 10 + 11 after the cut, if returning."""
    visitors = [f"v{place}" for place in range(NUM_VISITORS)]
    train = [(name, f"i{place % 10}", "view", place) for place, name in enumerate(visitors)]
    train += [(name, "i10", "transaction", 100) for name in visitors]
    test = [(name, f"i{place % 10 + 11}", "view", 1000 + place) for place, name in enumerate(visitors) if returning]
    test += [
        ("stranger", "i0", "view", 2000),
        ("v0", "i0", "addtocart", 2001),
        ("v1", "not-in-catalogue", "view", 2002),
    ]
    return build_dataset(root, train=train, test=test, visitors=visitors, items=ITEMS, split_method=split_method)


@pytest.fixture
def open_run(monkeypatch):
    """Makes `evaluate` find a run of a preset with a given model and dataset."""

    def install(dataset, preset, model):
        record = RunRecord(
            config=PRESETS[preset],
            data=dataset.root,
            dataset_checksum=dataset.checksum,
            training_rows=80,
            events={},
            mean_event_weight=2.0,
            commit=None,
            versions={},
        )
        run = TrainedRun(record, dataset, model, step=10)

        def open_trained_run(workdir, data, replicas):
            return run

        monkeypatch.setattr("trainer.evaluate.open_trained_run", open_trained_run)

    return install


def knowing_model():
    """Gives the item that each visitor is about to view the highest score; the others score 1 and less."""
    visitors = np.eye(10)[np.arange(NUM_VISITORS) % 10]
    items = np.zeros((30, 10))
    items[np.arange(11, 21), np.arange(10)] = 9
    return DotModel(visitors, items, np.linspace(1, 0.5, 30))


def test_a_model_that_knows_stands_beside_the_baselines_with_intervals(tmp_path, open_run):
    dataset = build(str(tmp_path / "dataset"))
    open_run(dataset, "mf", knowing_model())
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)

    returning = result["protocols"]["returning_visitors"]
    ranking = returning["ranking"]
    assert list(ranking) == [
        "matrix_factorization",
        "popular",
        "recently_popular",
        "item_knn",
        "item_knn_tfidf",
        "session_knn",
        "random",
    ]
    metrics = ("recall", "ndcg", "mrr", "hit_rate", "coverage", "gini", "novelty")
    names = {f"{name}@{k}" for name in metrics for k in (1, 5, 10, 20, 100)}
    assert all(set(metrics) == names for metrics in ranking.values())
    assert ranking["matrix_factorization"]["ndcg@10"] == {"value": 1, "low": 1, "high": 1}
    # of 28 visible items 9 have training events and come first; all others tie, and ties count against the system
    assert ranking["popular"]["hit_rate@20"]["value"] == 0
    assert ranking["popular"]["hit_rate@20"]["p"] < 0.01
    hits = ranking["random"]["hit_rate@20"]
    # chance is 20 / 28 = 0.714; the standard error over 40 visitors is 0.071
    assert hits["low"] < 20 / 28 < hits["high"]
    assert hits["low"] < hits["value"] < hits["high"]
    # the two items of the history score 1 and less: hidden or not, the model's first stays the first
    assert returning["ranking_otherwise"]["matrix_factorization"]["mrr@20"]["value"] == 1
    assert result["ratings"] is None
    assert result["notes"] == []
    assert result["step"] == 10


def test_next_items_stand_beside_returning_visitors(tmp_path, open_run):
    dataset = build(str(tmp_path / "dataset"))
    open_run(dataset, "mf", knowing_model())
    next_item = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)["protocols"]["next_item"]
    # a row of each visitor, and a second of v0, who comes back to item 0; that of v1 has an unknown item
    assert next_item["cases"] == {
        "visitors": 40,
        "cases": 41,
        "cases_in_all": 41,
        "relevant_items": 41,
        "without_history": 1,  # the stranger
        "without_relevant_items": 1,
        "unknown_item_share": pytest.approx(1 / 42),
        "catalogue_items": 30,
    }
    # item 11 scores 10 for v0, item 0 scores 1 like no other item but behind it: second
    assert next_item["ranking"]["matrix_factorization"]["mrr@20"]["value"] == pytest.approx((40 + 1 / 2) / 41)
    # what he comes back to is left out where seen items are hidden
    assert next_item["ranking_otherwise"]["matrix_factorization"]["mrr@20"]["value"] == 1
    groups = next_item["groups"]
    assert {name: group["cases"] for name, group in groups.items()} == {
        "views": 40,
        "carts": 1,
        "history 2-4": 41,
        "known visitors": 41,
        "middle items": 1,  # 40 of 80 events are item 10's, and item 0 comes next
        "cold items": 40,
    }
    assert groups["carts"]["ranking"]["matrix_factorization"]["mrr@20"]["value"] == pytest.approx(1 / 2)


def test_beyond_a_limit_a_sample_of_the_visitors_is_measured(tmp_path, open_run, monkeypatch):
    monkeypatch.setattr("trainer.evaluate.MAX_SCORES", 25 * 30)
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    cases = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)["protocols"]["returning_visitors"]["cases"]
    assert (cases["cases"], cases["cases_in_all"]) == (25, 40)


def test_the_cases_tell_who_was_left_out(tmp_path, open_run):
    dataset = build(str(tmp_path / "dataset"))
    open_run(dataset, "mf", knowing_model())
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    # the stranger has no history; of 42 rows of the others one has an unknown item
    assert result["protocols"]["returning_visitors"]["cases"] == {
        "visitors": 40,
        "cases": 40,
        "cases_in_all": 40,
        "relevant_items": 40,
        "without_history": 1,
        "without_relevant_items": 0,
        "unknown_item_share": pytest.approx(1 / 42),
        "catalogue_items": 30,
    }


@pytest.mark.parametrize(
    ("is_terminal", "best"), [(False, "**1.0000** [1.0000, 1.0000]"), (True, "\033[1m1.0000\033[0m [1.0000, 1.0000]")]
)
def test_the_result_is_a_file_of_the_run_and_a_table_in_the_log(
    tmp_path, open_run, caplog, monkeypatch, is_terminal, best
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    with caplog.at_level(logging.INFO):
        result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    assert json.loads((tmp_path / "run" / "evaluation-test.json").read_text()) == result
    assert any(f"| matrix_factorization | {best}" in message for message in caplog.messages)  # its text drops escapes


def test_the_same_run_gives_the_same_figures(tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    first, second = (evaluate(workdir=str(tmp_path / "run"), split=Split.TEST) for _ in range(2))
    assert first == second


def test_rating_models_are_measured_beside_the_mean_and_a_random_split_is_called_leaking(tmp_path, open_run):
    dataset = build(str(tmp_path / "dataset"), SplitMethod.RANDOM)
    constant = DotModel(np.zeros((NUM_VISITORS, 1)), np.zeros((30, 1)), np.full(30, 1.5))
    open_run(dataset, "notebook-mf", constant)
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    ratings = result["ratings"]
    # 43 test rows, 42 of weight 1 and one of 2; the fake gives 1.5 for all of them but 0 for the unknown item
    assert ratings["rows"] == 43
    assert ratings["mse"] == pytest.approx((42 * 0.25 + 1) / 43)
    # training: 40 rows of weight 1, 40 of weight 3: mean 2
    assert ratings["mse_of_training_mean"] == pytest.approx(42 / 43)
    assert ratings["mse_of_one"] == pytest.approx(1 / 43)
    assert ratings["skill"] == pytest.approx(1 - 11.5 / 42)
    assert result["is_leaking"]
    assert "split at random" in result["notes"][0]


def test_without_returning_visitors_there_is_no_ranking_but_a_note(tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset"), returning=False), "notebook-mf", knowing_model())
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    assert result["protocols"]["returning_visitors"]["ranking"] is None
    assert result["ratings"]["rows"] == 3
    assert "nobody to rank for" in result["notes"][0]


def test_a_split_that_the_dataset_lacks_is_refused(tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    with pytest.raises(ContractError, match="no validation split"):
        evaluate(workdir=str(tmp_path / "run"), split=Split.VALIDATION)
    assert not (tmp_path / "run").exists()
