"""Tests the conversion of CSV lines to columns and rejects."""

import gzip
from pathlib import Path

import pytest

from preprocessing import validation
from preprocessing.config import PrepareConfig, TimeConfig
from preprocessing.events import make_mapping, parse_events
from preprocessing.inputs import list_inputs
from preprocessing.sources import rejects
from preprocessing.sources.source import read_batches
from tests.preprocessing.shop import HEADER, event

GOOD = event(0, "v", "i")


def read_one_batch(path: Path, content: bytes):
    path.write_bytes(content)
    config = PrepareConfig(events=str(path), time=TimeConfig(unit="ms"), max_reject_share=1)
    (batch,) = read_batches(list_inputs(config).events.parts)
    return batch, make_mapping(config)


def parse(path: Path, content: bytes):
    events = parse_events(*read_one_batch(path, content))
    return events.table, events.rejects


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1440000000000,v,view", validation.FIELD_COUNT),
        (b"1440000000000,v,view,i,,", validation.FIELD_COUNT),
        (b"yesterday,v,view,i,", validation.BAD_TIME),
        (b",v,view,i,", validation.BAD_TIME),
        (b"-5,v,view,i,", validation.BAD_TIME),
        (b"0x14F46B0400,v,view,i,", validation.BAD_TIME),  # a number to Arrow
        (b"1440000000.5,v,view,i,", validation.IMPLAUSIBLE_TIME),  # seconds
        (b"99999999999999999999,v,view,i,", validation.BAD_TIME),
        (b"1440000000,v,view,i,", validation.IMPLAUSIBLE_TIME),  # seconds
        (b"1440000000000000,v,view,i,", validation.IMPLAUSIBLE_TIME),  # microseconds
        (b"1440000000000,v,looked,i,", validation.UNKNOWN_EVENT),
        (b"1440000000000,v,,i,", validation.UNKNOWN_EVENT),
        (b"1440000000000,,view,i,", validation.EMPTY_ID),
        (b"1440000000000,v,view,,", validation.EMPTY_ID),
        (b"1440000000000,v,view,\xff\xfe,", validation.ENCODING),
        (b'1440000000000,v,view,"i,', validation.QUOTING),
        (b'1440000000000,v,view,"i"x,', validation.QUOTING),
        (b"1440000000000,v\rw,view,i,", validation.QUOTING),
        (b'1440000000000,"v,w",view,i', validation.FIELD_COUNT),
        (b'1440000000000, "v,w",view,i,', validation.FIELD_COUNT),  # a quote after a space quotes nothing: 6 fields
    ],
)
def test_an_invalid_row_is_rejected_with_its_reason_and_byte(tmp_path, row, reason):
    head = f"{HEADER}\n{GOOD}\n".encode()
    table, rejected = parse(tmp_path / "events.csv", head + row + b"\n" + GOOD.encode() + b"\n")
    assert list(rejected.reasons) == [reason]
    assert list(rejected.positions) == [len(head)]
    assert len(table) == 2, "the valid rows around it are kept"


def test_a_line_feed_inside_quotes_rejects_both_lines(tmp_path):
    content = f'{HEADER}\n{GOOD}\n1440000000000,v,view,"two\nlines",\n{GOOD}\n'.encode()
    table, rejected = parse(tmp_path / "events.csv", content)
    assert list(rejected.reasons) == [validation.QUOTING, validation.FIELD_COUNT]
    assert len(table) == 2


def test_quoted_rows_keep_their_position(tmp_path):
    content = (
        f'{HEADER}\n{event(0, "a", "1")}\n"1440000000000","b ""x"", c","view","2",""\n{event(0, "d", "3")}\n'.encode()
    )
    table, rejected = parse(tmp_path / "events.csv", content)
    assert not rejected.reasons
    assert table["visitor"].to_pylist() == ["a", 'b "x", c', "d"]
    assert table["item"].to_pylist() == ["1", "2", "3"]


def test_all_line_ends_a_byte_order_mark_other_alphabets_and_nul_are_read(tmp_path):
    first = event(0, "Ж", "商\0品-1")
    content = b"\xef\xbb\xbf" + f"{HEADER}\r\n{first}\r\n\r\n\n{event(0, 'b', '2')}".encode()
    rows, mapping = read_one_batch(tmp_path / "events.csv", content)
    table, rejected, _ = parse_events(rows, mapping)
    assert not rejected.reasons
    assert table["visitor"].to_pylist() == ["Ж", "b"]
    assert table["item"].to_pylist() == ["商\0品-1", "2"]
    assert rows.num_blank == 2


def test_columns_are_found_by_name_in_any_order_and_unused_ones_are_logged(tmp_path, caplog):
    path = tmp_path / "events.csv"
    with caplog.at_level("INFO"):
        table, _ = parse(path, b"itemid,shop,event,visitorid,timestamp\ni,1,addtocart,v,1440000000000\n")
    assert table.select(["visitor", "item", "event", "transaction"]).to_pylist() == [
        {"visitor": "v", "item": "i", "event": 1, "transaction": ""}
    ]
    assert "unused columns: shop" in caplog.text


def test_a_compressed_file_has_the_same_rows(tmp_path):
    content = "".join(f"{line}\n" for line in [HEADER, *(event(n, f"v{n}", f"i{n}") for n in range(50))]).encode()
    plain, _ = parse(tmp_path / "plain.csv", content)
    packed, _ = parse(tmp_path / "packed.csv.gz", gzip.compress(content))
    assert packed.equals(plain)


def test_the_text_of_a_reject_is_the_line_of_the_file(tmp_path):
    _, rejected = parse(tmp_path / "events.csv", b"itemid,shop,event,visitorid,timestamp\ni,X,looked,v,1440000000000\n")
    assert list(rejected.texts) == ["i,X,looked,v,1440000000000"]


def test_a_quoted_field_may_be_long(tmp_path):
    table, rejected = parse(tmp_path / "events.csv", f'{HEADER}\n1440000000000,"{"v" * 200_000}",view,i,\n'.encode())
    assert not rejected.reasons
    assert len(table["visitor"][0].as_py()) == 200_000


def test_positions_are_those_of_the_rows_in_the_file(tmp_path):
    rows, _ = read_one_batch(tmp_path / "events.csv", f"{HEADER}\n\n{GOOD}\n{GOOD}\n".encode())
    first = len(HEADER) + 2  # after the header's line feed and the blank line
    assert (rows.begins + rows.position).tolist() == [first, first + len(GOOD) + 1]


def test_rejects_are_limited_to_the_first_rows_of_each_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(rejects, "_MAX_ROWS", 2)
    short, unknown = "short", "1440000000000,v,looked,i,"
    lines = "".join(f"{row}\n" for row in (unknown, short, short, unknown, short, unknown))
    _, rejected = parse(tmp_path / "events.csv", f"{HEADER}\n{lines}".encode())
    assert len(rejected.reasons) == 6
    kept = rejected.limit()
    # a short row has 6 bytes, an unknown kind 26; malformed rows come first
    begin = len(HEADER) + 1
    assert list(kept.positions) == [begin + 26, begin + 32, begin, begin + 38]
    assert list(kept.reasons) == [validation.FIELD_COUNT] * 2 + [validation.UNKNOWN_EVENT] * 2
    assert list(kept.texts) == [short, short, unknown, unknown]
