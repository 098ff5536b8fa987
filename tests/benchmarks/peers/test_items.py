"""Item walk, item kNN and EASE equal plain implementations on a few timelines."""

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks.peers.items import Ease, ItemNeighbours, ItemWalk, dense_product, fit_ease
from tests.benchmarks.peers.requests import data_of, requests_of

TIMELINES = [[0, 1, 2], [1, 2], [0, 1, 1, 3], [2, 0], [4, 1]]
HISTORIES = [[0, 1], [2], [3, 3, 1, 9]]  # item 9 is unknown


def walk(timelines, histories, num_items, *, item, neighbour, visitor, recency, is_distinct):
    """Returns the scores of a walk, computed by the formula."""
    sets = [set(items) for items in timelines]
    size = [max(sum(i in items for items in sets), 1) for i in range(num_items)]
    scores = np.zeros((len(histories), num_items))
    for row, history in enumerate(histories):
        for position, i in enumerate(history):
            if i >= num_items or (is_distinct and i in history[position + 1 :]):
                continue
            weight = (len(history) - position) ** -recency * size[i] ** -item
            for items in sets:
                for j in items if i in items else ():
                    scores[row, j] += weight * len(items) ** -visitor * size[j] ** -neighbour
    return scores


@pytest.mark.parametrize("is_distinct", [False, True])
def test_the_walk_equals_its_formula(is_distinct):
    powers = {"item": 0.35, "neighbour": 0.15, "visitor": 0.5, "recency": 1.0, "is_distinct": is_distinct}
    scores = ItemWalk(data=data_of(TIMELINES, 5), **powers).scores(requests_of(HISTORIES))
    expected = walk(TIMELINES, HISTORIES, 5, **powers)
    np.testing.assert_allclose(np.where(expected > 0, scores, 0), expected, rtol=1e-5)
    assert (scores[expected == 0] < 0).all()  # by popularity, below all others


def test_both_ways_of_the_product_are_equal():
    generator = np.random.default_rng(0)
    right = sp.random(20, 30, 0.2, format="csr", dtype=np.float32, random_state=1)
    for density in (0.01, 0.5):
        left = sp.csr_matrix((generator.random((10, 20)) < density).astype(np.float32))
        np.testing.assert_allclose(dense_product(left, right), (left @ right).toarray(), rtol=1e-5, atol=1e-6)


def test_item_knn_sums_the_similarities_of_the_history():
    similarity = sp.csr_matrix(np.array([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]], np.float32))
    peer = ItemNeighbours(data=data_of([[0], [1], [2]], 3), similarity=similarity, recency=1.0)
    # ages 1 and 0: half of row 0 plus row 1
    np.testing.assert_allclose(peer.scores(requests_of([[0, 1]])), [[1, 1.25, 0.25]], rtol=1e-6)


def test_ease_minimises_the_regularised_error_with_a_zero_diagonal():
    baskets = data_of(TIMELINES, 5).timelines.baskets
    x, l2 = baskets.toarray().astype(np.float64), 0.5
    expected = np.zeros((5, 5))
    for j in range(5):  # each column is a ridge regression on all other items
        others = [i for i in range(5) if i != j]
        gramian = x[:, others].T @ x[:, others] + l2 * np.eye(4)
        expected[others, j] = np.linalg.solve(gramian, x[:, others].T @ x[:, j])
    np.testing.assert_allclose(fit_ease(baskets, l2, 100), expected, rtol=1e-3, atol=1e-5)


def test_items_outside_ease_rank_last_by_popularity():
    data = data_of([[0, 1], [0, 1], [0, 1], [2, 3], [2]], 4)
    peer = Ease(data=data, weights=fit_ease(data.timelines.baskets, 1.0, 2), recency=0.0)
    scores = peer.scores(requests_of([[1], [3]]))
    assert np.argsort(-scores, axis=1).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert (scores[:, 2] > scores[:, 3]).all()


def test_ease_without_a_solution_is_rejected():
    with pytest.raises(ValueError, match="EASE cannot be solved with l2 -5"):
        fit_ease(data_of([[0, 1], [0, 1]], 2).timelines.baskets, -5.0, 2)
