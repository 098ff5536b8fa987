"""JSON Lines: each line is one object, and an invalid line or element is rejected alone."""

import json
import re

import pyarrow as pa
import pytest

from preprocessing.config import EventColumns, PrepareConfig, TimeConfig
from preprocessing.events import ParsedEvents
from tests.preprocessing.sources.readers import read_events

TIME_MS = 1_709_262_000_000


def test_transactions_that_json_has_only_after_its_first_lines_are_read(tmp_path):
    rows = [
        {"timestamp": TIME_MS, "visitorid": "v", "event": "view", "itemid": "i", "pad": "x" * 100} for _ in range(1000)
    ]
    rows.append(rows[0] | {"event": "transaction", "transactionid": 7})
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, _ = read_events(PrepareConfig(events=str(tmp_path / "events.jsonl")))
    assert table["transaction"].to_pylist()[-1] == "7"


def test_an_invalid_line_of_json_is_rejected_alone(tmp_path):
    path = tmp_path / "lines.jsonl"
    good = '{"timestamp": 1709262000000, "visitorid": "v", "event": "view", "itemid": %s}\n'
    lines = [good % "1", "{broken\n", "[1]\n", good % '"two"']
    path.write_text("".join(lines))
    table, (events,) = read_events(PrepareConfig(events=str(path)))
    assert table["item"].to_pylist() == ["1", "two"]
    assert events.rejects.reasons == ["not a JSON object"] * 2
    assert events.rejects.positions == [len(lines[0]), len(lines[0]) + len(lines[1])]
    assert events.rejects.texts == ["{broken", "[1]"]


def test_the_first_line_of_json_may_be_long(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text(' \n\n{"timestam')
    with pytest.raises(ValueError, match=r"is not valid JSON Lines: .* the first line is b'{.timestam'"):
        read_events(PrepareConfig(events=str(path)))


def read_json(tmp_path, *objects: dict, item: str = "i", bad: str = "") -> tuple[pa.Table, list[ParsedEvents]]:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"t": TIME_MS} | value) + "\n" for value in objects) + bad)
    return read_events(
        PrepareConfig(events=str(path), columns=EventColumns(visitor="v", item=item, time="t", kind="'view'"))
    )


@pytest.mark.parametrize(
    ("bad", "rejects"),
    [
        ('{"t": 1, "i": 1}{"t": 1, "i": 2}\n \n', ['{"t": 1, "i": 1}{"t": 1, "i": 2}', " "]),  # two objects, two lines
        ('{"i": 1e400}\n{"i": Infinity}\n', ['{"i": 1e400}', '{"i": Infinity}']),
        ('{"t": 1709262000000, "v": "v", "i": NaN}\n', ['{"t": 1709262000000, "v": "v", "i": NaN}']),  # a missing value
        ('{"i": 1e400}\n{"i": [1]\n', ['{"i": 1e400}', '{"i": [1]']),
    ],
    ids=["objects", "infinite", "missing", "brackets"],
)
def test_a_line_of_json_is_one_object_with_finite_numbers(tmp_path, bad, rejects):
    table, (events,) = read_json(tmp_path, {"i": "first", "v": "v"}, bad=bad)
    assert table["item"].to_pylist() == ["first"]
    assert events.rejects.texts == rejects


@pytest.mark.parametrize("bad", ["", "{broken\n"])
def test_ids_of_json_do_not_depend_on_the_other_lines(bad, tmp_path):
    large = [12345678901234567890, 12345678901234567891]
    objects = [{"v": large[0], "i": "2024-03-01"}, {"v": large[1], "i": "2024-03-02T00:00:00Z"}]
    table, _ = read_json(tmp_path, *objects, bad=bad)
    assert table["visitor"].to_pylist() == list(map(str, large))
    assert table["item"].to_pylist() == ["2024-03-01", "2024-03-02T00:00:00Z"]
    table, _ = read_json(tmp_path, {"v": 7.0, "i": "x", "t": float(TIME_MS)}, {"v": "a", "i": 8.0}, bad=bad)
    assert table["visitor"].to_pylist() == ["7", "a"]
    assert table["item"].to_pylist() == ["x", "8"]


def test_a_field_missing_from_all_first_lines_of_json_is_a_warning(tmp_path, caplog):
    read_json(tmp_path, {"v": "a", "sku": "x"})
    assert "lines.jsonl (JSON Lines) has no column i: it has t, v, sku. Map columns with --map" in caplog.text
    assert "in JSON Lines, later lines can have more columns" in caplog.text


def test_broken_texts_of_json_are_rejected_or_replaced(tmp_path):
    path = tmp_path / "lines.jsonl"
    line = b'{"timestamp": 1709262000000, "visitorid": "%s", "event": "view", "itemid": 1}\n'
    path.write_bytes(b"".join(line % visitor for visitor in (b"a", b"\xff", rb"b\ud83d")))
    table, (events,) = read_events(PrepareConfig(events=str(path)))
    assert table["visitor"].to_pylist() == ["a", "b?"]
    assert events.rejects.reasons == ["invalid UTF-8"]


def test_null_elements_of_a_list_in_json_are_rejected_alone(tmp_path):
    lists = [[None, {"i": "x"}, {"i": None}], None, [], [{"i": "y"}]]
    table, (events,) = read_json(tmp_path, *({"v": "a", "items": value} for value in lists), item="items[].i")
    assert table["item"].to_pylist() == ["x", "y"]
    assert events.rejects.reasons == ["empty id"] * 2
    assert events.filtered.total() == 2


def test_a_field_of_json_that_is_an_object_on_some_lines_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match=r"lines.jsonl after byte 0 has a field `v` that changes its type from line to line"
    ):
        read_json(tmp_path, {"v": "a", "i": "x"}, {"v": {"id": 1}, "i": "x"})


@pytest.mark.parametrize(("visitor", "path"), [({"id": 1}, "v.id"), ([1], "v[]")])
def test_a_mapped_column_of_objects_or_lists_is_an_error(visitor, path, tmp_path):
    with pytest.raises(ValueError, match=rf"`v` has values of type .*, not single values; .*`{re.escape(path)}`"):
        read_json(tmp_path, {"v": visitor, "i": "x"})


def test_a_reject_of_an_element_names_its_line(tmp_path):
    path = tmp_path / "sessions.jsonl"
    first = '{"session": 1, "events": [{"aid": 5, "ts": 1709262000000}]}\n'
    path.write_text(first + '{"session": 2, "events": [{"aid": 6, "ts": 1709262000000}, {"aid": 7, "ts": 3}]}\n')
    columns = EventColumns(visitor="session", item="events[].aid", time="events[].ts", kind="'view'")
    table, (events,) = read_events(PrepareConfig(events=str(path), columns=columns, time=TimeConfig(unit="ms")))
    assert table["item"].to_pylist() == ["5", "6"]
    assert events.rejects.positions == [len(first)]
