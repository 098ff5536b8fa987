"""Specifications of a model's tables: the number, width and ids of their rows."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from contract.schema import Vocabulary
from trainer.data.dataset import Dataset

_ID, _OTHERS = "id ", "all others"
_MAX_ITEMS = 2**24
"""Maximum number of items: a checkpoint stores indices as float32, which represents all integers up to this one."""


class TableRows(NamedTuple):
    """The shape and the row ids of a table of a model."""

    num_rows: int
    """Number of rows."""
    width: int
    """Number of columns."""
    ids: Callable[[], list[str]]
    """Returns the ids of all rows, in order. A warm start copies rows by id."""


class CountedRows(NamedTuple):
    """Consecutive rows of each table of a model, computed by `solver=count`."""

    tables: Mapping[str, np.ndarray]
    """The replica's next n rows of each table, [n, width] float32, by the table's name; n may differ by table."""
    kept: float
    """Sum of the counts, or of the absolute weights, that these rows store."""
    total: float
    """What `kept` would be if no setting, such as `num_neighbours`, limited how many are stored."""


RowCounter = Callable[[int, int, int], Iterator[CountedRows]]
"""Yields a replica's rows, given the index of a combination of exponents, the replica and the number of replicas."""


def check_item_indices(dataset: Dataset, model: str) -> None:
    """Checks that float32 tables can store every item index exactly.

    Args:
      dataset: the dataset.
      model: name of the model for the error message.

    Raises:
      ValueError: the vocabulary has more than 2^24 items.
    """
    count = dataset.num_items
    if count > _MAX_ITEMS:
        raise ValueError(
            f"{model} can have at most {_MAX_ITEMS:,} items, but the dataset has {count:,}; prepare it with a "
            "higher items.min_count, or train another model"
        )


def vocabulary_rows(dataset: Dataset, name: Vocabulary, width: int) -> TableRows:
    """Specifies a table with a row per id of a vocabulary and per out-of-vocabulary bucket."""
    count = dataset.manifest.vocabularies[name].num_indices
    return TableRows(count, width, lambda: index_names(dataset, name))


def first_rows(dataset: Dataset, name: Vocabulary, count: int, width: int) -> TableRows:
    """Specifies a table with one row each for the first `count` ids, and one shared row for all other ids."""
    return TableRows(count + 1, width, lambda: [*index_names(dataset, name)[:count], _OTHERS])


def index_names(dataset: Dataset, name: Vocabulary) -> list[str]:
    """Returns a row id for each index of a vocabulary.

    A row id contains the id of a visitor or item, or the number of a bucket; it does not depend on the index.
    """
    buckets = dataset.manifest.vocabularies[name].num_indices - dataset.manifest.vocabularies[name].size
    ids = [f"{_ID}{word}" for word in dataset.vocabulary(name)]
    return ids + [f"bucket {number} of {buckets}" for number in range(buckets)]


def is_of_vocabulary(row_id: str) -> bool:
    """Returns whether a table row belongs to a single visitor or item; other rows are shared by several."""
    return row_id.startswith(_ID)
