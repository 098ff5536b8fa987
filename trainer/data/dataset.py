"""A prepared dataset, opened and verified; every command of the trainer starts with it.

Shapes: I items and V visitors of the vocabularies.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
from trainer.data.training_events import TrainingEvents


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset; its data is read on demand."""

    root: str
    """Directory of the dataset."""
    manifest: Manifest
    """Splits, vocabularies and files of the dataset."""
    checksum: str
    """SHA-256 of the manifest, which contains the checksum of every file."""
    trains_on_all: bool = False
    """Whether models are trained on the events of all splits, as in a refit, or only on those of the training split."""
    on_progress: Callable[[], None] = field(default=lambda: None, compare=False)
    """Called repeatedly while files are verified or all events are read, so that a watchdog sees progress."""

    @property
    def num_items(self) -> int:
        """Size of the item vocabulary, I; indices from I on are out-of-vocabulary buckets."""
        return self.manifest.vocabularies[Vocabulary.ITEMS].size

    @property
    def num_visitors(self) -> int:
        """Size of the visitor vocabulary, V; indices from V on are out-of-vocabulary buckets."""
        return self.manifest.vocabularies[Vocabulary.VISITORS].size

    def facts(self) -> dict[str, str]:
        """Describes the vocabularies and the splits, including the times at which validation and test start."""
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
          ContractError: the dataset lacks the split.
        """
        if split not in self.manifest.splits:
            found = ", ".join(self.manifest.splits)
            raise ContractError(
                f"{self.root} has no {split} split, only {found}; prepare it with `--split time` to evaluate models"
            )
        files = self.manifest.files
        return [Shard(join(self.root, name), files[name]) for name in self.manifest.splits[split].files]

    def with_all_events(self) -> "Dataset":
        """Returns a copy of the dataset with `trains_on_all`."""
        return replace(self, trains_on_all=True)

    @cached_property
    def training_events(self) -> TrainingEvents:
        """The events that models are trained on."""
        later = self._later_splits
        if not later:
            return TrainingEvents(self.shards(Split.TRAIN), on_progress=self.on_progress)
        counts = self.visitor_counts + self._count_targets(later, "visitor", self.num_visitors)
        shards = [shard for split in (Split.TRAIN, *later) for shard in self.shards(split)]
        return TrainingEvents(shards, counts, self.on_progress)

    @property
    def max_training_rows(self) -> int:
        """Upper limit of the number of rows that models are trained on."""
        return sum(self.manifest.splits[split].target_rows for split in (Split.TRAIN, *self._later_splits))

    @property
    def max_training_timelines(self) -> int:
        """Upper limit of the number of timelines that models are trained on."""
        return sum(self.manifest.splits[split].visitors for split in (Split.TRAIN, *self._later_splits))

    def vocabulary(self, name: Vocabulary) -> list[str]:
        """Reads the ids of a vocabulary, in the order of their indices."""
        return read_vocabulary(DatasetLayout(self.root).vocabulary(name))

    @cached_property
    def catalogue(self) -> pa.Table:
        """The catalogue, one row per item in vocabulary order; see `contract.catalogue`.

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
        """[I] int64, read-only: number of training events of each item."""
        counts = total_events(self.catalogue) + self._count_targets(self._later_splits, "item", self.num_items)
        counts.flags.writeable = False  # all callers share it
        return counts

    @property
    def num_trained_items(self) -> int:
        """1 + the highest index of an item that has a training event; 0 if there is no such item.

        If `trains_on_all` is False, all items with a lower index have training events, too.
        """
        return int(np.flatnonzero(self.item_counts).max(initial=-1)) + 1

    @cached_property
    def visitor_counts(self) -> np.ndarray:
        """[V] int64, read-only: number of events of each visitor in the training split, descending."""
        counts = self._count_targets([Split.TRAIN], "visitor", self.num_visitors)
        counts.flags.writeable = False
        return counts

    @property
    def _later_splits(self) -> list[Split]:
        """The validation and test splits, if models are trained on them too (`trains_on_all`); empty otherwise."""
        return [split for split in self.manifest.splits if split != Split.TRAIN and self.trains_on_all]

    def _count_targets(self, splits: Sequence[Split], column: str, size: int) -> np.ndarray:
        """[size] int64: how often each index occurs in `column`, over the rows that belong to `splits`."""
        counts = np.zeros(size, np.int64)
        for shard in (shard for split in splits for shard in self.shards(split)):
            rows = read_timelines([shard])
            values = getattr(rows, column)[rows.is_target == 1]
            counts += np.bincount(values[values < size], minlength=size)
            self.on_progress()
        return counts


def open_dataset(root: str, on_progress: Callable[[], None] = lambda: None) -> Dataset:
    """Reads the manifest and verifies the files; see `verify_files`.

    Args:
      root: directory of the dataset.
      on_progress: see `Dataset.on_progress`.

    Raises:
      ContractError: `root` is not a dataset, or a file is missing or differs from the manifest.
    """
    manifest = read_manifest(root)
    verify_files(manifest, root, on_progress)
    return Dataset(root=root, manifest=manifest, checksum=dataset_checksum(root), on_progress=on_progress)


def read_vocabulary(path: str) -> list[str]:
    """Reads a file with one id per line; an id may contain any character but a line feed."""
    text = storage.read_bytes(path).decode()
    return text.split("\n")[:-1]
