"""Tests the opening of text files, and their division into byte ranges and chunks."""

import gzip
import itertools
from collections.abc import Iterator

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from common import storage
from preprocessing.config import FormatConfig
from preprocessing.sources import text_files
from preprocessing.sources.formats import open_files
from preprocessing.sources.source import Part
from preprocessing.sources.text_files import Lines, TextFormat, read_lines
from tests.preprocessing.shop import HEADER, event

EVENT_COLUMNS = ("timestamp", "visitorid", "event", "itemid")


def open_csv(path: object) -> tuple[list[Part], int]:
    return open_files(str(path), FormatConfig(), EVENT_COLUMNS)


def read_chunks(part: Part) -> Iterator[Lines]:
    return read_lines(part.path, part.source.text_format, part.begin, part.end)


def test_a_missing_column_is_an_error_with_the_columns_found_and_advice(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("time,visitorid,event,itemid\n")
    with pytest.raises(
        ValueError, match=r"\(CSV separated by commas\) has no column timestamp: it has time, visitorid.*--map"
    ):
        open_csv(path)


def test_a_repeated_column_is_an_error(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("timestamp,visitorid,event,itemid,itemid\n")
    with pytest.raises(ValueError, match="repeats the column name itemid"):
        open_csv(path)


def test_a_glob_that_matches_no_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file matches"):
        open_csv(tmp_path / "*.csv")


def test_a_file_without_a_header_is_an_error(tmp_path):
    (tmp_path / "events.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        open_csv(tmp_path / "events.csv")


def test_carriage_returns_without_line_feeds_are_an_error(tmp_path):
    (tmp_path / "mac.csv").write_bytes(b"timestamp,visitorid,event,itemid\r1440000000000,v,view,i\r")
    with pytest.raises(ValueError, match="carriage returns alone"):
        open_csv(tmp_path / "mac.csv")


def test_a_large_compressed_file_is_read_in_several_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "READ_BYTES", 64)
    lines = [event(n, f"v{n}", f"i{n}") for n in range(50)]
    path = tmp_path / "packed.csv.gz"
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in [HEADER, *lines]).encode()))
    (source,), size = open_csv(path)
    assert size == 3 * path.stat().st_size, "the estimated uncompressed size"
    chunks = list(read_chunks(source))
    assert len(chunks) > 10
    assert b"".join(chunk.data for chunk in chunks).decode().split() == lines
    positions = [len(HEADER) + 1]
    for chunk in chunks[:-1]:
        positions.append(positions[-1] + len(chunk.data))
    assert [chunk.position for chunk in chunks] == positions


def test_a_damaged_compressed_file_is_an_error_with_its_name(tmp_path):
    path = tmp_path / "packed.csv.gz"
    lines = "".join(f"{event(n, f'v{n * 7919}', f'i{n * 104729}')}\n" for n in range(5000))
    path.write_bytes(gzip.compress(f"{HEADER}\n{lines}".encode())[:-3000])
    (source,), _ = open_csv(path)
    with pytest.raises(ValueError, match=r"packed.csv.gz is damaged after byte \d+"):
        list(read_chunks(source))


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("end", [b"\n", b""], ids=["with line feed", "at the end"])
def test_a_line_has_a_limit_however_the_file_is_split(tmp_path, monkeypatch, is_packed, end):
    monkeypatch.setattr(text_files, "READ_BYTES", 16)
    monkeypatch.setattr(text_files, "HEAD_BYTES", 16)
    monkeypatch.setattr(text_files, "MAX_LINE_BYTES", 100)
    path, head = tmp_path / "events.csv", f"{HEADER}\n{event(1, 'v', 'i')}\n".encode()
    for size, is_refused in ((100, False), (101, True), (5000, True)):
        content = head + b"x" * size + end
        path.write_bytes(gzip.compress(content, mtime=0) if is_packed else content)
        parts, _ = open_csv(path)
        assert (len(parts) > 5) == (not is_packed)
        if is_refused:
            with pytest.raises(ValueError, match=rf"a line of more than 0 MiB after byte {len(head)}; each row must"):
                [list(read_chunks(part)) for part in parts]
        else:
            rows = b"".join(chunk.data for part in parts for chunk in read_chunks(part))
            assert rows == content[len(HEADER) + 1 :].removesuffix(b"\n") + b"\n"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(ValueError, match="has a line of more than 0 MiB after byte 0"):
        open_csv(path)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.text(alphabet="ab,", max_size=6), min_size=1, max_size=12),
    cuts=st.lists(st.integers(3, 90), max_size=4),
    ends_without_line_feed=st.booleans(),
)
def test_byte_ranges_together_contain_every_line_once(tmp_path_factory, lines, cuts, ends_without_line_feed):
    path = tmp_path_factory.mktemp("ranges") / "lines.csv"
    body = "\n".join(lines) + ("" if ends_without_line_feed else "\n")
    path.write_text("x,\n" + body)
    size = 3 + len(body)
    edges = sorted({3, size, *(min(cut, size) for cut in cuts)})
    ranges = itertools.pairwise(edges)
    data = b"".join(chunk.data for a, b in ranges for chunk in read_lines(str(path), TextFormat(), a, b)).decode()
    assert data.rstrip("\n") == body.rstrip("\n")


def test_a_file_of_a_store_is_fetched_once(monkeypatch):
    """Three ranges of 8 MiB: each request has 64 KiB more for the end of the last line; the header is 64 KiB."""
    uri, row = "memory://fetched/events.csv", f"{event(0, 'v', 'i')}\n".encode()
    content = f"{HEADER}\n".encode() + row * ((24 << 20) // len(row))
    storage.write_bytes(uri, content)
    fetched, cat_file = [], MemoryFileSystem.cat_file

    def record_fetch(self, path: str, **limits: int) -> bytes:
        fetched.append(cat_file(self, path, **limits))
        return fetched[-1]

    monkeypatch.setattr(MemoryFileSystem, "cat_file", record_fetch)
    ranges, _ = open_csv(uri)
    assert [len(piece) for piece in fetched] == [64 << 10]
    assert len(ranges) == 3
    assert b"".join(chunk.data for source in ranges for chunk in read_chunks(source)) == content[len(HEADER) + 1 :]
    # each request starts with the byte before its range; the third ends with the file, the other two have 64 KiB more
    assert sum(map(len, fetched[1:])) == len(content) - (len(HEADER) + 1) + 1 + 2 * (64 << 10)
    storage.remove("memory://fetched")


@pytest.mark.parametrize("read_bytes", [20, 30, 1 << 20])
def test_a_byte_order_mark_in_mid_file_is_kept_wherever_the_file_is_split(tmp_path, monkeypatch, read_bytes):
    monkeypatch.setattr(text_files, "READ_BYTES", read_bytes)
    path = tmp_path / "events.csv"
    path.write_bytes(b"visitorid,timestamp,event,itemid\n1,1433221332117,view,5\n\xef\xbb\xbf2,1433221332118,view,6\n")
    parts, _ = open_csv(path)
    batches = [batch for part in parts for batch in part.source.read(part)]
    assert [text for batch in batches for text in batch.columns["visitorid"].to_pylist()] == ["1", "\ufeff2"]
