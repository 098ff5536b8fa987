"""What the catalogue tells of the items, as features that share one table: an item's content is what they say together.

Shapes: I items, F features of an item at most, W columns of a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from contract.schema import Vocabulary
from trainer.data.dataset import Dataset
from trainer.models.table_rows import index_names

MAX_FEATURES = 32
"""Features of an item that are looked at, in the order of FEATURES."""

_CHUNK_ITEMS = 4096


@dataclass(frozen=True)
class ItemFeatures:
    """The features of each item.

    feature        [I, F] int64 rows of the feature table; any row where the weight is 0
    weight         [I, F] float32: 1 / √n for each of an item's n features, so that items with many are as long as those
                   with few; F is 0 where the catalogue tells nothing of any item
    names          of the rows of the feature table, by which another dataset's are found
    """

    feature: np.ndarray
    weight: np.ndarray
    names: Sequence[str]

    @property
    def num_features(self) -> int:
        """Rows of the feature table."""
        return len(self.names)

    @property
    def width(self) -> int:
        """F."""
        return int(self.feature.shape[1])

    def rows(self, table: np.ndarray, items: slice) -> np.ndarray:
        """[n, W] float32: the content of some items, from the feature table [num_features, W]."""
        start, stop, _ = items.indices(len(self.feature))
        chunks = [slice(begin, min(begin + _CHUNK_ITEMS, stop)) for begin in range(start, stop, _CHUNK_ITEMS)]
        parts = [np.einsum("if,ifw->iw", self.weight[chunk], table[self.feature[chunk]]) for chunk in chunks]
        return np.concatenate(parts).astype(np.float32)


class FeatureValues(NamedTuple):
    """What the catalogue tells in one respect: N values of items, in order of items.

    item    [N] places of items; one that has several values comes several times, one of which nothing is told never
    value   [N] places in `names`
    names   of the values; a vocabulary stands for what its indices mean
    """

    item: np.ndarray
    value: np.ndarray
    names: Sequence[str] | Vocabulary


def category_path(catalogue: pa.Table) -> FeatureValues:
    """The categories from the root down."""
    return FeatureValues(*_entries(catalogue["category_path"]), Vocabulary.CATEGORIES)


def price_bucket(catalogue: pa.Table) -> FeatureValues:
    """The price, in quantile buckets; 0 is none."""
    bucket = catalogue["price_bucket"].to_numpy()
    priced = np.flatnonzero(bucket > 0)
    return FeatureValues(priced, bucket[priced], [str(number) for number in range(bucket.max(initial=0) + 1)])


def property_values(catalogue: pa.Table) -> FeatureValues:
    """The words of the most frequent properties."""
    return FeatureValues(*_entries(catalogue["property_values"]), Vocabulary.PROPERTY_VALUES)


FEATURES: tuple[Callable[[pa.Table], FeatureValues], ...] = (category_path, price_bucket, property_values)
"""What is looked at of the catalogue, whose rows are the vocabulary's items; see `contract.catalogue`."""


def read_item_features(dataset: Dataset) -> ItemFeatures:
    """The features of the vocabulary's items: all that FEATURES tell, each behind those before it."""
    catalogue = dataset.catalogue()
    items, features = [], []
    names: list[str] = []
    for feature in FEATURES:
        told = feature(catalogue)
        items.append(told.item)
        features.append(told.value + len(names))
        values = index_names(dataset, told.names) if isinstance(told.names, Vocabulary) else told.names
        names += [f"{feature.__name__} {value}" for value in values]
    item = np.concatenate(items)
    order = np.argsort(item, kind="stable")
    return _padded(item[order], np.concatenate(features)[order], dataset.num_items, names)


def _entries(lists: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """The item of each entry of the items' lists, and the entry."""
    whole = lists.combine_chunks()
    lengths = np.diff(whole.offsets.to_numpy())
    return np.repeat(np.arange(len(whole)), lengths), whole.flatten().to_numpy()


def _padded(owner: np.ndarray, feature: np.ndarray, num_items: int, names: Sequence[str]) -> ItemFeatures:
    """ItemFeatures out of features and the item of each, ascending."""
    counts = np.bincount(owner, minlength=num_items)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_kept = place < MAX_FEATURES
    lengths = np.minimum(counts, MAX_FEATURES)
    padded = np.zeros((num_items, int(lengths.max(initial=0))), np.int64)
    padded[owner[is_kept], place[is_kept]] = feature[is_kept]
    is_feature = np.arange(padded.shape[1]) < lengths[:, None]
    weight = is_feature / np.sqrt(np.maximum(lengths, 1))[:, None]
    return ItemFeatures(padded, weight.astype(np.float32), names)
