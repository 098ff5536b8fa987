"""Peers that score items by their relation to the items of a history: the item walk, item kNN and EASE.

Shapes: B requests, T training timelines, I items, n items of EASE.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import spotrf, spotri

from benchmarks.peers.interface import PeerData, Requests, break_ties, fill_up, history_weights

_DENSE_SHARE = 0.02  # above it, a dense product is faster than a sparse one


@dataclass(frozen=True, kw_only=True)
class ItemWalk:
    """Scores items by a walk from the history's items to timelines, and on to all items of these timelines.

    The weight from item i to item j is n_i^-item · n_j^-neighbour · Σ_u n_u^-visitor, summed over the timelines u that
    contain i and j. n_i is the number of timelines that contain i; n_u is the number of items of u. RP3β (Paudel et
    al., TiiS 2016) has item = visitor = 1 and neighbour = β.
    """

    data: PeerData
    item: float
    """Exponent in n_i^-item; i is an item of the history."""
    neighbour: float
    """Exponent in n_j^-neighbour; j is the item that is scored."""
    visitor: float
    """Exponent in n_u^-visitor; u is a timeline with both items."""
    recency: float
    """Exponent of `history_weights`; with 0, the age of a row has no effect."""
    is_distinct: bool = False
    """Whether a repeated item has only the weight of its latest row."""

    def scores(self, requests: Requests) -> np.ndarray:
        baskets, num_items = self.data.timelines.baskets, len(self.data.counts)
        item_size = np.maximum(np.bincount(baskets.indices, minlength=num_items), 1.0)
        timeline_size = np.maximum(np.diff(baskets.indptr), 1.0)
        history = history_weights(requests, num_items, self.recency, is_distinct=self.is_distinct)
        at_timelines = (history @ _diagonal(item_size, self.item)) @ baskets.T @ _diagonal(timeline_size, self.visitor)
        reached = dense_product(at_timelines.tocsr(), baskets)
        return fill_up(reached * (item_size**-self.neighbour).astype(np.float32), self.data.counts)


def dense_product(left: sp.csr_matrix, right: sp.csr_matrix) -> np.ndarray:
    """Returns the product [B, I] of sparse matrices [B, T] and [T, I]."""
    if left.nnz > _DENSE_SHARE * np.prod(left.shape):
        return np.asarray((right.T @ left.toarray().T).T)
    return np.asarray((left @ right).toarray())


def _diagonal(sizes: np.ndarray, power: float) -> sp.dia_matrix:
    return sp.diags((sizes**-power).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class ItemNeighbours:
    """Scores an item by the sum of its similarities to the items of the history."""

    data: PeerData
    similarity: sp.csr_matrix
    """[I, I] float32; row i has the similarities of item i to its nearest items."""
    recency: float
    """Exponent of `history_weights`; with 0, the age of a row has no effect."""
    is_distinct: bool = True
    """Whether a repeated item has only the weight of its latest row."""

    def scores(self, requests: Requests) -> np.ndarray:
        counts = self.data.counts
        history = history_weights(requests, len(counts), self.recency, is_distinct=self.is_distinct)
        return fill_up(history @ self.similarity, counts)


@dataclass(frozen=True, kw_only=True)
class Ease:
    """EASE (Steck, WWW 2019) over the most frequent items; other items rank last, by popularity."""

    data: PeerData
    weights: np.ndarray
    """[n, n] float32, from `fit_ease`."""
    recency: float
    """Exponent of `history_weights`; with 0, the age of a row has no effect."""

    def scores(self, requests: Requests) -> np.ndarray:
        counts, num_kept = self.data.counts, len(self.weights)
        history = history_weights(requests, num_kept, self.recency, is_distinct=True)
        kept = break_ties(history @ self.weights, counts[:num_kept])
        # the vocabulary is in order of frequency, so the kept items are the first ones
        rest = kept.min(axis=1, keepdims=True) + (counts[num_kept:] / (counts.max() + 1.0) - 1)
        return np.concatenate([kept, rest.astype(np.float32)], axis=1)


def fit_ease(baskets: sp.csr_matrix, l2: float, max_items: int) -> np.ndarray:
    """Returns float32 weights [n, n] between the n most frequent items; n is the smaller of I and `max_items`.

    `baskets` [T, I] has a 1 where a timeline contains an item. The columns are the items, most frequent first.

    Raises ValueError if `l2` is too small for float32.
    """
    kept = baskets[:, : min(max_items, baskets.shape[1])]
    gramian = np.asfortranarray((kept.T @ kept).toarray(), dtype=np.float32)
    gramian[np.diag_indices_from(gramian)] += l2
    factor, failed = spotrf(gramian, lower=1, overwrite_a=1)
    inverse, singular = spotri(factor, lower=1, overwrite_c=1)
    if failed or singular:
        raise ValueError(f"EASE cannot be solved with l2 {l2} in float32; raise l2")
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return np.ascontiguousarray(weights)
