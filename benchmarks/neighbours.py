"""Two nearest-neighbour peers: one finds items similar to those of the history, the other finds similar timelines.

The peers use only the history of a visitor. The weight of an item in the history decreases with the number of later
rows, by default as 1 / (1 + later rows), similar to Ludewig and Jannach (UMUAI 2018).

Shapes: B queries, H history, T training timelines, I items.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from common.settings import check
from trainer.models.interface import Queries
from trainer.models.item_products import largest, largest_products


@dataclass(frozen=True, kw_only=True)
class NeighboursConfig:
    """Settings of the nearest-neighbour models of this module."""

    num_neighbours: int = 200
    """Number of nearest neighbours: similar items per item, or training timelines per history."""
    half_life_rows: float | None = None
    """Number of later rows after which an item's weight is halved; None: the weight is 1 / (1 + later rows)."""
    shrinkage: float = 0.0
    """Added to the product of two items' norms; lowers similarities from few timelines (Dacrema et al., RecSys 2019).
    """

    def __post_init__(self) -> None:
        check(self.num_neighbours >= 1, "neighbours.num_neighbours", self.num_neighbours, "at least 1")
        half_life = self.half_life_rows
        check(half_life is None or half_life > 0, "neighbours.half_life_rows", half_life, "above 0, or none")
        check(self.shrinkage >= 0, "neighbours.shrinkage", self.shrinkage, "at least 0")


_DEFAULTS = NeighboursConfig()


class ItemNeighbours:
    """Scores an item by the sum of its similarities to the items of the history."""

    def __init__(
        self, similarity: sp.csr_matrix, item_counts: np.ndarray, config: NeighboursConfig = _DEFAULTS
    ) -> None:
        """Takes similarities [I, I], and the number of training events of each item [I]."""
        self._similarity = similarity
        self._config = config
        self._fallback = _fallback(item_counts)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """Returns float32 scores [B, I]. Items that resemble no item of the history rank last, by popularity."""

        def score(items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            near = _history_weights(items, lengths, len(self._fallback), self._config) @ self._similarity
            return _filled_up(near, self._fallback)

        return _in_graph(score, queries, len(self._fallback))


class TimelineNeighbours:
    """Scores items by the nearest timelines: the training timelines most similar to the history.

    An item's score is the sum of the similarities of those nearest timelines that contain the item.
    """

    def __init__(self, baskets: sp.csr_matrix, item_counts: np.ndarray, config: NeighboursConfig = _DEFAULTS) -> None:
        """Takes T timelines as rows of `baskets` [T, I], and the number of training events of each item [I]."""
        self._baskets = baskets
        self._fallback = _fallback(item_counts)
        self._config = config
        # the cosine without the norm of the history, which is the same for all timelines
        self._by_item = _scaled_rows(baskets, 1 / np.sqrt(np.maximum(np.diff(baskets.indptr), 1))).T.tocsr()

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        """Returns float32 scores [B, I]. Items outside the nearest timelines rank last, by popularity."""

        def score(items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
            near = _history_weights(items, lengths, len(self._fallback), self._config) @ self._by_item
            return _filled_up(largest(near, self._config.num_neighbours) @ self._baskets, self._fallback)

        return _in_graph(score, queries, len(self._fallback))


def item_similarity(baskets: sp.csr_matrix, *, is_tfidf: bool, config: NeighboursConfig = _DEFAULTS) -> sp.csr_matrix:
    """Returns the cosines [I, I] between the columns of `baskets` [T, I]: I items in T timelines.

    Each item keeps its `num_neighbours` largest cosines. `is_tfidf` weights a timeline of n items by log(1 + I / n).
    """
    weight = np.ones(baskets.shape[0])
    if is_tfidf:
        weight = np.log1p(baskets.shape[1] / np.maximum(np.diff(baskets.indptr), 1))
    by_timeline = _scaled_rows(baskets, weight)  # [T, I]
    by_item = by_timeline.T.tocsr()  # [I, T]
    length = np.sqrt(np.asarray(by_item.multiply(by_item).sum(axis=1)).ravel())

    def to_cosines(product: sp.csr_matrix, rows: slice) -> None:
        of_row = np.repeat(length[rows], np.diff(product.indptr))
        product.data /= of_row * length[product.indices] + config.shrinkage

    return sp.vstack(list(largest_products(by_item, by_timeline, config.num_neighbours, to_cosines)), format="csr")


def _history_weights(items: np.ndarray, lengths: np.ndarray, num_items: int, config: NeighboursConfig) -> sp.csr_matrix:
    """Returns float32 weights [B, I] of the items in the histories `items` [B, H].

    The weights of a repeated item add up.
    """
    age = lengths[:, None] - 1 - np.arange(items.shape[1])
    query, column = np.nonzero((age >= 0) & (items < num_items))
    rows_after = age[query, column]
    half_life = config.half_life_rows
    weight = 1 / (1.0 + rows_after) if half_life is None else 0.5 ** (rows_after / half_life)
    return sp.csr_matrix((weight.astype(np.float32), (query, items[query, column])), (len(items), num_items))


def _fallback(item_counts: np.ndarray) -> np.ndarray:
    """Returns float32 scores [I], higher for more popular items. All are negative, so below all similarities."""
    return (item_counts / (item_counts.max(initial=0) + 1.0) - 1).astype(np.float32)


def _filled_up(near: sp.csr_matrix, fallback: np.ndarray) -> np.ndarray:
    """Converts sparse scores `near` [B, I] to dense ones. Items that `near` omits get their score from `fallback`."""
    scores = np.tile(fallback, (near.shape[0], 1))
    row = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))
    scores[row, near.indices] = near.data
    return scores


def _in_graph(score: Callable[[np.ndarray, np.ndarray], np.ndarray], queries: Queries, num_items: int) -> tf.Tensor:
    scores = tf.numpy_function(score, [queries.history, queries.history_length], tf.float32, stateful=False)
    return tf.ensure_shape(scores, [None, num_items])


def _scaled_rows(matrix: sp.csr_matrix, factors: np.ndarray) -> sp.csr_matrix:
    return (sp.diags(factors.astype(np.float32)) @ matrix).tocsr()
