"""Whose each row of a model's tables is: what lets another vocabulary find its vectors."""

import numpy as np

from contract.schema import Vocabulary
from trainer.config import ModelConfig, TowersConfig
from trainer.dataset import Dataset
from trainer.models.contents import read_contents

_ID, _OTHERS = "id ", "all others"


def is_of_vocabulary(row_id: str) -> bool:
    """Whether a row of visitors or items is one of the vocabulary's, not of a bucket or of all others."""
    return row_id.startswith(_ID)


def row_ids(model: ModelConfig, dataset: Dataset, rows: dict[str, int]) -> dict[str, list[str]]:
    """The id of each row, by table; the vocabulary's come first.

    Args:
      rows: of each table.
    """
    if isinstance(model, TowersConfig):
        return _of_towers(dataset, rows)
    vocabularies = {"visitor": Vocabulary.VISITORS, "item": Vocabulary.ITEMS}
    return {name: _with_buckets(dataset, vocabularies[name]) for name in rows}


def _of_towers(dataset: Dataset, rows: dict[str, int]) -> dict[str, list[str]]:
    """As `models.build` shapes them: the first items and visitors of the vocabularies, then one row for all others."""
    ids = {"item": [*_ids(dataset, Vocabulary.ITEMS)[: rows["item"] - 1], _OTHERS]}
    if "visitor" in rows:
        ids["visitor"] = [*_ids(dataset, Vocabulary.VISITORS)[: rows["visitor"] - 1], _OTHERS]
    if "feature" in rows:
        categories = _with_buckets(dataset, Vocabulary.CATEGORIES)
        values = _with_buckets(dataset, Vocabulary.PROPERTY_VALUES)
        num_prices = read_contents(dataset).num_features - len(categories) - len(values)
        prices = [f"price {number}" for number in np.arange(num_prices)]
        ids["feature"] = [f"category {name}" for name in categories] + prices + [f"value {name}" for name in values]
    return ids


def _ids(dataset: Dataset, name: Vocabulary) -> list[str]:
    return [f"{_ID}{word}" for word in dataset.vocabulary(name)]


def _with_buckets(dataset: Dataset, name: Vocabulary) -> list[str]:
    buckets = dataset.manifest.vocabularies[name].num_indices - dataset.manifest.vocabularies[name].size
    return _ids(dataset, name) + [f"bucket {number} of {buckets}" for number in range(buckets)]
