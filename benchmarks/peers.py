"""Models of the package `implicit` as scorers, with their search grids.

Shapes: V visitors and I items of the vocabularies, B queries, H history, D embedding.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from benchmarks.tuning import Search, Settings
from trainer.models.interface import Queries, Scorer

SEARCHES: Mapping[str, Search] = {
    # confidence `alpha` as in Hu et al. (2008); `folds_in`: visitor vectors are computed from the given histories
    "implicit_als": Search(
        begin={"factors": 64, "alpha": 80.0, "regularization": 0.01, "iterations": 15, "folds_in": False},
        values={
            "factors": (64, 128, 256),
            "alpha": (40.0, 80.0, 160.0, 320.0, 640.0),
            "regularization": (0.0001, 0.01, 1.0, 10.0, 100.0),
            "iterations": (3, 5, 7, 10, 15, 30),
            "folds_in": (False, True),
        },
    ),
    "implicit_bpr": Search(
        begin={"factors": 64, "learning_rate": 0.05, "regularization": 0.01, "iterations": 100},
        values={
            "learning_rate": (0.01, 0.05, 0.1, 0.2, 0.4),
            "factors": (64, 128, 256),
            "iterations": (100, 200, 400),
        },
    ),
    "implicit_tfidf": Search(begin={"K": 20}, values={"K": (20, 50, 100, 200, 500, 1000, 2000, 5000)}),
}


@dataclass(frozen=True)
class FittedPeer:
    """A fitted model and the seconds of its fit."""

    scorer: Scorer
    seconds: float


def fit(family: str, settings: Settings, matrix: sp.csr_matrix) -> FittedPeer:
    """Fits a model to [V, I] interactions with single-threaded BLAS, as its documentation recommends."""
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking
    from implicit.nearest_neighbours import TFIDFRecommender
    from threadpoolctl import threadpool_limits

    kinds = {
        "implicit_als": AlternatingLeastSquares,
        "implicit_bpr": BayesianPersonalizedRanking,
        "implicit_tfidf": TFIDFRecommender,
    }
    seed = {} if family == "implicit_tfidf" else {"random_state": 0}
    own = {name: value for name, value in settings.items() if name != "folds_in"}
    # `implicit` has its own threads, and with BLAS threads below each it takes three to eight times as long. The limit
    # applies to loaded libraries, so it follows the imports
    with threadpool_limits(1, "blas"):
        model = kinds[family](**own, **seed)
        begin = time.perf_counter()
        model.fit(matrix, show_progress=False)
        seconds = time.perf_counter() - begin
    return FittedPeer(_scorer(family, settings, model, matrix), seconds)


def _scorer(family: str, settings: Settings, model: Any, matrix: sp.csr_matrix) -> Scorer:
    if family == "implicit_tfidf":
        return _Neighbours(model.similarity, matrix.shape[1])
    solver = model if settings.get("folds_in") else None
    return _Factors(np.asarray(model.user_factors), np.asarray(model.item_factors), solver)


class _Factors:
    """Scorer of a factorization: dot products of visitor and item factors.

    Visitor factors are those of the fit or, if there is a `solver`, the ones that it computes from histories.
    """

    def __init__(self, visitors: np.ndarray, items: np.ndarray, solver: Any) -> None:
        # visitors unknown to training have no factors
        self._visitors = np.concatenate([visitors, np.zeros((1, visitors.shape[1]), np.float32)])
        self._items, self._solver = items, solver

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32 scores."""

        def visitors(visitor: np.ndarray, history: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            if self._solver is None:
                return self._visitors[np.minimum(visitor, len(self._visitors) - 1)]
            touched = _touched(history, lengths, len(self._items))
            return np.asarray(self._solver.recalculate_user(np.arange(len(visitor)), touched), np.float32)

        given = [queries.visitor, queries.history, queries.history_length]
        vectors = tf.numpy_function(visitors, given, tf.float32, stateful=False)
        return tf.ensure_shape(tf.matmul(vectors, self._items, transpose_b=True), [None, len(self._items)])


class _Neighbours:
    """Scorer that sums the similarities between an item and the items of the history."""

    def __init__(self, similarity: sp.csr_matrix, num_items: int) -> None:
        self._similarity, self._num_items = similarity, num_items

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """[B, I] float32 scores."""

        def score(history: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            near = _touched(history, lengths, self._num_items) @ self._similarity
            return np.asarray(near.toarray(), np.float32)

        scores = tf.numpy_function(score, [queries.history, queries.history_length], tf.float32, stateful=False)
        return tf.ensure_shape(scores, [None, self._num_items])


def _touched(history: np.ndarray, lengths: np.ndarray, num_items: int) -> sp.csr_matrix:
    """Returns [B, I] float32: 1 if the history [B, H] with lengths [B] contains the item."""
    is_entry = (np.arange(history.shape[1]) < lengths[:, None]) & (history < num_items)
    query, position = np.nonzero(is_entry)
    touched = sp.csr_matrix(
        (np.ones(len(query), np.float32), (query, history[query, position])), (len(history), num_items)
    )
    touched.sum_duplicates()
    touched.data[:] = 1
    return touched
