"""The seed determines the files of a synthetic shop, which are written whole or not at all, and their summary."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from preprocessing.synthetic import SynthesisConfig, files, synthesize

FILES = ["category_tree.csv", "events.csv", "item_properties_part1.csv", "item_properties_part2.csv"]
BEGIN_MS = 1_430_622_004_384  # 2015-05-03 03:00:04.384 UTC
END_MS = 1_442_545_187_788  # 2015-09-18 02:59:47.788 UTC


def digest(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_the_seed_determines_all_files(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        synthesize(SynthesisConfig(visitors=500, seed=seed), str(tmp_path / name))
    first, again, other = (digest(tmp_path / name) for name in "abc")
    assert sorted(first) == FILES
    assert first == again
    assert all(first[name] != other[name] for name in FILES)


@pytest.mark.parametrize("visitors", [1, 49])
def test_a_shop_with_too_few_visitors_is_rejected_with_the_minimum(visitors):
    with pytest.raises(ValueError, match=f"at least 50 visitors.*got {visitors}"):
        SynthesisConfig(visitors=visitors)


def test_a_negative_seed_is_rejected():
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        SynthesisConfig(visitors=50, seed=-1)


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_shop_has_every_kind_of_event_and_every_file(tmp_path, seed):
    summary = synthesize(SynthesisConfig(visitors=50, seed=seed), str(tmp_path / "shop"))
    log = pd.read_csv(summary["events"])
    assert log.visitorid.nunique() == 50
    assert set(log.event) == {"view", "addtocart", "transaction"}
    assert [log.timestamp.min(), log.timestamp.max()] == [BEGIN_MS, END_MS]
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == FILES


def test_the_summary_has_the_counts_of_the_files(tmp_path):
    summary = synthesize(SynthesisConfig(visitors=300), str(tmp_path / "shop"))
    log = pd.read_csv(summary["events"])
    parts = (tmp_path / "shop").glob("item_properties_part*.csv")
    properties = pd.concat(pd.read_csv(path, dtype={"value": str}) for path in parts)
    assert summary["event_rows"] == log.event.value_counts().to_dict()
    assert summary["items_in_events"] == log.itemid.nunique()
    assert summary["items_with_properties"] == properties.itemid.nunique()
    assert summary["property_rows"] == len(properties)
    assert summary["categories"] == len(pd.read_csv(summary["category_tree"]))


def test_an_output_directory_that_is_not_empty_is_rejected_unchanged(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        synthesize(SynthesisConfig(visitors=50), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_failed_shop_leaves_no_files(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files, "_write_properties", fail)
    with pytest.raises(OSError, match="disk full"):
        synthesize(SynthesisConfig(visitors=50), str(tmp_path / "shop"))
    assert list(tmp_path.iterdir()) == []
