import numpy as np
import pytest

from trainer.evaluation.metrics import RelevantRanks, hit_rate, metric_values, mrr, ndcg, recall

# Visitor 0 has three relevant items, at ranks 0, 2 and far away; visitor 1 one at rank 3; visitor 2 one far away.
RANKS = RelevantRanks(
    rank=np.array([2, 0, 99, 3, 50]), owner=np.array([0, 0, 0, 1, 2]), num_relevant=np.array([3, 1, 1])
)


def test_recall_counts_found_items_of_those_that_fit_in_the_list():
    np.testing.assert_allclose(recall(RANKS, 5), [2 / 3, 1, 0])
    # at most two can be found in a list of two
    np.testing.assert_allclose(recall(RANKS, 2), [1 / 2, 0, 0])


def test_ndcg_discounts_by_the_logarithm_of_the_place():
    # visitor 0: (1/log2(2) + 1/log2(4)) / (1/log2(2) + 1/log2(3) + 1/log2(4)) = 1.5 / 2.13093 = 0.70392
    # visitor 1: 1/log2(5) = 0.43068
    np.testing.assert_allclose(ndcg(RANKS, 5), [0.70392, 0.43068, 0], atol=1e-5)


def test_ndcg_of_a_full_list_of_relevant_items_is_one():
    ranks = RelevantRanks(rank=np.array([0, 1, 2, 3]), owner=np.zeros(4, int), num_relevant=np.array([4]))
    assert ndcg(ranks, 2)[0] == pytest.approx(1)
    assert recall(ranks, 2)[0] == pytest.approx(1)


def test_mrr_looks_at_the_first_relevant_item_alone():
    np.testing.assert_allclose(mrr(RANKS, 5), [1, 1 / 4, 0])


def test_hit_rate_tells_whether_anything_was_found():
    np.testing.assert_allclose(hit_rate(RANKS, 4), [1, 1, 0])
    np.testing.assert_allclose(hit_rate(RANKS, 3), [1, 0, 0])


def test_every_metric_is_given_for_every_list_length():
    values = metric_values(RANKS, (1, 5))
    assert set(values) == {f"{name}@{k}" for name in ("recall", "ndcg", "mrr", "hit_rate") for k in (1, 5)}
    # a list of one: visitor 0 alone has found an item, and with it all that fit
    for name in ("recall@1", "ndcg@1", "mrr@1", "hit_rate@1"):
        np.testing.assert_allclose(values[name], [1, 0, 0])
