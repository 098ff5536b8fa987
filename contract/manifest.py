"""The manifest of a prepared dataset: counts, vocabulary sizes, split cuts and checksums. Written last, read first."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from common import storage
from common.errors import ContractError
from common.sealed_json import decode_sealed, encode_sealed
from common.storage.paths import join
from contract.layout import DatasetLayout
from contract.schema import SCHEMA_VERSION, Split, SplitMethod, Vocabulary

_READ_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class VocabularyInfo:
    """Sizes of a vocabulary."""

    size: int
    """Number of entries. They have the indices 0 … size-1."""
    oov_buckets: int
    """Number of out-of-vocabulary buckets. They have the indices size … size+oov_buckets-1."""

    @property
    def num_indices(self) -> int:
        """Number of rows of the vocabulary's embedding table."""
        return self.size + self.oov_buckets


@dataclass(frozen=True, kw_only=True)
class SplitInfo:
    """Counts and files of a split's timelines. A visitor's timeline may contain rows of earlier splits as context."""

    rows: int
    """Number of rows, including context rows."""
    target_rows: int
    """Number of rows that belong to the split, without context rows."""
    visitors: int
    """Number of timelines."""
    blocks: int
    """Number of tf.train.Examples."""
    files: tuple[str, ...]
    """Shard paths relative to the dataset's root, in order."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Counts, settings and checksums of a dataset."""

    event_kinds: tuple[str, ...]
    """The shop's event kinds, in funnel order. Timelines store the index of a kind in this tuple."""
    event_weights: tuple[float, ...] | None
    """Training weight of each event kind. None: the shop sets no weights, and each loss uses its own defaults."""
    split_method: SplitMethod
    """How events were divided into splits."""
    validation_from_ms: int | None
    """Time of the first cut, at which validation starts, in milliseconds since 1970 (UTC). An event at exactly this
    time belongs to validation. None unless `split_method` is time."""
    test_from_ms: int | None
    """Time of the second cut, at which the test split starts, in milliseconds since 1970 (UTC). None unless
    `split_method` is time."""
    vocabularies: Mapping[Vocabulary, VocabularyInfo]
    """Sizes of the vocabularies."""
    splits: Mapping[Split, SplitInfo]
    """Counts and files of the splits."""
    config: Mapping[str, Any]
    """Settings with which `prepare` built the dataset."""
    files: Mapping[str, str]
    """SHA-256 of each listed file, by path relative to the dataset's root."""
    schema_version: int = SCHEMA_VERSION
    """Version of the dataset format."""

    @property
    def catalogue_files(self) -> tuple[str, ...]:
        """Catalogue shards, relative to the dataset's root, in order."""
        return tuple(sorted(name for name in self.files if name.startswith("catalogue/")))


def write_manifest(manifest: Manifest, root: str) -> None:
    """Writes `manifest.json` into the dataset at `root`; the same manifest gives the same bytes."""
    storage.write_bytes(DatasetLayout(root).manifest, encode_sealed(asdict(manifest), sort_keys=True))


def read_manifest(root: str) -> Manifest:
    """Reads the manifest of the dataset at `root`. Does not check the files that the manifest lists.

    Raises:
      ContractError: there is no manifest, or the manifest is damaged or has an unsupported schema version.
    """
    path = DatasetLayout(root).manifest
    try:
        content = storage.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ContractError(
            f"{root} is not a prepared dataset: it has no manifest.json; "
            "build one with `cartwheel prepare --output DATASET`"
        ) from None
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ContractError(f"{path} is not valid JSON ({error}); prepare the dataset again") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        raise ContractError(
            f"{path} has schema version {version}, but this program reads {SCHEMA_VERSION}; prepare the dataset again"
        )
    try:
        manifest = _from_json(decode_sealed(content))
        _check_values(manifest)
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ContractError(f"{path} is damaged ({error!r}); prepare the dataset again") from error


def verify_files(manifest: Manifest, root: str, on_file: Callable[[], None] = lambda: None) -> None:
    """Checks the SHA-256 of every listed file, and the size of each vocabulary.

    If TensorFlow cannot read the store, timeline shards are only checked for existence: `shards.read_blocks` verifies
    them later.

    Args:
      manifest: the manifest of the dataset.
      root: directory of the dataset.
      on_file: called after each verified file.

    Raises:
      ContractError: a file is missing or differs from the manifest; the message names the first.
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
        on_file()
    for vocabulary, info in manifest.vocabularies.items():
        _check_size(join(root, _vocabulary_file(vocabulary)), info.size)


def _check_size(path: str, expected: int) -> None:
    """Raises ContractError unless the vocabulary file has `expected` ids."""
    with storage.open_binary(path) as file:
        found = sum(piece.count(b"\n") for piece in iter(lambda: file.read(_READ_BYTES), b""))
    if found != expected:
        raise ContractError(
            f"{path} has {found:,} ids, but the manifest expects {expected:,}; prepare the dataset again"
        )


def dataset_checksum(root: str) -> str:
    """Returns a SHA-256 that identifies a dataset. Equal input and settings give equal hashes.

    The hash excludes the transform graph, because TensorFlow serialises it differently each time.
    """
    manifest = read_manifest(root)
    files = {name: checksum for name, checksum in manifest.files.items() if not name.startswith("transform/")}
    content = json.dumps(asdict(dataclasses.replace(manifest, files=files)), sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def _check_values(manifest: Manifest) -> None:
    sizes: list[tuple[str, VocabularyInfo | SplitInfo]] = [*manifest.vocabularies.items(), *manifest.splits.items()]
    numbers = {f"{owner}.{key}": value for owner, info in sizes for key, value in asdict(info).items()}
    for key, value in numbers.items():
        if not key.endswith(".files") and (type(value) is not int or not 0 <= value < 2**63):
            raise ValueError(f"{key} must be a whole number of at least 0, got {value}")
    for key in ("validation_from_ms", "test_from_ms"):
        cut = getattr(manifest, key)
        if cut is not None and type(cut) is not int:
            raise ValueError(f"{key} must be a whole number of milliseconds, got {cut}")
    kinds, weights = manifest.event_kinds, manifest.event_weights
    if not kinds or not all(isinstance(kind, str) for kind in kinds):
        raise ValueError(f"event_kinds must be strings, got {kinds}")
    if weights is not None and len(weights) != len(kinds):
        raise ValueError(f"event_weights must have a number for each of {kinds}, got {weights}")
    if not isinstance(manifest.config, dict):
        raise ValueError(f"config must be an object that maps settings to values, got {manifest.config}")
    _check_files(manifest)


def _check_files(manifest: Manifest) -> None:
    for name, checksum in manifest.files.items():
        if name.startswith("/") or "://" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise ValueError(f"the file {name!r} is not below the dataset's root")
        if not isinstance(checksum, str):
            raise ValueError(f"the checksum of {name} must be text, got {checksum}")
    if Split.TRAIN not in manifest.splits:
        raise ValueError("the train split is missing")
    for split, info in manifest.splits.items():
        has_blocks = info.blocks > 0 or info.rows == 0
        if not (has_blocks and info.blocks <= info.visitors <= info.rows and info.target_rows <= info.rows):
            raise ValueError(f"the counts of the {split} split contradict each other: {info}")
    vocabularies = [_vocabulary_file(name) for name in Vocabulary if name in manifest.vocabularies]
    if len(vocabularies) < len(Vocabulary):
        raise ValueError(
            f"a vocabulary is missing; the manifest lists only: {', '.join(manifest.vocabularies) or 'none'}"
        )
    for name in [*vocabularies, *(name for info in manifest.splits.values() for name in info.files)]:
        if name not in manifest.files:
            raise ValueError(f"the file {name!r} has no checksum")


def _vocabulary_file(name: Vocabulary) -> str:
    """Returns the path of a vocabulary file, relative to the dataset's root."""
    return f"vocabulary/{name}.txt"


def _from_json(raw: dict[str, Any]) -> Manifest:
    vocabularies = {Vocabulary(name): VocabularyInfo(**info) for name, info in raw["vocabularies"].items()}
    splits = {Split(name): SplitInfo(**{**info, "files": tuple(info["files"])}) for name, info in raw["splits"].items()}
    weights = raw["event_weights"]
    fields = {
        **raw,
        "event_kinds": tuple(raw["event_kinds"]),
        "event_weights": None if weights is None else tuple(map(float, weights)),
        "split_method": SplitMethod(raw["split_method"]),
        "vocabularies": vocabularies,
        "splits": splits,
    }
    return Manifest(**fields)
