"""A directory without a manifest, or with files that differ from it, is not a dataset."""

import dataclasses
import hashlib
import json

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import storage
from common.errors import ContractError
from contract.layout import DatasetLayout
from contract.manifest import (
    Manifest,
    SplitInfo,
    VocabularyInfo,
    dataset_checksum,
    read_manifest,
    verify_files,
    write_manifest,
)
from contract.schema import Split, SplitMethod, Vocabulary


@pytest.fixture
def root(tmp_path) -> str:
    (tmp_path / "statistics.json").write_text("{}")
    (tmp_path / "timelines").mkdir()
    (tmp_path / "timelines" / "a").write_bytes(b"rows")
    for name in Vocabulary:
        storage.write_bytes(DatasetLayout(str(tmp_path)).vocabulary(name), b"x\ny\nz\n")
    manifest = Manifest(
        event_kinds=("view", "like", "buy"),
        event_weights=(0.5, 1.0, 2.0),
        split_method=SplitMethod.TIME,
        validation_from_ms=5,
        test_from_ms=9,
        vocabularies={name: VocabularyInfo(size=3, oov_buckets=2) for name in Vocabulary},
        splits=train_split(),
        config={"events": "*.csv"},
        files={name: storage.sha256(f"{tmp_path}/{name}") for name in storage.list_files(str(tmp_path))},
    )
    write_manifest(manifest, str(tmp_path))
    return str(tmp_path)


def test_a_manifest_reads_back_equal(root):
    manifest = read_manifest(root)
    assert manifest.vocabularies[Vocabulary.ITEMS].num_indices == 5
    assert manifest.splits[Split.TRAIN].files == ("timelines/a",)
    assert (manifest.event_kinds, manifest.event_weights) == (("view", "like", "buy"), (0.5, 1.0, 2.0))
    before = dataset_checksum(root)
    write_manifest(manifest, root)
    assert dataset_checksum(root) == before
    verify_files(manifest, root)


def test_a_directory_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ContractError, match=r"is not a prepared dataset.*cartwheel prepare"):
        read_manifest(str(tmp_path))


def test_a_changed_file_is_named(root):
    storage.write_bytes(f"{root}/statistics.json", b"{ }")
    with pytest.raises(ContractError, match=r"statistics.json differs from the manifest"):
        verify_files(read_manifest(root), root)


def test_a_vocabulary_of_another_size_is_named(root):
    manifest = read_manifest(root)
    sizes = dict(manifest.vocabularies) | {Vocabulary.VISITORS: VocabularyInfo(size=2, oov_buckets=2)}
    with pytest.raises(ContractError, match=r"visitors.txt has 3 ids, but the manifest expects 2; prepare"):
        verify_files(dataclasses.replace(manifest, vocabularies=sizes), root)


def test_a_missing_file_is_named(root, tmp_path):
    (tmp_path / "statistics.json").unlink()
    with pytest.raises(ContractError, match=r"statistics.json is missing"):
        verify_files(read_manifest(root), root)


def test_a_shard_that_is_not_fetched_is_verified_up_front(root):
    """TensorFlow opens ram:// itself, as it does gs://. Shards on memory:// are verified when they are fetched."""
    shard = {"timelines/a": hashlib.sha256(b"whole").hexdigest()}
    manifest = dataclasses.replace(read_manifest(root), files=shard, vocabularies={})
    tf.io.gfile.makedirs("ram://verified/timelines")  # without it ram:// lists nothing
    for store in ("memory://verified", "ram://verified"):
        storage.write_bytes(f"{store}/timelines/a", b"other")
    verify_files(manifest, "memory://verified")
    with pytest.raises(ContractError, match=r"ram://verified/timelines/a differs from the manifest"):
        verify_files(manifest, "ram://verified")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 99}', "schema version 99, but this program reads 1"),
        ('{"schema_version": 1}', "is damaged"),
    ],
)
def test_another_manifest_is_refused(root, content, message):
    storage.write_bytes(DatasetLayout(root).manifest, content.encode())
    with pytest.raises(ContractError, match=message):
        read_manifest(root)


def test_the_manifest_is_plain_json(root):
    assert json.loads(storage.read_bytes(DatasetLayout(root).manifest))["split_method"] == "time"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_refused_or_harmless(root, data):
    path = DatasetLayout(root).manifest
    whole, manifest = storage.read_bytes(path), read_manifest(root)
    position, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(whole)
    flipped[position] ^= 1 << bit
    storage.write_bytes(path, bytes(flipped))
    try:
        assert read_manifest(root) == manifest
    except ContractError:
        pass
    finally:
        storage.write_bytes(path, whole)


def train_split(**change) -> dict[Split, SplitInfo]:
    plausible = {"rows": 4, "target_rows": 4, "visitors": 2, "blocks": 1, "files": ("timelines/a",)}
    return {Split.TRAIN: SplitInfo(**plausible | change)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": train_split(rows=-1)}, "train.rows must be a whole number of at least 0, got -1"),
        ({"splits": train_split(rows=1e30)}, "train.rows must be a whole number of at least 0, got 1e"),
        ({"splits": train_split(blocks=0)}, "the counts of the train split contradict each other"),
        ({"splits": train_split(target_rows=5)}, "contradict each other"),
        ({"splits": train_split(files=("timelines/b",))}, "the file 'timelines/b' has no checksum"),
        ({"splits": {}}, "the train split is missing"),
        (
            {"vocabularies": {Vocabulary.ITEMS: VocabularyInfo(size=3, oov_buckets=2)}},
            "a vocabulary is missing; the manifest lists only: items",
        ),
        ({"files": {"../outside": "0"}}, "'../outside' is not below the dataset's root"),
        ({"files": {"timelines/a": 7}}, "the checksum of timelines/a must be text, got 7"),
        ({"validation_from_ms": 0.5}, "validation_from_ms must be a whole number"),
        ({"event_kinds": ()}, "event_kinds must be strings"),
        ({"event_weights": (1.0,)}, "event_weights must have a number for each"),
        ({"config": ["events"]}, "config must be an object that maps settings to values"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_sealed_manifest_with_an_impossible_value_is_refused(root, change, message):
    write_manifest(dataclasses.replace(read_manifest(root), **change), root)
    with pytest.raises(ContractError, match=message):
        read_manifest(root)


def test_a_deeply_nested_manifest_is_refused(root):
    storage.write_bytes(DatasetLayout(root).manifest, b"[" * 100_000)
    with pytest.raises(ContractError, match="is not valid JSON"):
        read_manifest(root)
