"""Models of the library `implicit`: ALS, BPR, and the similarities of its TF-IDF and BM25 item kNN.

Shapes: B requests, V visitors and I items of the vocabularies, D embedding.
"""

import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from benchmarks.peers.interface import PeerData, Requests, break_ties, history_weights

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A factorization. A score is the dot product of the visitor's and the item's factors."""

    data: PeerData
    visitors: np.ndarray
    """[V, D] float32."""
    items: np.ndarray
    """[I, D] float32."""
    solver: Any = None
    """ALS model that computes visitor factors from histories; None: use `visitors`."""
    is_binary: bool = True
    """Whether the solver ignores repetitions of an item in a history."""

    def scores(self, requests: Requests) -> np.ndarray:
        """Returns float32 scores [B, I]. Without `self.solver`, unknown visitors have zero factors."""
        return break_ties(self._embed(requests) @ self.items.T, self.data.counts)

    def _embed(self, requests: Requests) -> np.ndarray:
        """Returns visitor factors [B, D]."""
        if self.solver is None:
            is_known = requests.visitor < len(self.visitors)
            return np.where(is_known[:, None], self.visitors[np.where(is_known, requests.visitor, 0)], 0)
        touched = history_weights(requests, len(self.items), 0.0, is_distinct=self.is_binary)
        with _single_threaded_blas():
            return np.asarray(self.solver.recalculate_user(np.arange(touched.shape[0]), touched), np.float32)


def fit_als(
    data: PeerData,
    *,
    factors: int,
    alpha: float,
    regularization: float,
    iterations: int,
    folds_in: bool,
    is_binary: bool,
) -> Factors:
    """Fits ALS (Hu et al., ICDM 2008).

    Args:
      data: training events.
      factors: number of factors, D.
      alpha: weight of a visitor-item pair with one event; pairs without events have weight 1.
      regularization: weight of the squared factors in the objective.
      iterations: number of sweeps over the visitors and the items.
      folds_in: whether to compute a visitor's factors from the history of the request.
      is_binary: whether further events of a pair leave its weight unchanged; otherwise, the weight is proportional to
        the number of events.
    """
    from implicit.als import AlternatingLeastSquares

    # `implicit` has threads of its own; if each of them starts BLAS threads, it takes three to eight times as long
    with _single_threaded_blas():
        model = AlternatingLeastSquares(
            factors=factors, alpha=alpha, regularization=regularization, iterations=iterations, random_state=_SEED
        )
        model.fit(_weighted(data.interactions, is_binary=is_binary), show_progress=False)
    solver = model if folds_in else None
    return Factors(
        data=data,
        visitors=np.asarray(model.user_factors),
        items=np.asarray(model.item_factors),
        solver=solver,
        is_binary=is_binary,
    )


def fit_bpr(data: PeerData, *, factors: int, learning_rate: float, regularization: float, iterations: int) -> Factors:
    """Fits BPR (Rendle et al., UAI 2009) in `iterations` epochs.

    `regularization` weights the squared factors. The vectors have `factors` + 1 numbers, including the item bias.
    """
    from implicit.bpr import BayesianPersonalizedRanking

    with _single_threaded_blas():
        model = BayesianPersonalizedRanking(
            factors=factors,
            learning_rate=learning_rate,
            regularization=regularization,
            iterations=iterations,
            random_state=_SEED,
        )
        model.fit(_weighted(data.interactions, is_binary=True), show_progress=False)
    return Factors(data=data, visitors=np.asarray(model.user_factors), items=np.asarray(model.item_factors))


def fit_similarity(
    kind: Literal["tfidf", "bm25"],
    interactions: sp.csr_matrix,
    *,
    num_neighbours: int,
    k1: float = 1.2,
    b: float = 0.75,
) -> sp.csr_matrix:
    """Returns `implicit`'s float32 item similarities [I, I] from interactions [V, I]; BM25 uses `k1` and `b`."""
    from implicit.nearest_neighbours import BM25Recommender, TFIDFRecommender

    model = TFIDFRecommender(K=num_neighbours) if kind == "tfidf" else BM25Recommender(K=num_neighbours, K1=k1, B=b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the conversion of its own weights
        model.fit(_weighted(interactions, is_binary=True), show_progress=False)
    return model.similarity.astype(np.float32)


def _weighted(interactions: sp.csr_matrix, *, is_binary: bool) -> sp.csr_matrix:
    return (interactions > 0).astype(np.float32).tocsr() if is_binary else interactions


def _single_threaded_blas() -> AbstractContextManager[Any]:
    """Limits BLAS to one thread, as `implicit` recommends; affects only libraries loaded so far."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")
