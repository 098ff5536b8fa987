"""The rows of a model's tables before there are tables: how many, how wide, and whose each is."""

from collections.abc import Callable
from typing import NamedTuple

from contract.schema import Vocabulary
from trainer.data.dataset import Dataset

_ID, _OTHERS = "id ", "all others"


class TableRows(NamedTuple):
    """The rows of a table.

    num_rows, width   rows and columns
    ids               whose each row is, by which the tables of another vocabulary find its vector; the vocabulary's
                      come first
    """

    num_rows: int
    width: int
    ids: Callable[[], list[str]]


def vocabulary_rows(dataset: Dataset, name: Vocabulary, width: int) -> TableRows:
    """A row for each index of a vocabulary: its ids, then its out-of-vocabulary buckets."""
    count = dataset.manifest.vocabularies[name].num_indices
    return TableRows(count, width, lambda: index_names(dataset, name))


def first_rows(dataset: Dataset, name: Vocabulary, count: int, width: int) -> TableRows:
    """Rows for the first `count` ids of a vocabulary, and one more for all others."""
    return TableRows(count + 1, width, lambda: [*index_names(dataset, name)[:count], _OTHERS])


def index_names(dataset: Dataset, name: Vocabulary) -> list[str]:
    """What each index of a vocabulary stands for, whatever its place."""
    buckets = dataset.manifest.vocabularies[name].num_indices - dataset.manifest.vocabularies[name].size
    ids = [f"{_ID}{word}" for word in dataset.vocabulary(name)]
    return ids + [f"bucket {number} of {buckets}" for number in range(buckets)]


def is_of_vocabulary(row_id: str) -> bool:
    """Whether a row of visitors or items is one of the vocabulary's, not of a bucket or of all others."""
    return row_id.startswith(_ID)
