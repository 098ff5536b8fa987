"""Files to columns: what is read, what is rejected and where it stood."""

import gzip
import itertools
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from common import storage
from preprocessing import validation
from preprocessing.sources import csv_files
from preprocessing.sources.csv_files import ByteRange, list_byte_ranges, parse_chunk, read_chunks
from preprocessing.timelines import EVENT_COLUMNS, OPTIONAL_EVENT_COLUMNS, parse_events
from tests.preprocessing.shop import HEADER, event


def parse(path: Path, content: bytes):
    path.write_bytes(content)
    ranges, _ = list_byte_ranges(str(path), EVENT_COLUMNS, OPTIONAL_EVENT_COLUMNS)
    (chunk,) = [chunk for source in ranges for chunk in read_chunks(source)]
    return parse_events(chunk)


GOOD = event(0, "v", "i")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1440000000000,v,view", validation.FIELD_COUNT),
        (b"1440000000000,v,view,i,,", validation.FIELD_COUNT),
        (b"yesterday,v,view,i,", validation.BAD_TIMESTAMP),
        (b",v,view,i,", validation.BAD_TIMESTAMP),
        (b"-5,v,view,i,", validation.BAD_TIMESTAMP),
        (b"0x14F46B0400,v,view,i,", validation.BAD_TIMESTAMP),  # a number to Arrow
        (b"1440000000.5,v,view,i,", validation.BAD_TIMESTAMP),
        (b"99999999999999999999,v,view,i,", validation.BAD_TIMESTAMP),
        (b"1440000000,v,view,i,", validation.IMPLAUSIBLE_TIMESTAMP),  # seconds
        (b"1440000000000000,v,view,i,", validation.IMPLAUSIBLE_TIMESTAMP),  # microseconds
        (b"1440000000000,v,looked,i,", validation.UNKNOWN_EVENT),
        (b"1440000000000,v,,i,", validation.UNKNOWN_EVENT),
        (b"1440000000000,,view,i,", validation.EMPTY_ID),
        (b"1440000000000,v,view,,", validation.EMPTY_ID),
        (b"1440000000000,v,view,\xff\xfe,", validation.ENCODING),
        (b'1440000000000,v,view,"i,', validation.QUOTING),
        (b'1440000000000,v,view,"i"x,', validation.QUOTING),
        (b"1440000000000,v\rw,view,i,", validation.QUOTING),
        (b'1440000000000,"v,w",view,i', validation.FIELD_COUNT),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_and_byte(tmp_path, row, reason):
    head = f"{HEADER}\n{GOOD}\n".encode()
    table, rejects, _ = parse(tmp_path / "events.csv", head + row + b"\n" + GOOD.encode() + b"\n")
    assert list(rejects.reasons) == [reason]
    assert list(rejects.positions) == [len(head)]
    assert len(table) == 2, "the good rows around it stay"


def test_a_line_feed_inside_quotes_rejects_both_lines(tmp_path):
    content = f'{HEADER}\n{GOOD}\n1440000000000,v,view,"two\nlines",\n{GOOD}\n'.encode()
    table, rejects, _ = parse(tmp_path / "events.csv", content)
    assert list(rejects.reasons) == [validation.QUOTING, validation.FIELD_COUNT]
    assert len(table) == 2


def test_quoted_fields_are_read_in_their_place(tmp_path):
    content = (
        f'{HEADER}\n{event(0, "a", "1")}\n"1440000000000","b ""x"", c","view","2",""\n{event(0, "d", "3")}\n'.encode()
    )
    table, rejects, _ = parse(tmp_path / "events.csv", content)
    assert not rejects.reasons
    assert table["visitor"].to_pylist() == ["a", 'b "x", c', "d"]
    assert table["item"].to_pylist() == ["1", "2", "3"]


def test_line_ends_of_every_kind_a_byte_order_mark_and_other_alphabets_are_read(tmp_path):
    content = b"\xef\xbb\xbf" + f"{HEADER}\r\n{event(0, 'Ж', '商品-1')}\r\n\r\n\n{event(0, 'b', '2')}".encode()
    table, rejects, num_blank = parse(tmp_path / "events.csv", content)
    assert not rejects.reasons
    assert table["visitor"].to_pylist() == ["Ж", "b"]
    assert table["item"].to_pylist() == ["商品-1", "2"]
    assert num_blank == 2


def test_columns_are_found_by_name_in_any_order_and_extra_ones_are_named(tmp_path, caplog):
    path = tmp_path / "events.csv"
    with caplog.at_level("INFO"):
        table, _, _ = parse(path, b"itemid,shop,event,visitorid,timestamp\ni,1,addtocart,v,1440000000000\n")
    assert table.select(["visitor", "item", "event", "transaction"]).to_pylist() == [
        {"visitor": "v", "item": "i", "event": 1, "transaction": ""}
    ]
    assert "columns not used: shop" in caplog.text


def test_a_missing_column_is_refused_with_both_lists(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("time,visitorid,event,itemid\n")
    with pytest.raises(ValueError, match=r"lacks the column timestamp: it has time, visitorid.*needed are timestamp"):
        list_byte_ranges(str(path), EVENT_COLUMNS)


def test_a_column_named_twice_is_refused(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("timestamp,visitorid,event,itemid,itemid\n")
    with pytest.raises(ValueError, match="names the column itemid more than once"):
        list_byte_ranges(str(path), EVENT_COLUMNS)


def test_a_glob_without_a_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file matches"):
        list_byte_ranges(str(tmp_path / "*.csv"), EVENT_COLUMNS)


def test_a_file_without_a_header_is_refused(tmp_path):
    (tmp_path / "events.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="has no header line"):
        list_byte_ranges(str(tmp_path / "events.csv"), EVENT_COLUMNS)


def test_a_compressed_file_gives_the_same_rows(tmp_path):
    content = "".join(f"{line}\n" for line in [HEADER, *(event(n, f"v{n}", f"i{n}") for n in range(50))]).encode()
    plain, _, _ = parse(tmp_path / "plain.csv", content)
    packed, _, _ = parse(tmp_path / "packed.csv.gz", gzip.compress(content))
    assert packed.equals(plain)


def test_a_large_compressed_file_is_read_in_several_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "_READ_BYTES", 64)
    lines = [event(n, f"v{n}", f"i{n}") for n in range(50)]
    path = tmp_path / "packed.csv.gz"
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in [HEADER, *lines]).encode()))
    (source,), size = list_byte_ranges(str(path), EVENT_COLUMNS)
    assert size == 3 * path.stat().st_size, "what it may have uncompressed"
    chunks = list(read_chunks(source))
    assert len(chunks) > 10
    assert b"".join(chunk.data for chunk in chunks).decode().split() == lines
    positions = [len(HEADER) + 1]
    for chunk in chunks[:-1]:
        positions.append(positions[-1] + len(chunk.data))
    assert [chunk.position for chunk in chunks] == positions


def test_a_damaged_compressed_file_is_named(tmp_path):
    path = tmp_path / "packed.csv.gz"
    lines = "".join(f"{event(n, f'v{n * 7919}', f'i{n * 104729}')}\n" for n in range(5000))
    path.write_bytes(gzip.compress(f"{HEADER}\n{lines}".encode())[:-3000])
    (source,), _ = list_byte_ranges(str(path), EVENT_COLUMNS)
    with pytest.raises(ValueError, match=r"packed.csv.gz is damaged after byte \d+"):
        list(read_chunks(source))


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.text(alphabet="ab,", max_size=6), min_size=1, max_size=12),
    cuts=st.lists(st.integers(3, 90), max_size=4),
    ends_open=st.booleans(),
)
def test_any_byte_ranges_together_give_every_line_once(tmp_path_factory, lines, cuts, ends_open):
    path = tmp_path_factory.mktemp("ranges") / "lines.csv"
    body = "\n".join(lines) + ("" if ends_open else "\n")
    path.write_text("x,\n" + body)
    size = 3 + len(body)
    edges = sorted({3, size, *(min(cut, size) for cut in cuts)})
    ranges = [ByteRange(str(path), 0, a, b, b - a, ("x",), ("x",)) for a, b in itertools.pairwise(edges)]
    data = b"".join(chunk.data for source in ranges for chunk in read_chunks(source)).decode()
    assert data.rstrip("\n") == body.rstrip("\n")


def test_a_rejected_row_is_shown_as_it_stands_in_the_file(tmp_path):
    _, rejects, _ = parse(
        tmp_path / "events.csv", b"itemid,shop,event,visitorid,timestamp\ni,X,looked,v,1440000000000\n"
    )
    assert list(rejects.texts) == ["i,X,looked,v,1440000000000"]


def test_lines_that_end_in_carriage_returns_alone_are_refused(tmp_path):
    (tmp_path / "mac.csv").write_bytes(b"timestamp,visitorid,event,itemid\r1440000000000,v,view,i\r")
    with pytest.raises(ValueError, match="carriage returns alone"):
        list_byte_ranges(str(tmp_path / "mac.csv"), EVENT_COLUMNS)


def test_a_quoted_field_may_be_long(tmp_path):
    table, rejects, _ = parse(tmp_path / "events.csv", f'{HEADER}\n1440000000000,"{"v" * 200_000}",view,i,\n'.encode())
    assert not rejects.reasons
    assert len(table["visitor"][0].as_py()) == 200_000


def test_positions_point_at_the_rows(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text(f"{HEADER}\n\n{GOOD}\n{GOOD}\n")
    (source,), _ = list_byte_ranges(str(path), EVENT_COLUMNS)
    (chunk,) = read_chunks(source)
    first = len(HEADER) + 2  # behind the header's line feed and the blank line
    assert (parse_chunk(chunk).begins + chunk.position).tolist() == [first, first + len(GOOD) + 1]


def test_of_each_reason_the_first_bad_rows_of_a_chunk_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_files, "_REJECTS_KEPT", 2)
    short, unknown = "short", "1440000000000,v,looked,i,"
    rows = "".join(f"{row}\n" for row in (unknown, short, short, unknown, short, unknown))
    _, rejects, _ = parse(tmp_path / "events.csv", f"{HEADER}\n{rows}".encode())
    assert len(rejects.reasons) == 6
    kept = csv_files.keep_first(rejects)
    # a row of 6 bytes is short, one of 26 has an unknown kind; malformed rows stand first
    begin = len(HEADER) + 1
    assert list(kept.positions) == [begin + 26, begin + 32, begin, begin + 38]
    assert list(kept.reasons) == [validation.FIELD_COUNT] * 2 + [validation.UNKNOWN_EVENT] * 2
    assert list(kept.texts) == [short, short, unknown, unknown]


def test_a_file_of_a_store_is_fetched_once(monkeypatch):
    """Three ranges of 8 MiB, fetched with 64 KiB for the ends of their last lines, and 64 KiB for the header."""
    uri, row = "memory://fetched/events.csv", f"{GOOD}\n".encode()
    content = f"{HEADER}\n".encode() + row * ((24 << 20) // len(row))
    storage.write_bytes(uri, content)
    fetched, cat_file = [], MemoryFileSystem.cat_file

    def counting(self, path: str, **limits: int) -> bytes:
        fetched.append(cat_file(self, path, **limits))
        return fetched[-1]

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counting)
    ranges, _ = list_byte_ranges(uri, EVENT_COLUMNS, OPTIONAL_EVENT_COLUMNS)
    assert [len(piece) for piece in fetched] == [64 << 10]
    assert len(ranges) == 3
    assert b"".join(chunk.data for source in ranges for chunk in read_chunks(source)) == content[len(HEADER) + 1 :]
    # each range is fetched from the byte before it, the last to the end of the file; two have 64 KiB more
    assert sum(map(len, fetched[1:])) == len(content) - (len(HEADER) + 1) + 1 + 2 * (64 << 10)
    storage.remove("memory://fetched")
