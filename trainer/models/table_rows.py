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
    """Specification of a table: the number of its rows and columns, and the ids of its rows."""

    num_rows: int
    """Number of rows."""
    width: int
    """Number of columns."""
    ids: Callable[[], list[str]]
    """Returns the id of each row, ids of the vocabulary first; a warm start copies rows with equal ids."""


class CountedRows(NamedTuple):
    """A part of the table rows of a model that `solver=count` computes."""

    tables: Mapping[str, np.ndarray]
    """The next n rows of a replica for each table, by name: [n, width] float32; n may differ between tables."""
    kept: float
    """Sum of the counts that these rows store."""
    total: float
    """Sum of the counts that these rows would store if the settings dropped none."""


RowCounter = Callable[[int, int, int], Iterator[CountedRows]]
"""Function of (index of the combination of powers, replica, number of replicas) that yields the replica's rows."""


def check_item_indices(dataset: Dataset, model: str) -> None:
    """Checks that a table can store item indices.

    Raises:
      ValueError: there are too many items.
    """
    count = dataset.num_items
    if count > _MAX_ITEMS:
        raise ValueError(
            f"{model} can have at most {_MAX_ITEMS:,} items, but the vocabulary has {count:,}; raise items.min_count "
            "of prepare, or train another model"
        )


def vocabulary_rows(dataset: Dataset, name: Vocabulary, width: int) -> TableRows:
    """Specifies a row for each index of a vocabulary: first its ids, then its out-of-vocabulary buckets."""
    count = dataset.manifest.vocabularies[name].num_indices
    return TableRows(count, width, lambda: index_names(dataset, name))


def first_rows(dataset: Dataset, name: Vocabulary, count: int, width: int) -> TableRows:
    """Specifies a row for each of the first `count` ids of a vocabulary, and one row for all other ids."""
    return TableRows(count + 1, width, lambda: [*index_names(dataset, name)[:count], _OTHERS])


def index_names(dataset: Dataset, name: Vocabulary) -> list[str]:
    """Returns a row id for each index of a vocabulary; it names the id or bucket, and does not depend on the index."""
    buckets = dataset.manifest.vocabularies[name].num_indices - dataset.manifest.vocabularies[name].size
    ids = [f"{_ID}{word}" for word in dataset.vocabulary(name)]
    return ids + [f"bucket {number} of {buckets}" for number in range(buckets)]


def is_of_vocabulary(row_id: str) -> bool:
    """Whether a row belongs to a single id of the vocabulary; other rows are shared by several ids."""
    return row_id.startswith(_ID)
