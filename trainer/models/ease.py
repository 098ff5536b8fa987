"""EASE: the linear model that predicts each item of a visitor from their other items (Steck, WWW 2019).

X [T, R] contains the items of the training timelines. The weights W minimise |X - XW|² + l2 |W|², with a diagonal of 0:

    P = (XᵀX + l2)⁻¹,    W_ij = -P_ij / P_jj

A visitor's score of item j is the weighted sum of W_ij over the distinct items i of their history; later items have
higher weights. Nothing is learnt by gradients: `solver=count` computes the tables, see `training.count`.

Shapes: T training timelines (one per visitor), I items of the vocabulary, R items with weights (the first ones of the
vocabulary, which are the most frequent), N neighbours of an item.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import spotrf, spotri

from common.report.diagram_box import DiagramBox
from trainer.config.models import EaseConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.models.description import KNOWN_BY_HISTORY, NEW_ITEMS_RANK_LAST, ModelDescription, TableShapes
from trainer.models.item_neighbours import (
    NeighbourInference,
    NeighbourRows,
    neighbour_diagram,
    neighbour_tables,
    num_rows,
)
from trainer.models.item_products import largest
from trainer.models.table_rows import CountedRows, RowCounter, TableRows

_BLOCK_ENTRIES = 4_000_000
"""Maximum number of entries per block of an R × R matrix; a block is in memory in addition to the inverted matrix."""


def table_rows(model: EaseConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies the tables of neighbours and weights; see `item_neighbours.neighbour_tables`."""
    return neighbour_tables(model, dataset, "EASE")


def inference_model(model: EaseConfig, _: RunConfig, dataset: Dataset) -> NeighbourInference:
    """Builds the model that ranks; `fill` sets its weights later."""
    return NeighbourInference(model, dataset.item_counts)


def describe(config: RunConfig, *, has_content: bool) -> ModelDescription:  # noqa: ARG001 (content is not used)
    """Describes the model for its model card; see `models.build.DescribedModelFile`."""
    principle = "an item's score is the sum of the weights from the history's items to it, from a linear regression"
    limit = "Only the most frequent items, `num_frequent_items`, have weights. Other items rank last, by popularity."
    return ModelDescription(principle, (KNOWN_BY_HISTORY, limit, NEW_ITEMS_RANK_LAST))


def diagram(model: EaseConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    return neighbour_diagram(model, tables)


def row_counter(model: EaseConfig, baskets: sp.csr_matrix) -> RowCounter:
    """Returns a function that computes a replica's rows for `solver=count`; see `models.build.CountedModelFile`."""
    kept = baskets[:, : num_rows(model, baskets.shape[1])]

    @lru_cache(maxsize=1)
    def blocks(l2: float) -> list[NeighbourRows]:
        return list(ease_rows(kept, l2, model.num_neighbours))

    def count(combination: int, replica: int, num_replicas: int) -> Iterator[CountedRows]:
        first = 0
        for rows in blocks(model.combinations[combination].l2):
            owned = slice((replica - first) % num_replicas, None, num_replicas)
            first += len(rows.weight)
            yield rows.only(owned).counted()

    return count


def ease_rows(baskets: sp.csr_matrix, l2: float, num_neighbours: int) -> Iterator[NeighbourRows]:
    """Yields the neighbours of all items, in blocks; an item's neighbours have the largest absolute EASE weights.

    X is `baskets` [T, R], the items of T timelines. The computation takes 4 × R² bytes, and time in proportion to R³.

    Raises:
      ValueError: XᵀX + l2 × identity is not positive definite in float32.
    """
    inverse, size = _inverse(baskets, l2), baskets.shape[1]
    diagonal = np.diag(inverse)
    for block in _blocks(size):
        weights = inverse[block] / -diagonal
        weights[np.arange(len(weights)), np.arange(size)[block]] = 0
        absolute = np.abs(weights)
        kept = largest(sp.csr_matrix(absolute), num_neighbours)
        kept.data = weights[np.repeat(np.arange(len(weights)), np.diff(kept.indptr)), kept.indices]
        yield NeighbourRows.of_matrix(kept, num_neighbours, absolute.sum(axis=1, dtype=np.float64))


def _inverse(baskets: sp.csr_matrix, l2: float) -> np.ndarray:
    """[R, R] float32: the inverse of XᵀX + l2 × identity, with X = `baskets` [T, R]. Computed in place."""
    size = baskets.shape[1]
    gramian = np.empty((size, size), np.float32, order="F")
    by_item = baskets.T.tocsr()
    for block in _blocks(size):
        gramian[:, block] = (by_item @ baskets[:, block]).toarray()
    gramian[np.diag_indices(size)] += l2
    factor, failed = spotrf(gramian, lower=1, overwrite_a=1)
    inverse, singular = spotri(factor, lower=1, overwrite_c=1)
    if failed or singular:
        raise ValueError(f"EASE cannot be solved with model.l2={l2:g} in float32; raise model.l2")
    for block in _blocks(size):  # LAPACK sets the lower triangle only
        lower = np.tril(inverse[block, : block.stop], block.start)
        inverse[: block.start, block] = lower[:, : block.start].T
        inverse[block, block] = lower[:, block.start :] + np.tril(lower[:, block.start :], -1).T
    return inverse


def _blocks(size: int) -> Iterator[slice]:
    """Divides `size` items into blocks of n items; a matrix [n, size] has about `_BLOCK_ENTRIES` entries."""
    step = max(_BLOCK_ENTRIES // max(size, 1), 1)
    for first in range(0, size, step):
        yield slice(first, min(first + step, size))
