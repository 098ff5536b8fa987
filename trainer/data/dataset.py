"""A prepared dataset, opened and verified; every command of the trainer starts with it.

Shapes: I items of the vocabulary.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from common import storage
from common.errors import ContractError
from common.storage.paths import join
from contract.catalogue import read_catalogue, total_events
from contract.layout import DatasetLayout
from contract.manifest import Manifest, dataset_checksum, read_manifest, verify_files
from contract.schema import Split, Vocabulary
from contract.shards import Shard, read_timelines


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk or in a store; the data itself is read on demand."""

    root: str
    """Directory of the dataset."""
    manifest: Manifest
    """Its splits, vocabularies and files."""
    checksum: str
    """SHA-256 of the manifest, which contains the checksum of every file."""

    @property
    def num_items(self) -> int:
        """Size of the item vocabulary, I; higher indices are out-of-vocabulary buckets."""
        return self.manifest.vocabularies[Vocabulary.ITEMS].size

    @property
    def num_visitors(self) -> int:
        """Size of the visitor vocabulary; higher indices are out-of-vocabulary buckets."""
        return self.manifest.vocabularies[Vocabulary.VISITORS].size

    def facts(self) -> dict[str, str]:
        """Describes vocabularies, splits and cuts by name, to report how two datasets differ."""
        manifest = self.manifest
        vocabularies = {
            f"{name} vocabulary": f"{info.size} ids, sha256 {manifest.files[f'vocabulary/{name}.txt'][:8]}…"
            for name, info in manifest.vocabularies.items()
        }
        splits = {f"{name} split": f"{info.target_rows} rows" for name, info in manifest.splits.items()}
        cuts = {"cuts": f"{manifest.split_method}, {manifest.validation_from_ms} and {manifest.test_from_ms} ms"}
        return vocabularies | splits | cuts

    def shards(self, split: Split) -> list[Shard]:
        """Returns the timeline shards of a split, in order.

        Raises:
          ContractError: the dataset has no such split, as `--split none` creates only train.
        """
        if split not in self.manifest.splits:
            found = ", ".join(self.manifest.splits)
            raise ContractError(
                f"{self.root} has no {split} split, only {found}; prepare it with `--split time` to evaluate models"
            )
        files = self.manifest.files
        return [Shard(join(self.root, name), files[name]) for name in self.manifest.splits[split].files]

    def vocabulary(self, name: Vocabulary) -> list[str]:
        """Reads the ids of a vocabulary, in the order of their indices."""
        return read_vocabulary(DatasetLayout(self.root).vocabulary(name))

    @cached_property
    def catalogue(self) -> pa.Table:
        """Catalogue rows of the vocabulary's items, [I], in the order of their indices; see `contract.catalogue`.

        Raises:
          ContractError: an item is missing or occurs twice.
        """
        rows = read_catalogue([join(self.root, name) for name in self.manifest.catalogue_files])
        known = rows.slice(0, self.num_items)
        if not np.array_equal(known["item_index"].to_numpy(), np.arange(self.num_items)):
            raise ContractError(
                f"the catalogue of {self.root} does not contain every item exactly once; prepare the dataset again"
            )
        return known

    @cached_property
    def item_counts(self) -> np.ndarray:
        """[I] int64: training events of all kinds per item, read-only."""
        counts = total_events(self.catalogue)
        counts.flags.writeable = False  # all callers share it
        return counts

    @property
    def num_trained_items(self) -> int:
        """Items with a training event: the first ones of the vocabulary, which is sorted by frequency."""
        return int(np.count_nonzero(self.item_counts))

    @cached_property
    def visitor_counts(self) -> np.ndarray:
        """[visitors of the vocabulary] int64: training events per visitor, most frequent first, read-only."""
        counts = np.zeros(self.num_visitors, np.int64)
        for shard in self.shards(Split.TRAIN):
            rows = read_timelines([shard])
            is_counted = (rows.is_target == 1) & (rows.visitor < self.num_visitors)
            counts += np.bincount(rows.visitor[is_counted], minlength=self.num_visitors)
        counts.flags.writeable = False
        return counts


def open_dataset(root: str) -> Dataset:
    """Reads the manifest and verifies the files; see `verify_files`.

    Raises:
      ContractError: `root` is not a dataset, or a file is missing or differs from the manifest.
    """
    manifest = read_manifest(root)
    verify_files(manifest, root)
    return Dataset(root=root, manifest=manifest, checksum=dataset_checksum(root))


def read_vocabulary(path: str) -> list[str]:
    """Reads a file with one id per line; an id may contain any character but a line feed."""
    text = storage.read_bytes(path).decode()
    return text.split("\n")[:-1]
