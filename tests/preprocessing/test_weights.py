"""Tests the weights of events, from the values of a column to the timelines and the statistics."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from contract.layout import DatasetLayout
from contract.manifest import read_manifest
from contract.schema import Split
from contract.shards import Shard, read_timelines
from preprocessing.config import EventColumns, PrepareConfig
from preprocessing.events import parse_events, parse_weights
from preprocessing.inputs import list_inputs
from preprocessing.inspection import inspect
from preprocessing.pages.report import write_report
from preprocessing.pipeline import prepare
from preprocessing.sources.source import read_batches
from preprocessing.validation import BAD_WEIGHT, Flaws
from tests.preprocessing.shop import write_lines

DAY_MS = 86_400_000
START_MS = 1_709_262_000_000


@pytest.mark.parametrize(
    ("values", "weights", "valid"),
    [
        (pa.array(["2", "0", "0,5", "", None, "-1", "two", "1e10"]), [2, 0, 0.5, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4]),
        (pa.array([3, None, -2, 0]), [3, 1, 1, 0], [0, 1, 3]),
        (pa.array([4.5, float("nan"), float("inf"), -0.1, 1e9]), [4.5, 1, 1, 1, 1e9], [0, 1, 4]),
    ],
)
def test_a_missing_weight_is_one_and_no_other_value_is_guessed(values, weights, valid):
    flaws = Flaws.none(len(values))
    parsed = parse_weights(values, flaws)
    assert parsed.dtype == np.float32
    assert parsed.tolist() == weights
    assert np.flatnonzero(flaws.is_valid).tolist() == valid
    assert set(flaws.reasons) == {BAD_WEIGHT}


def parse(config: PrepareConfig) -> tuple[list[float], Counter]:
    inputs = list_inputs(config)
    parsed = [parse_events(batch, inputs.mapping) for batch in read_batches(inputs.events.parts)]
    weights = pa.concat_tables(events.table for events in parsed)["weight"].to_pylist()
    return weights, sum((Counter(events.rejects.reasons) for events in parsed), Counter())


def test_weights_come_from_a_column_a_constant_or_are_one(tmp_path):
    lines = [f"{START_MS},u,i,{weight}" for weight in ("3", "", "-3", "0.5")]
    path = write_lines(tmp_path / "events.csv", "t,u,i,q", *lines)
    columns = {"visitor": "u", "item": "i", "time": "t", "kind": "'buy'"}
    assert parse(PrepareConfig(events=path, columns=EventColumns(**columns, weight="q"))) == (
        [3, 1, 0.5],
        Counter({BAD_WEIGHT: 1}),
    )
    assert parse(PrepareConfig(events=path, columns=EventColumns(**columns, weight="'2'"))) == ([2] * 4, Counter())
    assert parse(PrepareConfig(events=path, columns=EventColumns(**columns))) == ([1] * 4, Counter())
    returned = PrepareConfig(events=path, columns=EventColumns(**columns, weight="q"), where=("q > 0",))
    assert parse(returned) == ([3, 0.5], Counter())


def test_each_element_of_a_list_has_its_own_weight_or_that_of_its_row(tmp_path):
    row = {"ts": START_MS, "user": "u", "w": 4, "items": [{"id": "a", "quantity": 2}, {"id": "b", "quantity": 5}]}
    (tmp_path / "events.jsonl").write_text(json.dumps(row) + "\n")
    for weight, expected in (("items[].quantity", [2, 5]), ("w", [4, 4])):
        columns = EventColumns(visitor="user", item="items[].id", time="ts", kind="'buy'", weight=weight)
        assert parse(PrepareConfig(events=str(tmp_path / "events.jsonl"), columns=columns)) == (expected, Counter())


def test_inspect_names_columns_that_may_be_weights(tmp_path):
    path = write_lines(tmp_path / "events.csv", "ts,user,sku,rating", f"{START_MS},u,i,4")
    assert any('write weight = "rating" in [columns]' in warning for warning in inspect(path).warnings)
    assert inspect(path).config.columns.weight is None


@pytest.mark.integration
def test_weights_reach_the_timelines_the_statistics_and_the_report(tmp_path):
    # twenty events in ten days; the weight of event n is n / 2
    lines = [f"{START_MS + n * DAY_MS // 2},v{n % 2},i{n % 3},{n / 2}" for n in range(20)]
    path = write_lines(tmp_path / "events.csv", "timestamp,visitorid,itemid,quantity", *lines)
    root = str(tmp_path / "dataset")
    prepare(PrepareConfig(events=path, columns=EventColumns(kind="'buy'", weight="quantity")), root)
    manifest = read_manifest(root)
    # events 0 to 15 train, event 18 and 19 test; the test rows of both visitors have their other rows as context
    for split, numbers in ((Split.TRAIN, range(16)), (Split.TEST, range(20))):
        rows = read_timelines([Shard(f"{root}/{name}", "") for name in manifest.splits[split].files])
        assert sorted(rows.weight.tolist()) == [n / 2 for n in numbers]
        assert rows.weight.tolist() == ((rows.timestamp_ms - START_MS) / DAY_MS).tolist()
    # 0 + 0.5 + … + 9.5 = 95, of 20 events
    assert json.loads(Path(DatasetLayout(root).statistics).read_text())["events"]["mean_weight"] == 4.75
    assert "<dt>mean weight of events</dt><dd>4.75</dd>" in Path(write_report(root)).read_text()
