import dataclasses

import numpy as np
import pytest

from tests.trainer.ranking.fakes import TableScorer, cases_of, lists_of
from trainer.evaluation.comparison import compare_systems

NUM_ITEMS = 30


def compare(groups=None, cases=None):
    """Forty visitors with history [0]; one system puts the relevant item 1 first, the other last."""
    cases = cases or cases_of([[0]] * 40, [[1]] * 40, NUM_ITEMS)
    best = np.tile(np.where(np.arange(NUM_ITEMS) == 1, 9.0, 1.0), (40, 1))
    systems = {"knows": TableScorer(best), "fails": TableScorer(-best)}
    return compare_systems(systems, cases, groups or {}, np.ones(NUM_ITEMS, np.int64), seed=0)


def test_each_figure_has_an_interval_and_those_beside_the_first_system_a_p_value():
    ranking = compare()["ranking"]
    assert ranking["knows"]["ndcg@20"] == {"value": 1, "low": 1, "high": 1}
    # no resample of a thousand has another sign: 2 × (0 + 1) / (1000 + 1)
    assert ranking["fails"]["ndcg@20"] == {"value": 0, "low": 0, "high": 0, "p": pytest.approx(2 / 1001)}
    # in lists of a hundred both find it: no resample differs
    assert ranking["fails"]["recall@100"] == {"value": 1, "low": 1, "high": 1, "p": 1}


def test_any_two_systems_are_told_apart_by_a_paired_test():
    """Of 40 visitors the first system serves 30 and the others 29 of these, the one as the other."""
    hits = np.where(np.arange(NUM_ITEMS) == 1, 9.0, 1.0)
    served = {"first": 30, "second": 29, "third": 29}
    systems = {
        name: TableScorer(np.where(np.arange(40)[:, None] < count, hits, -hits)) for name, count in served.items()
    }
    cases = cases_of([[0]] * 40, [[1]] * 40, NUM_ITEMS)
    pairs = compare_systems(systems, cases, {}, np.ones(NUM_ITEMS), seed=0)["pairs"]
    assert {metric: {first: list(others) for first, others in of.items()} for metric, of in pairs.items()} == {
        metric: {"first": ["second", "third"], "second": ["third"]} for metric in ("ndcg@20", "recall@20", "mrr@20")
    }
    nearly = pairs["recall@20"]["first"]["second"]
    assert nearly["difference"] == pytest.approx(1 / 40)
    # the one visitor is left out of (39 / 40) ** 40 = .363 of the resamples, and may be drawn four times
    assert (nearly["low"], nearly["p"]) == (0, pytest.approx(2 * 0.363, abs=0.05))
    assert 2 / 40 <= nearly["high"] <= 4 / 40
    assert pairs["recall@20"]["second"]["third"] == {"difference": 0, "low": 0, "high": 0, "p": 1}


def test_coverage_gini_and_novelty_have_a_value_alone():
    ranking = compare()["ranking"]
    # everybody is shown item 1 first: one of 30 items; all items have one of 30 events
    assert ranking["knows"]["coverage@1"] == {"value": pytest.approx(1 / 30)}
    assert ranking["knows"]["gini@1"] == {"value": pytest.approx(29 / 30)}
    assert ranking["knows"]["novelty@1"] == {"value": pytest.approx(np.log2(30))}


def test_a_group_counts_its_own_relevant_items_in_the_whole_ranking():
    # visitor 0 has relevant items 1 (a view) and 2 (a cart): of the cart, place 1 after item 1
    cases = cases_of([[0]], [[1, 2]], NUM_ITEMS)
    scores = -np.arange(NUM_ITEMS, dtype=float)[None]
    groups = {"views": np.array([True, False]), "carts": np.array([False, True])}
    result = compare_systems({"model": TableScorer(scores)}, cases, groups, np.ones(NUM_ITEMS), seed=0)["groups"]
    assert result["views"]["ranking"]["model"]["mrr@20"]["value"] == 1
    assert result["carts"]["ranking"]["model"]["mrr@20"]["value"] == pytest.approx(1 / 2)
    assert (result["carts"]["cases"], result["carts"]["relevant_items"]) == (1, 1)
    # at every list length: the second place is not within the first, and is within the first five
    carts = result["carts"]["ranking"]["model"]
    assert [carts[f"recall@{k}"]["value"] for k in (1, 5, 10, 20, 100)] == [0, 1, 1, 1, 1]


def test_a_group_is_a_mean_over_its_own_cases():
    groups = {"first ten": np.arange(40) < 10}
    cases = cases_of([[0]] * 40, [[1]] * 10 + [[2]] * 30, NUM_ITEMS)
    result = compare(groups, cases)
    assert result["groups"]["first ten"]["ranking"]["knows"]["ndcg@20"]["value"] == 1
    assert result["groups"]["first ten"]["cases"] == 10
    # item 2 ties with 27 others that may be shown: none of the other thirty finds it
    assert result["ranking"]["knows"]["ndcg@20"]["value"] == pytest.approx(10 / 40)


def test_what_a_visitor_returns_to_is_found_where_seen_items_are_shown():
    """He has seen item 0, and touches it again beside the new item 1."""
    cases = dataclasses.replace(cases_of([[0]], [[1]], NUM_ITEMS), relevant_otherwise=lists_of([[0, 1]]))
    result = compare_systems(
        {"model": TableScorer(-np.arange(NUM_ITEMS, dtype=float)[None])}, cases, {}, np.ones(NUM_ITEMS), seed=0
    )
    assert result["ranking"]["model"]["recall@1"]["value"] == 1
    # both on top: were item 0 not relevant, item 1 would stand second, and recall@1 would be 0
    assert result["ranking_otherwise"]["model"]["recall@1"]["value"] == 1
    assert result["ranking_otherwise"]["model"]["ndcg@5"]["value"] == 1


def test_the_other_treatment_of_seen_items_counts_only_cases_whose_item_is_new():
    """Next items: visitor 0 comes back to item 0, visitor 1 goes on to item 2 behind item 0, which he has seen."""
    cases = dataclasses.replace(
        cases_of([[0], [0]], [[0], [2]], NUM_ITEMS), hides_seen=False, is_new=np.array([False, True])
    )
    scores = np.tile(-np.array([0, 2, 1, *range(3, NUM_ITEMS)], float), (2, 1))
    result = compare_systems({"model": TableScorer(scores)}, cases, {}, np.ones(NUM_ITEMS), seed=0)
    assert result["ranking"]["model"]["mrr@20"]["value"] == pytest.approx((1 + 1 / 2) / 2)
    assert result["ranking_otherwise"]["model"]["mrr@20"]["value"] == 1
