"""The peers score as their own recommend function; needs `implicit`, which `make setup` installs."""

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import peers
from tests.trainer.ranking.fakes import queries_of

pytest.importorskip("implicit", reason="implicit is not here: make setup")

# visitors of the even items 0 and 2, of the odd items 1 and 3; item 4 with both
MATRIX = sp.csr_matrix(np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 1, 1], [0, 1, 0, 1, 0]], np.float32))
HISTORY = [MATRIX[visitor].indices.tolist() for visitor in range(MATRIX.shape[0])]
SETTINGS = {
    "implicit_als": {"factors": 3, "alpha": 5.0, "regularization": 0.1, "iterations": 3},
    "implicit_bpr": {"factors": 3, "learning_rate": 0.05, "regularization": 0.01, "iterations": 5},
    "implicit_tfidf": {"K": 5},
}


def own_scores(model, visitor, **more):
    """[I] scores of all items by `implicit` itself."""
    items, scores = model.recommend(visitor, MATRIX[visitor], N=5, filter_already_liked_items=False, **more)
    found = np.zeros(5, np.float32)
    found[items] = scores
    return found


@pytest.mark.parametrize("family", SETTINGS)
def test_a_peer_scores_as_it_recommends(family, monkeypatch):
    models = []
    scorer = peers._scorer
    monkeypatch.setattr(peers, "_scorer", lambda *given: models.append(given[2]) or scorer(*given))
    fitted = peers.fit(family, SETTINGS[family], MATRIX)
    scores = fitted.scorer.catalogue_scores(queries_of(range(4), HISTORY)).numpy()
    for visitor in range(4):
        np.testing.assert_allclose(scores[visitor], own_scores(models[0], visitor), rtol=1e-4, atol=1e-5)


def test_visitor_vectors_are_computed_from_the_given_history(monkeypatch):
    models = []
    scorer = peers._scorer
    monkeypatch.setattr(peers, "_scorer", lambda *given: models.append(given[2]) or scorer(*given))
    fitted = peers.fit("implicit_als", {**SETTINGS["implicit_als"], "folds_in": True}, MATRIX)
    # unknown to training, with the history of visitor 2
    scores = fitted.scorer.catalogue_scores(queries_of([99], [HISTORY[2]])).numpy()
    np.testing.assert_allclose(scores[0], own_scores(models[0], 2, recalculate_user=True), rtol=1e-4, atol=1e-5)


def test_every_search_starts_from_settings_in_its_space_that_fit_accepts():
    for family, search in peers.SEARCHES.items():
        assert set(search.values) <= set(search.begin)
        small = {**search.begin, **({"factors": 2} if "factors" in search.begin else {})}
        assert peers.fit(family, small | ({"iterations": 1} if "iterations" in small else {}), MATRIX).seconds >= 0
