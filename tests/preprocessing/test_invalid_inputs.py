"""`prepare` counts and stores the invalid rows of each input; too many of them, or unsuitable inputs, fail the job."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from common.storage.paths import join
from contract.catalogue import read_catalogue
from contract.manifest import read_manifest
from preprocessing.config import PrepareConfig, PropertyConfig, SplitConfig
from preprocessing.pipeline import prepare
from preprocessing.sources import rejects
from tests.preprocessing.shop import DAY_MS, START_MS, plain_events, write_events, write_lines

pytestmark = pytest.mark.integration


def test_too_many_invalid_rows_fail_the_job_and_nothing_is_published(tmp_path):
    lines = [*plain_events(98), "1440000000000,v,looked,i", "1440000000000,v,view,"]
    config = PrepareConfig(events=write_events(tmp_path / "events.csv", *lines))
    with pytest.raises(
        ValueError, match=r"2 of 100 event rows are invalid \(2.00%, .*unknown event kind: 1 \(first: .*looked"
    ):
        prepare(config, str(tmp_path / "dataset"))
    assert os.listdir(tmp_path) == ["events.csv"]


@pytest.mark.parametrize(
    ("item", "properties", "message"),
    [
        ("0001", PropertyConfig(), "the item properties or the item table contain no item of the training events"),
        ("i1", PropertyConfig(price="preis"), "properties.price is `preis`, but no item has such a property"),
    ],
    ids=["ids", "names"],
)
def test_item_properties_that_fit_no_event_or_setting_fail_the_job(tmp_path, item, properties, message):
    rows = [f"{START_MS},{item},categoryid,1"]
    config = PrepareConfig(
        events=write_events(tmp_path / "events.csv", *plain_events(20)),
        item_properties=write_lines(tmp_path / "properties.csv", "timestamp,itemid,property,value", *rows),
        properties=properties,
    )
    with pytest.raises(ValueError, match=message):
        prepare(config, str(tmp_path / "dataset"))
    assert sorted(os.listdir(tmp_path)) == ["events.csv", "properties.csv"]


def test_an_input_without_rows_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="has no usable event in 0 rows"):
        prepare(PrepareConfig(events=write_events(tmp_path / "events.csv")), str(tmp_path / "dataset"))
    assert os.listdir(tmp_path) == ["events.csv"]


def test_invalid_rows_beyond_the_stored_ones_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(rejects, "_MAX_ROWS", 2)
    bad = [f"bad-{n}" for n in range(5)]
    events = write_events(tmp_path / "events.csv", *bad, *plain_events(20))
    tree = write_lines(tmp_path / "tree.csv", "categoryid,parentid", "1,", *bad)
    config = PrepareConfig(events=events, category_tree=tree, max_reject_share=0.9)
    assert prepare(config, str(tmp_path / "dataset"))["rejected"] == {"wrong number of fields": 5}
    statistics = json.loads((tmp_path / "dataset" / "statistics.json").read_text())
    for name, file in (("events", "events"), ("category_tree", "category-tree")):
        examples = statistics[name]["reject_examples"]["wrong number of fields"]
        assert [example["row"] for example in examples] == bad[:3]
        (path,) = (tmp_path / "dataset" / "rejects").glob(f"{file}-*")
        assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == bad[:2]


def test_invalid_rows_of_each_input_are_stored_separately_with_their_position(tmp_path):
    for name in ("events", "properties", "tree"):
        (tmp_path / name).mkdir()
    config = PrepareConfig(
        events=write_events(tmp_path / "events" / "2015.csv", *plain_events(20), "bad", *plain_events(20)),
        item_properties=write_lines(
            tmp_path / "properties" / "2015.csv",
            "timestamp,itemid,property,value",
            f"{START_MS},i1,categoryid,",  # an empty value counts as unknown
            f"{START_MS},i1,790,cheap",
            "",
            "bad",
        ),
        category_tree=write_lines(tmp_path / "tree" / "2015.csv", "categoryid,parentid", "1,", "bad,row,here"),
        max_reject_share=0.5,
    )
    summary = prepare(config, str(tmp_path / "dataset"))
    assert summary["rejected"] == {"wrong number of fields": 1}
    assert summary["duplicates"] == 20, "the second twenty repeat the first"
    stored = {path.name: json.loads(path.read_text()) for path in (tmp_path / "dataset" / "rejects").iterdir()}
    assert stored["events-00000-2015.csv.jsonl"] == {
        "file": config.events,
        "position": Path(config.events).read_text().index("bad"),
        "reason": "wrong number of fields",
        "row": "bad",
    }
    assert {name: entry["row"] for name, entry in stored.items()} == {
        "events-00000-2015.csv.jsonl": "bad",
        "item-properties-00000-2015.csv.jsonl": "bad",
        "category-tree-00000-2015.csv.jsonl": "bad,row,here",
    }
    statistics = json.loads((tmp_path / "dataset" / "statistics.json").read_text())
    properties = statistics["item_properties"]
    assert (properties["rows"], properties["blank_lines"]) == (3, 1)
    assert properties["rejected"] == {"wrong number of fields": 1}
    (example,) = properties["reject_examples"]["wrong number of fields"]
    assert (example["file"], example["row"]) == (str(tmp_path / "properties" / "2015.csv"), "bad")
    assert statistics["category_tree"]["rejected"] == {"wrong number of fields": 1}
    assert statistics["catalogue"]["invalid_prices"] == 1


def test_item_properties_that_start_after_the_cut_are_a_warning(tmp_path, caplog):
    """A file with one row, after the 50 days of events, and a file with a header only."""
    header, row = "timestamp,itemid,property,value", f"{START_MS + 60 * DAY_MS},i1,categoryid,1"
    config = PrepareConfig(
        events=write_events(tmp_path / "events.csv", *plain_events(50)),
        item_properties=write_lines(tmp_path / "properties.csv", header, row),
    )
    root = str(tmp_path / "dataset")
    prepare(config, root)
    # 0.8 of 50 events, one a day: the cut is on day 40
    assert "all item properties are later than the start of validation (2015-09-28T16:00" in caplog.text
    items = read_catalogue([join(root, name) for name in read_manifest(root).catalogue_files])
    assert (len(items), items["category_id"].null_count) == (4, 4)
    # without a split, there is no cut
    write_lines(tmp_path / "properties.csv", header)
    prepare(replace(config, split=SplitConfig(method="none")), str(tmp_path / "whole"))
    assert "no item properties were found, so no item has a category or price; check the files" in caplog.text
