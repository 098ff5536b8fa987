"""Descriptions of a model: in words for its card, and as boxes for the diagram in its run's report."""

from collections.abc import Mapping
from typing import NamedTuple

from common.report.diagram_box import DiagramBox

TableShapes = Mapping[str, tuple[int, int]]
"""Rows and columns of each of a model's tables, by name."""

PAIR_INPUTS = (DiagramBox("visitors", "[B]", 0), DiagramBox("items", "[B or C]", 0))
"""The input boxes of a model with a visitor table and an item table."""

SQUARED_ERROR_LIMITS = (
    "Visitors that were not in training share an out-of-vocabulary vector. The history in a request is only used to "
    "exclude seen items.",
    "Items without training events are scored by untrained vectors, so their scores are meaningless.",
)
KNOWN_BY_HISTORY = (
    "The model knows a visitor only by the items of the history in the request. If the history has no known item, the "
    "visitor gets popular items, even if they were in training. `score` takes no history, so it returns an item's "
    "popularity for every visitor."
)
"""A limit of the models that `solver=count` computes; see `ModelDescription.limits`."""
NEW_ITEMS_RANK_LAST = (
    "Items without training events rank like the least popular item, so they are hardly ever recommended."
)


class ModelDescription(NamedTuple):
    """The text about a model in its model card."""

    principle: str
    """How the model scores items; the card puts it after "Ranks the items for a visitor:"."""
    limits: tuple[str, ...] = ()
    """Limits of the model, one paragraph each, for example about visitors and items that were not in training."""


def table_box(name: str, tables: TableShapes, *reads: str) -> DiagramBox:
    """Returns the box of a table in a diagram.

    Args:
      tables: the shapes of the tables; the box of a missing table shows `rows × D`.
      reads: names of the boxes that are inputs of the table.
    """
    rows, width = tables.get(name, (None, None))
    shape = f"{rows:,} × {width}" if rows else "rows × D"
    return DiagramBox(f"{name} table", shape, 1, reads, is_trained=True)
