"""Compares the scores of the `implicit` peers with the library's own `recommend`. `make setup` installs the library."""

import numpy as np
import pytest

from benchmarks.peers.implicit_models import fit_als, fit_bpr, fit_similarity
from tests.benchmarks.peers.requests import data_of, requests_of

pytest.importorskip("implicit", reason="implicit is not here: make setup")

# two visitors have the even items 0 and 2, two the odd items 1 and 3; item 4 occurs with both; visitor 1 has 2 twice
TIMELINES = [[0, 2, 4], [0, 2, 2], [1, 3, 4], [1, 3]]
ALS = {"factors": 3, "alpha": 5.0, "regularization": 0.1, "iterations": 3}


def own_scores(model, visitor, touched, **more):
    """Returns the scores [I] that `implicit` itself computes for all items."""
    items, scores = model.recommend(visitor, touched, N=5, filter_already_liked_items=False, **more)
    found = np.zeros(5, np.float32)
    found[items] = scores
    return found


@pytest.mark.parametrize("is_binary", [True, False])
def test_als_computes_visitor_factors_from_the_given_history(is_binary):
    data = data_of(TIMELINES, 5)
    peer = fit_als(data, **ALS, folds_in=True, is_binary=is_binary)
    # a visitor unknown to training, with the history of visitor 1
    scores = peer.scores(requests_of([TIMELINES[1]], visitors=[99]))
    touched = data.interactions[1].copy()
    if is_binary:
        touched.data[:] = 1
    expected = own_scores(peer.solver, 1, touched, recalculate_user=True)
    np.testing.assert_allclose(scores[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "fit",
    [
        lambda data: fit_als(data, **ALS, folds_in=False, is_binary=True),
        lambda data: fit_bpr(data, factors=3, learning_rate=0.05, regularization=0.01, iterations=5),
    ],
    ids=["als", "bpr"],
)
def test_factors_of_the_fit_are_used_for_known_visitors_and_popularity_for_others(fit):
    peer = fit(data_of(TIMELINES, 5))
    scores = peer.scores(requests_of([[], []], visitors=[2, 99]))
    np.testing.assert_allclose(scores[0], peer.visitors[2] @ peer.items.T, rtol=1e-4, atol=1e-5)
    assert scores[1].argmax() == 2  # three events


def test_similarities_ignore_repeated_events_and_keep_the_nearest():
    interactions = data_of(TIMELINES, 5).interactions
    once = data_of([[0, 2, 4], [0, 2], [1, 3, 4], [1, 3]], 5).interactions
    for kind in ("tfidf", "bm25"):
        similarity = fit_similarity(kind, interactions, num_neighbours=2).toarray()
        np.testing.assert_allclose(similarity, fit_similarity(kind, once, num_neighbours=2).toarray())
        assert np.argsort(-similarity[0])[:2].tolist() in ([0, 2], [2, 0])
        assert ((similarity > 0).sum(axis=1) <= 2).all()
