import dataclasses

import numpy as np
import pytest

from tests.trainer.ranking.fakes import TableScorer, cases_of, lists_of
from trainer.evaluation.comparison import compare_systems

NUM_ITEMS = 30


def compare(groups=None, cases=None):
    """Compares two systems for 40 visitors with history [0]: one ranks the relevant item 1 first, the other last."""
    cases = cases or cases_of([[0]] * 40, [[1]] * 40, NUM_ITEMS)
    best = np.tile(np.where(np.arange(NUM_ITEMS) == 1, 9.0, 1.0), (40, 1))
    systems = {"knows": TableScorer(best), "fails": TableScorer(-best)}
    return compare_systems(systems, cases, groups or {}, np.ones(NUM_ITEMS, np.int64), seed=0)


def test_figures_have_intervals_and_those_of_later_systems_p_values():
    ranking = compare()["rankings"]["seen_hidden"]
    assert ranking["knows"]["ndcg@20"] == {"value": 1, "low": 1, "high": 1}
    # none of 1,000 resamples has another sign: 2 × (0 + 1) / (1000 + 1)
    assert ranking["fails"]["ndcg@20"] == {"value": 0, "low": 0, "high": 0, "p": pytest.approx(2 / 1001)}
    # both find the item in a list of 100: no resample differs
    assert ranking["fails"]["recall@100"] == {"value": 1, "low": 1, "high": 1, "p": 1}


def test_any_two_systems_are_compared_by_a_paired_test():
    """The first system has a hit for 30 of 40 visitors; both others have a hit for the same 29 of these."""
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
    # (39 / 40) ** 40 = .363 of the resamples do not contain the one visitor; others contain them up to four times
    assert (nearly["low"], nearly["p"]) == (0, pytest.approx(2 * 0.363, abs=0.05))
    assert 2 / 40 <= nearly["high"] <= 4 / 40
    assert pairs["recall@20"]["second"]["third"] == {"difference": 0, "low": 0, "high": 0, "p": 1}


def test_coverage_gini_and_novelty_have_a_value_only():
    ranking = compare()["rankings"]["seen_hidden"]
    # all visitors get item 1 first: one of 30 items; each item has one of 30 events
    assert ranking["knows"]["coverage@1"] == {"value": pytest.approx(1 / 30)}
    assert ranking["knows"]["gini@1"] == {"value": pytest.approx(29 / 30)}
    assert ranking["knows"]["novelty@1"] == {"value": pytest.approx(np.log2(30))}


def test_a_group_ranks_its_own_relevant_items_in_the_whole_catalogue():
    # visitor 0 has relevant items 1 (a view) and 2 (a cart): item 2 has rank 1, after item 1
    cases = cases_of([[0]], [[1, 2]], NUM_ITEMS)
    scores = -np.arange(NUM_ITEMS, dtype=float)[None]
    groups = {"views": np.array([True, False]), "carts": np.array([False, True])}
    result = compare_systems({"model": TableScorer(scores)}, cases, groups, np.ones(NUM_ITEMS), seed=0)["groups"]
    assert result["views"]["ranking"]["model"]["mrr@20"]["value"] == 1
    assert result["carts"]["ranking"]["model"]["mrr@20"]["value"] == pytest.approx(1 / 2)
    assert (result["carts"]["cases"], result["carts"]["relevant_items"]) == (1, 1)
    # for all list lengths: rank 1 is not in a list of one, but in all longer ones
    carts = result["carts"]["ranking"]["model"]
    assert [carts[f"recall@{k}"]["value"] for k in (1, 5, 10, 20, 100)] == [0, 1, 1, 1, 1]


def test_the_figures_of_a_group_are_means_over_its_own_cases():
    groups = {"first ten": np.arange(40) < 10}
    cases = cases_of([[0]] * 40, [[1]] * 10 + [[2]] * 30, NUM_ITEMS)
    result = compare(groups, cases)
    assert result["groups"]["first ten"]["ranking"]["knows"]["ndcg@20"]["value"] == 1
    assert result["groups"]["first ten"]["cases"] == 10
    # item 2 ties with 27 other visible items, so the other 30 cases have no hit
    assert result["rankings"]["seen_hidden"]["knows"]["ndcg@20"]["value"] == pytest.approx(10 / 40)


def test_returns_are_hits_where_seen_items_are_shown():
    """The visitor has seen item 0 and interacts with it again, and with the new item 1."""
    cases = dataclasses.replace(cases_of([[0]], [[1]], NUM_ITEMS), secondary_relevant=lists_of([[0, 1]]))
    result = compare_systems(
        {"model": TableScorer(-np.arange(NUM_ITEMS, dtype=float)[None])}, cases, {}, np.ones(NUM_ITEMS), seed=0
    )
    assert result["rankings"]["seen_hidden"]["model"]["recall@1"]["value"] == 1
    # both are on top; if item 0 were not relevant, item 1 would be second and recall@1 would be 0
    assert result["rankings"]["seen_shown"]["model"]["recall@1"]["value"] == 1
    assert result["rankings"]["seen_shown"]["model"]["ndcg@5"]["value"] == 1


def test_hiding_seen_items_ranks_only_cases_with_a_new_item():
    """The next item of visitor 0 is the seen item 0. The next item of visitor 1 is item 2, ranked after item 0."""
    cases = dataclasses.replace(
        cases_of([[0], [0]], [[0], [2]], NUM_ITEMS), hides_seen=False, is_new=np.array([False, True])
    )
    scores = np.tile(-np.array([0, 2, 1, *range(3, NUM_ITEMS)], float), (2, 1))
    result = compare_systems({"model": TableScorer(scores)}, cases, {}, np.ones(NUM_ITEMS), seed=0)
    assert result["rankings"]["seen_shown"]["model"]["mrr@20"]["value"] == pytest.approx((1 + 1 / 2) / 2)
    assert result["rankings"]["seen_hidden"]["model"]["mrr@20"]["value"] == 1


def test_with_only_available_items_the_others_are_missed():
    """Item 0 is seen, item 1 is not available; the order is 1, 2, 3, …"""
    cases = cases_of([[0]] * 2, [[1], [2]], NUM_ITEMS)
    scores = np.tile(-np.arange(NUM_ITEMS, dtype=float), (2, 1))
    systems = {"model": TableScorer(scores), "reverse": TableScorer(-scores)}
    is_available = np.arange(NUM_ITEMS) != 1
    rankings = compare_systems(systems, cases, {}, np.ones(NUM_ITEMS), seed=0, is_available=is_available)["rankings"]
    # with all items, item 1 is first and item 2 is second; without item 1, the first case has no hit
    assert rankings["seen_hidden"]["model"]["mrr@20"]["value"] == pytest.approx((1 + 1 / 2) / 2)
    assert rankings["available_only"]["model"]["mrr@20"]["value"] == pytest.approx((0 + 1) / 2)
    assert rankings["available_only"]["reverse"]["mrr@20"]["value"] == 0
    assert "p" in rankings["available_only"]["reverse"]["mrr@20"]
    assert "coverage@20" not in rankings["available_only"]["model"]


def test_without_unavailable_items_there_is_no_ranking_of_available_ones():
    assert compare()["rankings"]["available_only"] is None
