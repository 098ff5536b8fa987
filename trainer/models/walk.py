"""Item walk: ranks items by the visitors that they share with the history's items (RP3β: Paudel et al., TiiS 2016).

W_ij is the weight from item i to item j. In the training timelines, item i has n_i visitors, item j has n_j visitors,
and visitor u has n_u items:

    W_ij = n_i ** -item_power × n_j ** -neighbour_power × Σ n_u ** -visitor_power over the visitors u of both items

A visitor's score of item j is the weighted sum of W_ij over the items i in the visitor's history; the later an item,
the higher is its weight. Nothing is learnt by gradients: `solver=count` computes the tables, see `training.count`.

Shapes: T training timelines (one per visitor), I items of the vocabulary, N neighbours of an item.
"""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp

from common.report.diagram_box import DiagramBox
from trainer.config.models import WalkConfig, WalkPowers
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.models.description import KNOWN_BY_HISTORY, NEW_ITEMS_RANK_LAST, ModelDescription, TableShapes
from trainer.models.item_neighbours import NeighbourInference, NeighbourRows, neighbour_diagram, neighbour_tables
from trainer.models.item_products import largest_products
from trainer.models.table_rows import CountedRows, RowCounter, TableRows
from trainer.runs.checkpoint import Weights


def table_rows(model: WalkConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies two tables, the neighbours of each item and their weights; see `item_neighbours.neighbour_tables`."""
    return neighbour_tables(model, dataset, "the walk")


def inference_model(model: WalkConfig, _: RunConfig, dataset: Dataset) -> NeighbourInference:
    """Builds the model for inference; its weights must be set later."""
    return NeighbourInference(model, dataset.item_counts)


def describe(config: RunConfig, *, has_content: bool) -> ModelDescription:  # noqa: ARG001 (content is not used)
    """Describes the model for its model card; see `models.build.DescribedModelFile`."""
    principle = "an item's score is the weighted number of visitors that it shares with the items of the history"
    return ModelDescription(principle, (KNOWN_BY_HISTORY, NEW_ITEMS_RANK_LAST))


def diagram(model: WalkConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    return neighbour_diagram(model, tables)


def row_counter(model: WalkConfig, baskets: sp.csr_matrix) -> RowCounter:
    """Returns a function that computes the neighbours of one replica's items; see `models.build.CountedModelFile`.

    Args:
      model: settings of the walk.
      baskets: [T, I], 1 if the timeline contains the item.
    """

    def count(combination: int, replica: int, num_replicas: int) -> Iterator[CountedRows]:
        items = np.arange(replica, baskets.shape[1], num_replicas)
        for rows in walk_rows(baskets, model.combinations[combination], model.num_neighbours, items):
            yield rows.counted()

    return count


def walk_rows(
    baskets: sp.csr_matrix, powers: WalkPowers, num_neighbours: int, items: np.ndarray
) -> Iterator[NeighbourRows]:
    """Computes the N neighbours of each item i: the items j with the highest weights W_ij above 0.

    An item may be its own neighbour. Ties go to the lower j.

    Args:
      baskets: [T, I], 1 if the timeline contains the item.
      powers: the exponents in the formula of W_ij, see the top of this file.
      num_neighbours: the number of neighbours, N.
      items: indices i.

    Yields:
      The neighbours of the next block of `items`.
    """
    item_visitors = np.maximum(np.bincount(baskets.indices, minlength=baskets.shape[1]), 1).astype(np.float32)
    visitor_items = np.maximum(np.diff(baskets.indptr), 1).astype(np.float32)
    by_visitor = (sp.diags(visitor_items**-powers.visitor) @ baskets).tocsr()
    by_item = baskets.T.tocsr()[items]
    of_item, of_neighbour = item_visitors[items] ** -powers.item, item_visitors**-powers.neighbour
    total = of_item * (by_item @ (by_visitor @ of_neighbour.astype(np.float64)))

    def rescale(product: sp.csr_matrix, rows: slice) -> None:
        product.data *= np.repeat(of_item[rows], np.diff(product.indptr)) * of_neighbour[product.indices]

    first = 0
    for block in largest_products(by_item, by_visitor, num_neighbours, rescale):
        yield NeighbourRows.of_matrix(block, num_neighbours, total[first : first + block.shape[0]])
        first += block.shape[0]


def count_walk(
    baskets: sp.csr_matrix, powers: WalkPowers, num_neighbours: int, on_block: Callable[[], None] = lambda: None
) -> Weights:
    """Returns the weights of the walk model.

    Args:
      baskets: [T, I], 1 if the timeline contains the item.
      powers: the exponents in the formula of the weights, see the top of this file.
      num_neighbours: the number of neighbours per item, N.
      on_block: called after each block of items.
    """
    parts = []
    for rows in walk_rows(baskets, powers, num_neighbours, np.arange(baskets.shape[1])):
        parts.append(rows)
        on_block()
    neighbour, weight = (np.concatenate([part[column] for part in parts]) for column in range(2))
    return Weights({"neighbour": neighbour, "weight": weight}, [np.array(powers, np.float32)])
