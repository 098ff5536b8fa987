"""What the catalogue tells of the items, as features that share one table: an item's content is what they say together.

Shapes: I items, F features of an item at most, W columns of a row.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from contract.schema import Vocabulary
from trainer.dataset import Dataset

MAX_FEATURES = 32
"""Features of an item that are looked at: its category path, its price bucket, then its property values."""

_CHUNK_ITEMS = 4096


@dataclass(frozen=True)
class Contents:
    """The features of each item.

    feature        [I, F] int64 rows of the feature table; any row where the weight is 0
    weight         [I, F] float32: 1 / √n for each of an item's n features, so that items with many are as long as those
                   with few; F is 0 where the catalogue tells nothing of any item
    num_features   rows of the feature table
    """

    feature: np.ndarray
    weight: np.ndarray
    num_features: int

    @property
    def width(self) -> int:
        """F."""
        return int(self.feature.shape[1])

    def rows(self, table: np.ndarray) -> np.ndarray:
        """[I, W] float32: the content of each item, from the feature table [num_features, W]."""
        starts = range(0, len(self.feature), _CHUNK_ITEMS)
        chunks = [slice(start, start + _CHUNK_ITEMS) for start in starts]
        parts = [np.einsum("if,ifw->iw", self.weight[chunk], table[self.feature[chunk]]) for chunk in chunks]
        return np.concatenate(parts).astype(np.float32)


def read_contents(dataset: Dataset) -> Contents:
    """The features of the vocabulary's items: categories of the path, the price bucket, property values.

    Price buckets lie behind the categories, property values behind those.
    """
    catalogue = dataset.catalogue()
    num_categories = dataset.manifest.vocabularies[Vocabulary.CATEGORIES].num_indices
    num_values = dataset.manifest.vocabularies[Vocabulary.PROPERTY_VALUES].num_indices
    price = catalogue["price_bucket"].to_numpy()
    first_value = num_categories + int(price.max(initial=0)) + 1
    priced = np.flatnonzero(price > 0)
    owners, features = zip(
        _entries(catalogue["category_path"], 0),
        (priced, num_categories + price[priced]),
        _entries(catalogue["property_values"], first_value),
        strict=True,
    )
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return _padded(owner[order], np.concatenate(features)[order], dataset.num_items, first_value + num_values)


def _entries(lists: pa.ChunkedArray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """The item of each entry of the items' lists, and the entry, moved by `offset`."""
    whole = lists.combine_chunks()
    lengths = np.diff(whole.offsets.to_numpy())
    return np.repeat(np.arange(len(whole)), lengths), whole.flatten().to_numpy() + offset


def _padded(owner: np.ndarray, feature: np.ndarray, num_items: int, num_features: int) -> Contents:
    """Contents out of features and the item of each, ascending."""
    counts = np.bincount(owner, minlength=num_items)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_kept = place < MAX_FEATURES
    lengths = np.minimum(counts, MAX_FEATURES)
    padded = np.zeros((num_items, int(lengths.max(initial=0))), np.int64)
    padded[owner[is_kept], place[is_kept]] = feature[is_kept]
    is_feature = np.arange(padded.shape[1]) < lengths[:, None]
    weight = is_feature / np.sqrt(np.maximum(lengths, 1))[:, None]
    return Contents(padded, weight.astype(np.float32), num_features)
