"""A prepared dataset, opened and checked: what every command of the trainer starts from.

Shapes: I items of the vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from common import storage
from common.errors import ContractError
from common.storage.paths import join
from contract.catalogue import read_catalogue
from contract.layout import DatasetLayout
from contract.manifest import Manifest, dataset_checksum, read_manifest, verify_files
from contract.schema import Split, Vocabulary
from contract.shards import Shard, read_timelines


@dataclass(frozen=True)
class Dataset:
    """Where a dataset lies, its manifest and its checksum; the data itself is read on demand."""

    root: str
    manifest: Manifest
    checksum: str

    @property
    def num_items(self) -> int:
        """Items of the vocabulary, I: indices at or above it are out-of-vocabulary buckets."""
        return self.manifest.vocabularies[Vocabulary.ITEMS].size

    @property
    def num_visitors(self) -> int:
        """Visitors of the vocabulary; indices at or above it are out-of-vocabulary buckets."""
        return self.manifest.vocabularies[Vocabulary.VISITORS].size

    def facts(self) -> dict[str, str]:
        """What two datasets may differ in, as text by name."""
        manifest = self.manifest
        vocabularies = {
            f"{name} vocabulary": f"{info.size} ids, sha256 {manifest.files[f'vocabulary/{name}.txt'][:8]}…"
            for name, info in manifest.vocabularies.items()
        }
        splits = {f"{name} split": f"{info.target_rows} rows" for name, info in manifest.splits.items()}
        cuts = {"cuts": f"{manifest.split_method}, {manifest.validation_from_ms} and {manifest.test_from_ms} ms"}
        return vocabularies | splits | cuts

    def shards(self, split: Split) -> list[Shard]:
        """Timeline shards of a split, in order.

        Raises:
          ContractError: the dataset has no such split (`--split none` makes only train).
        """
        if split not in self.manifest.splits:
            have = ", ".join(self.manifest.splits)
            raise ContractError(
                f"{self.root} has no {split} split, only {have}; prepare it with `--split time` to measure a model"
            )
        files = self.manifest.files
        return [Shard(join(self.root, name), files[name]) for name in self.manifest.splits[split].files]

    def vocabulary(self, name: Vocabulary) -> list[str]:
        """The ids of a vocabulary; an id's place is its index."""
        return read_vocabulary(DatasetLayout(self.root).vocabulary(name))

    def catalogue(self) -> pa.Table:
        """The rows of the vocabulary's items, [I], row i being item index i (see `contract.catalogue`)."""
        rows = read_catalogue([join(self.root, name) for name in self.manifest.catalogue_files])
        known = rows.slice(0, self.num_items)
        if not np.array_equal(known["item_index"].to_numpy(), np.arange(self.num_items)):
            raise ContractError(
                f"the catalogue of {self.root} does not hold every item once; prepare the dataset again"
            )
        return known

    def item_counts(self) -> np.ndarray:
        """[I] int64: training events of each item, all kinds; the popularity that samplers and baselines use."""
        catalogue = self.catalogue()
        return sum(catalogue[name].to_numpy() for name in ("views", "carts", "transactions"))

    def num_trained_items(self) -> int:
        """Items with a training event: the first ones of the vocabulary, which has the most frequent first."""
        return int(np.count_nonzero(self.item_counts()))

    def visitor_counts(self) -> np.ndarray:
        """[visitors of the vocabulary] int64: training events of each, most frequent first."""
        counts = np.zeros(self.num_visitors, np.int64)
        for shard in self.shards(Split.TRAIN):
            rows = read_timelines([shard])
            is_counted = (rows.is_target == 1) & (rows.visitor < self.num_visitors)
            counts += np.bincount(rows.visitor[is_counted], minlength=self.num_visitors)
        return counts


def open_dataset(root: str) -> Dataset:
    """Reads the manifest and checks the files against it; see `verify_files`.

    Raises:
      ContractError: not a dataset, or a file is missing or differs; the message names it.
    """
    manifest = read_manifest(root)
    verify_files(manifest, root)
    return Dataset(root=root, manifest=manifest, checksum=dataset_checksum(root))


def read_vocabulary(path: str) -> list[str]:
    """One id a line; an id may hold any character but a line feed."""
    text = storage.read_bytes(path).decode()
    return text.split("\n")[:-1]
