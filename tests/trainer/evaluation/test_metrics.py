import numpy as np
import pytest

from trainer.evaluation.metrics import RelevantRanks, hit_rate, metric_values, mrr, ndcg, recall

# Case 0 has three relevant items, at ranks 0, 2 and 99; case 1 has one at rank 3; case 2 has one at rank 50.
RANKS = RelevantRanks(
    rank=np.array([2, 0, 99, 3, 50]), owner=np.array([0, 0, 0, 1, 2]), num_relevant=np.array([3, 1, 1])
)


def test_recall_divides_hits_by_the_relevant_items_that_fit_in_the_list():
    np.testing.assert_allclose(recall(RANKS, 5), [2 / 3, 1, 0])
    # a list of two has at most two hits
    np.testing.assert_allclose(recall(RANKS, 2), [1 / 2, 0, 0])


def test_ndcg_discounts_by_the_logarithm_of_the_rank():
    # the first case has (1/log2(2) + 1/log2(4)) / (1/log2(2) + 1/log2(3) + 1/log2(4)) = 1.5 / 2.13093 = 0.70392
    # the second case has 1/log2(5) = 0.43068
    np.testing.assert_allclose(ndcg(RANKS, 5), [0.70392, 0.43068, 0], atol=1e-5)


def test_ndcg_of_a_full_list_of_relevant_items_is_one():
    ranks = RelevantRanks(rank=np.array([0, 1, 2, 3]), owner=np.zeros(4, int), num_relevant=np.array([4]))
    assert ndcg(ranks, 2)[0] == pytest.approx(1)
    assert recall(ranks, 2)[0] == pytest.approx(1)


def test_mrr_uses_the_first_relevant_item_only():
    np.testing.assert_allclose(mrr(RANKS, 5), [1, 1 / 4, 0])


def test_hit_rate_is_1_if_there_is_any_hit():
    np.testing.assert_allclose(hit_rate(RANKS, 4), [1, 1, 0])
    np.testing.assert_allclose(hit_rate(RANKS, 3), [1, 0, 0])


def test_there_is_every_metric_for_every_list_length():
    values = metric_values(RANKS, (1, 5))
    assert set(values) == {f"{name}@{k}" for name in ("recall", "ndcg", "mrr", "hit_rate") for k in (1, 5)}
    # a list of one: only case 0 has a hit, and no more fit
    for name in ("recall@1", "ndcg@1", "mrr@1", "hit_rate@1"):
        np.testing.assert_allclose(values[name], [1, 0, 0])
