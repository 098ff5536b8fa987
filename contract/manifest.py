"""The manifest of a prepared dataset: counts, vocabulary sizes, split cuts, checksums; written last, read first."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from common import storage
from common.errors import ContractError
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.schema import SCHEMA_VERSION, Split, SplitMethod, Vocabulary


@dataclass(frozen=True, kw_only=True)
class VocabularyInfo:
    """Indices 0 … size-1 are entries, size … size+oov_buckets-1 the out-of-vocabulary buckets."""

    size: int
    oov_buckets: int

    @property
    def num_indices(self) -> int:
        return self.size + self.oov_buckets


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """What the timeline shards of one split hold.

    rows          all rows, context included
    target_rows   rows of the split itself
    visitors      timelines
    blocks        tf.train.Examples
    files         shard paths relative to the dataset's root, in order
    """

    rows: int
    target_rows: int
    visitors: int
    blocks: int
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that a reader needs to know before it opens another file of the dataset.

    validation_from_ms, test_from_ms   the split cuts, UTC; an event at a cut belongs to the later split; None unless
                                       `split_method` is time
    config                             the settings of `prepare`, as given
    files                              SHA-256 of every other file, by path relative to the dataset's root
    """

    split_method: SplitMethod
    validation_from_ms: int | None
    test_from_ms: int | None
    vocabularies: Mapping[Vocabulary, VocabularyInfo]
    splits: Mapping[Split, SplitInfo]
    config: Mapping[str, Any]
    files: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION

    @property
    def catalogue_files(self) -> tuple[str, ...]:
        """Catalogue shards, relative to the dataset's root, in order."""
        return tuple(sorted(name for name in self.files if name.startswith("catalogue/")))


def write_manifest(manifest: Manifest, root: str) -> None:
    """Writes `manifest.json` below `root`; the same manifest gives the same bytes."""
    content = json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n"
    storage.write_bytes(DatasetLayout(root).manifest, content.encode())


def read_manifest(root: str) -> Manifest:
    """The manifest of the dataset at `root`, without a check of the files it lists.

    Raises:
      ContractError: no manifest, not one of ours, or of another schema version.
    """
    path = DatasetLayout(root).manifest
    try:
        raw = json.loads(storage.read_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        raise ContractError(
            f"{root} is not a prepared dataset: it has no manifest.json; "
            "make one with `python -m preprocessing prepare --output DATASET`"
        ) from None
    except ValueError as error:
        raise ContractError(f"{path} is not valid JSON ({error}); prepare the dataset again") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise ContractError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; prepare the dataset again"
        )
    try:
        return _from_json(raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ContractError(f"{path} is damaged ({error!r}); prepare the dataset again") from error


def verify_files(manifest: Manifest, root: str) -> None:
    """Checks every listed file's SHA-256.

    Timelines that TensorFlow does not open itself must exist only: each shard is fetched to be read, and verified then
    (`shards.read_blocks`).

    Raises:
      ContractError: names the first file that is missing or differs.
    """
    verified_later = set()
    if not storage.is_served_by_tensorflow(root):
        shards = {name for split in manifest.splits.values() for name in split.files}
        verified_later = shards.intersection(storage.list_files(root))
    for name, expected in manifest.files.items():
        if name in verified_later:
            continue
        path = join(root, name)
        try:
            found = storage.sha256(path)
        except FileNotFoundError:
            raise ContractError(f"{path} is missing though the manifest lists it; prepare the dataset again") from None
        if found != expected:
            raise ContractError(
                f"{path} differs from the manifest (sha256 {found[:12]}…, expected {expected[:12]}…); "
                "prepare the dataset again"
            )


def dataset_checksum(root: str) -> str:
    """SHA-256 that stands for the whole dataset: the same input and settings give the same.

    The transform graph is left out: TensorFlow writes the same graph in other bytes each time.
    """
    manifest = read_manifest(root)
    files = {name: checksum for name, checksum in manifest.files.items() if not name.startswith("transform/")}
    content = json.dumps(asdict(dataclasses.replace(manifest, files=files)), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _from_json(raw: dict[str, Any]) -> Manifest:
    vocabularies = {Vocabulary(name): VocabularyInfo(**info) for name, info in raw["vocabularies"].items()}
    splits = {Split(name): SplitInfo(**{**info, "files": tuple(info["files"])}) for name, info in raw["splits"].items()}
    fields = {
        **raw,
        "split_method": SplitMethod(raw["split_method"]),
        "vocabularies": vocabularies,
        "splits": splits,
    }
    return Manifest(**fields)
