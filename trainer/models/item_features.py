"""The content of items: a weighted sum of rows of the feature table, one row for each feature of the item.

Shapes: I items, F features of an item at most, W columns of a row, N (item, value) pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from contract.schema import Vocabulary
from trainer.data.dataset import Dataset
from trainer.distributed.embeddings import chunk_rows
from trainer.models.table_rows import index_names
from trainer.runs.checkpoint import Table

MAX_FEATURES = 32
"""Maximum number of features of an item; if it has more, the first ones in the order of FEATURES are used."""

_CHUNK_ITEMS = 4096


@dataclass(frozen=True)
class ItemFeatures:
    """The features of each item, such as its category. Each feature is a row of the feature table."""

    feature: np.ndarray
    """[I, F] int64 rows of the feature table; arbitrary where the weight is 0."""
    weight: np.ndarray
    """[I, F] float32: 1 / √n for each of an item's n features, so that the length of the content does not grow with n.
    F is 0 if the catalogue describes no item."""
    names: Sequence[str]
    """Names of the rows of the feature table; a warm start copies rows by name."""

    @property
    def num_features(self) -> int:
        """Number of distinct features; each is a row of the feature table."""
        return len(self.names)

    @property
    def width(self) -> int:
        """Maximum number of features of an item, F."""
        return int(self.feature.shape[1])

    def rows(self, table: np.ndarray, items: slice) -> np.ndarray:
        """[n, W] float32: for each of n items, the weighted sum of its features' rows in `table` [num_features, W]."""
        start, stop, _ = items.indices(len(self.feature))
        chunks = [slice(begin, min(begin + _CHUNK_ITEMS, stop)) for begin in range(start, stop, _CHUNK_ITEMS)]
        parts = [np.einsum("if,ifw->iw", self.weight[chunk], table[self.feature[chunk]]) for chunk in chunks]
        return np.concatenate(parts).astype(np.float32)


class ItemRows:
    """Item rows [I, W] of a trained model, computed when they are read. The last column is the bias.

    The row of an item is the weighted sum of its features' rows plus, if it has training events, a separate row of
    weights. An item that has neither features nor training events gets the lowest bias of all items with training
    events.
    """

    def __init__(self, content: ItemFeatures, own: Table, is_trained: np.ndarray, features: Table | None) -> None:
        """Stores the tables.

        Args:
          own: table of the separate rows; only the rows of items with training events are used.
          is_trained: [I] bool: whether each item has training events.
          features: table that has a row of weights for each feature; None: no item has features.
        """
        self._content, self._own, self._is_trained = content, own, is_trained
        self._num_trained = int(np.flatnonzero(is_trained).max(initial=-1)) + 1
        self._features = None if features is None else features[: features.shape[0]]
        self._least_bias = self._read_least_bias()
        self._has_content = np.any(content.weight > 0, axis=1)

    def read(self, items: slice) -> np.ndarray:
        """[n, W] float32: the rows (vector and bias) of the n items in the slice `items`."""
        start, stop, _ = items.indices(len(self._has_content))
        rows = np.zeros((stop - start, self._own.shape[1]), np.float32)
        if self._features is not None:
            rows += self._content.rows(self._features, items)
        own = self._own[start : min(stop, self._num_trained)]
        rows[: len(own)] += np.where(self._is_trained[start : start + len(own), None], own, np.float32(0))
        # items with neither events nor content are as unpopular as the least popular item
        rows[~(self._is_trained | self._has_content)[start:stop], -1] = self._least_bias
        return rows

    def _read_least_bias(self) -> float:
        """Returns the lowest bias of the trained items; 0 if there are none."""
        size = chunk_rows(self._own.shape[1])
        chunks = [slice(start, min(start + size, self._num_trained)) for start in range(0, self._num_trained, size)]
        biases = (self._own[rows][self._is_trained[rows], -1] for rows in chunks)
        return min((float(own.min(initial=np.inf)) for own in biases), default=0.0)


class FeatureValues(NamedTuple):
    """The values of one kind of feature for all items, as N (item, value) pairs in the order of the items."""

    item: np.ndarray
    """[N] item index of each (item, value) pair."""
    value: np.ndarray
    """[N] value of each pair, as an index into `names`."""
    names: Sequence[str] | Vocabulary
    """Names of the values, or the vocabulary that contains them."""


def category_path(catalogue: pa.Table) -> FeatureValues:
    """Returns the category of each item, and all categories above it."""
    return FeatureValues(*_entries(catalogue["category_path"]), Vocabulary.CATEGORIES)


def price_bucket(catalogue: pa.Table) -> FeatureValues:
    """Returns the quantile bucket of each item's price; skips items without a price."""
    bucket = catalogue["price_bucket"].to_numpy()
    priced = np.flatnonzero(bucket > 0)
    return FeatureValues(priced, bucket[priced], [str(number) for number in range(bucket.max(initial=0) + 1)])


def property_values(catalogue: pa.Table) -> FeatureValues:
    """Returns the property values of each item, such as `color=red`; rare values are skipped."""
    return FeatureValues(*_entries(catalogue["property_values"]), Vocabulary.PROPERTY_VALUES)


FEATURES: tuple[Callable[[pa.Table], FeatureValues], ...] = (category_path, price_bucket, property_values)
"""The kinds of features, as functions of the catalogue, which has a row per item of the vocabulary."""


def read_item_features(dataset: Dataset) -> ItemFeatures:
    """Reads the features of all items, at most `MAX_FEATURES` per item, in the order of `FEATURES`."""
    catalogue = dataset.catalogue
    items, features = [], []
    names: list[str] = []
    for feature in FEATURES:
        values = feature(catalogue)
        items.append(values.item)
        features.append(values.value + len(names))
        of_values = index_names(dataset, values.names) if isinstance(values.names, Vocabulary) else values.names
        names += [f"{feature.__name__} {name}" for name in of_values]
    item = np.concatenate(items)
    order = np.argsort(item, kind="stable")
    return _padded(item[order], np.concatenate(features)[order], dataset.num_items, names)


def _entries(lists: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Flattens a column of lists; returns the item index and the value of each list entry."""
    combined = lists.combine_chunks()
    lengths = np.diff(combined.offsets.to_numpy())
    return np.repeat(np.arange(len(combined)), lengths), combined.flatten().to_numpy()


def _padded(owner: np.ndarray, feature: np.ndarray, num_items: int, names: Sequence[str]) -> ItemFeatures:
    """Builds `ItemFeatures` from N (item, feature) pairs.

    `owner`: [N] the items, ascending. `feature`: [N] their rows of the feature table.
    """
    counts = np.bincount(owner, minlength=num_items)
    position = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    is_kept = position < MAX_FEATURES
    lengths = np.minimum(counts, MAX_FEATURES)
    padded = np.zeros((num_items, int(lengths.max(initial=0))), np.int64)
    padded[owner[is_kept], position[is_kept]] = feature[is_kept]
    is_feature = np.arange(padded.shape[1]) < lengths[:, None]
    weight = is_feature / np.sqrt(np.maximum(lengths, 1))[:, None]
    return ItemFeatures(padded, weight.astype(np.float32), names)
