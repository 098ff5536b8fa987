import functools
import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from common.errors import ContractError
from contract.schema import Split, SplitMethod
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer import cli
from trainer.config.presets import PRESETS
from trainer.data.trend import latest_trends, read_item_events
from trainer.evaluate import evaluate
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.tables import summary_text
from trainer.models.blend import BlendInference
from trainer.models.trained_run import TrainedRun
from trainer.runs.blend_record import RANKINGS, BlendWeights, half_lives_of
from trainer.runs.record import RunRecord

NUM_VISITORS = 40
ITEMS = [f"i{item}" for item in range(30)]


def build(root, split_method=SplitMethod.TIME, *, returning=True, available=None):
    """Visitor v viewed item v mod 10 and bought item 10. If `returning`, v views item v mod 10 + 11 after the cut."""
    visitors = [f"v{number}" for number in range(NUM_VISITORS)]
    train = [(name, f"i{number % 10}", "view", number) for number, name in enumerate(visitors)]
    train += [(name, "i10", "transaction", 100) for name in visitors]
    after = [(name, f"i{number % 10 + 11}", "view", 1000 + number) for number, name in enumerate(visitors)]
    test = [
        *(after if returning else []),
        ("stranger", "i0", "view", 2000),
        ("v0", "i0", "addtocart", 2001),
        ("v1", "not-in-catalogue", "view", 2002),
    ]
    return build_dataset(
        root,
        train=train,
        test=test,
        visitors=visitors,
        items=ITEMS,
        split_method=split_method,
        available=available,
    )


def open_instead(patch, dataset, preset, model, **changes):
    """Lets `evaluate` open a run of a preset with this model and dataset."""
    record = RunRecord(
        config=replace(PRESETS[preset], **changes),
        data=dataset.root,
        dataset_checksum=dataset.checksum,
        training_rows=80,
        events={},
        mean_event_weight=2.0,
        commit=None,
        versions={},
    )
    run = TrainedRun(record, dataset, model, step=10)
    patch.setattr("trainer.evaluate.open_trained_run", lambda *_, **__: run)


@pytest.fixture
def open_run(monkeypatch):
    return functools.partial(open_instead, monkeypatch)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The directory of a run of a perfect model, and its evaluation."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        open_instead(patch, build(str(root / "dataset")), "mf", knowing_model())
        return root / "run", evaluate(workdir=str(root / "run"), split=Split.TEST)


def knowing_model():
    """Builds a model that gives the highest score to the visitor's next item; all other items score at most 1."""
    visitors = np.eye(10)[np.arange(NUM_VISITORS) % 10]
    items = np.zeros((30, 10))
    items[np.arange(11, 21), np.arange(10)] = 9
    return DotModel(visitors, items, np.linspace(1, 0.5, 30))


def test_a_perfect_model_is_compared_with_the_baselines(evaluated):
    _, result = evaluated
    returning = result["protocols"]["returning_visitors"]
    ranking = returning["rankings"]["seen_hidden"]
    assert list(ranking) == [
        "mf",
        "popular",
        "trending",
        "item_walk",
        "session_knn",
        "random",
    ]
    metrics = ("recall", "ndcg", "mrr", "hit_rate", "coverage", "gini", "novelty")
    names = {f"{name}@{k}" for name in metrics for k in (1, 5, 10, 20, 100)}
    assert all(set(metrics) == names for metrics in ranking.values())
    assert ranking["mf"]["ndcg@10"] == {"value": 1, "low": 1, "high": 1}
    # of 28 visible items, 9 have training events and are first; all others tie, and ties count against the system
    assert ranking["popular"]["hit_rate@20"]["value"] == 0
    assert ranking["popular"]["hit_rate@20"]["p"] < 0.01
    hits = ranking["random"]["hit_rate@20"]
    # chance is 20 / 28 = 0.714; the standard error over 40 visitors is 0.071
    assert hits["low"] < 20 / 28 < hits["high"]
    assert hits["low"] < hits["value"] < hits["high"]
    # the two items of the history score at most 1, so showing them does not change the first item
    assert returning["rankings"]["seen_shown"]["mf"]["mrr@20"]["value"] == 1
    assert returning["primary"] == "seen_hidden"
    assert result["main_protocol"] == "returning_visitors"
    assert result["ratings"] is None
    assert result["notes"] == []
    assert result["step"] == 10


def test_the_trend_of_a_case_does_not_see_its_future(tmp_path, open_run, monkeypatch):
    day = 24 * 60 * 60 * 1000
    names = [f"v{number}" for number in range(5)]
    train = [(name, "i0", "view", day) for name in names] + [(f"w{number}", "i1", "view", 8 * day) for number in "abcd"]
    test = [(name, "i1", "view", 10 * day + 1) for name in names]
    # visitors without a history, who are no cases
    test += [(f"stranger{number}", "i2", "view", 10 * day + 2 + number * day // 10) for number in range(30)]
    dataset = build_dataset(
        str(tmp_path / "dataset"), train=train, test=test, visitors=[*names, "wa", "wb", "wc", "wd"], items=ITEMS
    )
    weights = dict.fromkeys(RANKINGS, BlendWeights(parts=(), trend=1.0, half_life_days=7.0))
    counts, events = dataset.item_counts, read_item_events(dataset)
    latest = latest_trends(events, half_lives_of(weights))
    assert latest[0].values[0].argmax() == 2
    open_run(dataset, "mf", BlendInference([], weights=weights, item_counts=counts, trends=latest))
    monkeypatch.setattr("trainer.evaluate.build_baselines", lambda *_, **__: {})
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    for protocol in result["protocols"].values():
        # at the start of day 10, item 1 has the highest trend: 4 events of 2 days ago, but 5 of 9 days ago for item 0
        assert protocol["cases"]["cases"] == 5
        assert protocol["rankings"][protocol["primary"]]["mf"]["mrr@1"]["value"] == 1


def test_next_items_are_evaluated_too(evaluated):
    next_item = evaluated[1]["protocols"]["next_item"]
    # one row per visitor, and a second of v0, who returns to item 0; the second row of v1 has an unknown item
    assert next_item["cases"] == {
        "visitors": 40,
        "cases": 41,
        "cases_in_all": 41,
        "relevant_items": 41,
        "without_history": 1,  # the stranger
        "without_relevant_items": 1,
        "unknown_item_share": pytest.approx(1 / 42),
        "catalogue_items": 30,
        "available_items": 30,
    }
    # for v0, item 11 scores 10 and item 0 scores 1, which is second
    assert next_item["rankings"]["seen_shown"]["mf"]["mrr@20"]["value"] == pytest.approx((40 + 1 / 2) / 41)
    # the case with the return is excluded where seen items are hidden
    assert next_item["rankings"]["seen_hidden"]["mf"]["mrr@20"]["value"] == 1
    groups = next_item["groups"]
    assert {name: group["cases"] for name, group in groups.items()} == {
        "view events": 40,
        "addtocart events": 1,
        "history 2-4": 41,
        "known visitors": 41,
        "middle items": 1,  # 40 of 80 events are of item 10, and item 0 is next
        "cold items": 40,
    }
    assert groups["addtocart events"]["ranking"]["mf"]["mrr@20"]["value"] == pytest.approx(1 / 2)


def test_unavailable_items_are_also_ranked_without(tmp_path, open_run):
    """Items 11 and 12 are not available: the 8 visitors that view them next are missed."""
    dataset = build(str(tmp_path / "dataset"), available={"i11": False, "i12": False, "i13": True})
    open_run(dataset, "mf", knowing_model())
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    returning = result["protocols"]["returning_visitors"]
    assert returning["cases"]["available_items"] == 28
    assert returning["rankings"]["seen_hidden"]["mf"]["recall@1"]["value"] == 1
    assert returning["rankings"]["available_only"]["mf"]["recall@1"]["value"] == pytest.approx(32 / 40)
    assert "Available items only: NDCG@20 is 0.800 for mf and " in summary_text(result)


def test_above_a_limit_a_sample_of_the_cases_is_evaluated(tmp_path, open_run, monkeypatch):
    monkeypatch.setattr("trainer.evaluate.MAX_SCORES", 25 * 30)
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    cases = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)["protocols"]["returning_visitors"]["cases"]
    assert (cases["cases"], cases["cases_in_all"]) == (25, 40)


def test_a_setting_limits_the_cases_and_the_summary_says_so(tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST, config=EvaluationConfig(max_cases=7))
    cases = [protocol["cases"] for protocol in result["protocols"].values()]
    assert [(found["cases"], found["cases_in_all"]) for found in cases] == [(7, 40), (7, 41)]
    assert cases[0]["catalogue_items"] == 30  # all are candidates
    assert "returning visitors: 7 cases (sampled from 40), 7 visitors, 30 items" in summary_text(result)


def test_skipped_visitors_are_counted(evaluated):
    # the stranger has no history; one of the 42 rows of the others has an unknown item
    assert evaluated[1]["protocols"]["returning_visitors"]["cases"] == {
        "visitors": 40,
        "cases": 40,
        "cases_in_all": 40,
        "relevant_items": 40,
        "without_history": 1,
        "without_relevant_items": 0,
        "unknown_item_share": pytest.approx(1 / 42),
        "catalogue_items": 30,
        "available_items": 30,
    }


def test_the_result_is_written_into_the_run_and_its_summary_is_printed(evaluated, monkeypatch, capsys):
    workdir, result = evaluated
    assert json.loads((workdir / "evaluation-test.json").read_text()) == result
    lines = summary_text(result).split("\n")
    assert lines[0] == "Step 10, test split, returning visitors: 40 cases, 40 visitors, 30 items"
    assert lines[2].split()[:4] == ["mf", "1.000", "[1.000,", "1.000]"]
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 20

    monkeypatch.setattr("trainer.evaluate.evaluate", lambda **_: result)
    monkeypatch.setattr("trainer.pages.report.try_to_write_report", lambda *_, **__: None)
    command = ["evaluate", "--workdir", str(workdir)]
    assert cli.main(command) == 0
    assert capsys.readouterr().out.splitlines()[:-2] == lines  # without the paths of result and report
    assert cli.main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result


def test_a_run_with_the_name_of_a_baseline_is_marked_as_the_model(tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model(), name="popular")
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    ranking = result["protocols"]["returning_visitors"]["rankings"]["seen_hidden"]
    assert list(ranking)[:2] == ["popular (model)", "popular"]
    assert ranking["popular (model)"]["ndcg@10"]["value"] == 1


def test_evaluating_a_run_twice_gives_the_same_result(evaluated, tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    again = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    assert again | {name: evaluated[1][name] for name in ("workdir", "dataset")} == evaluated[1]


def test_rating_models_are_compared_with_the_mean_and_a_random_split_is_marked_as_leaking(tmp_path, open_run, caplog):
    dataset = build(str(tmp_path / "dataset"), SplitMethod.RANDOM)
    constant = DotModel(np.zeros((NUM_VISITORS, 1)), np.zeros((30, 1)), np.full(30, 1.5))
    open_run(dataset, "notebook-mf", constant)
    with caplog.at_level(logging.WARNING):
        result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    ratings = result["ratings"]
    # 43 test rows, 42 with weight 1 and one with 2; the fake predicts 1.5, and 0 for the unknown item
    assert ratings["rows"] == 43
    assert ratings["mse"] == pytest.approx((42 * 0.25 + 1) / 43)
    # training: 40 rows with weight 1, 40 with weight 3: mean 2
    assert ratings["mse_of_training_mean"] == pytest.approx(42 / 43)
    assert ratings["mse_of_one"] == pytest.approx(1 / 43)
    assert ratings["skill"] == pytest.approx(1 - 11.5 / 42)
    assert result["is_leaking"]
    assert "split at random" in result["notes"][0]
    assert result["notes"] == caplog.messages


def test_without_returning_visitors_there_is_a_note_and_no_ranking(tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset"), returning=False), "notebook-mf", knowing_model())
    result = evaluate(workdir=str(tmp_path / "run"), split=Split.TEST)
    rankings = result["protocols"]["returning_visitors"]["rankings"]
    assert rankings == {"seen_hidden": None, "seen_shown": None, "available_only": None}
    assert result["ratings"]["rows"] == 3
    assert "no cases" in result["notes"][0]


def test_a_missing_split_raises(tmp_path, open_run):
    open_run(build(str(tmp_path / "dataset")), "mf", knowing_model())
    with pytest.raises(ContractError, match="no validation split"):
        evaluate(workdir=str(tmp_path / "run"), split=Split.VALIDATION)
    assert not (tmp_path / "run").exists()
