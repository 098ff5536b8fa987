"""Division of CSV files into byte ranges, which workers read in parallel, in chunks of whole lines.

A line feed always ends a row: one inside a quoted field would make it impossible to start reading in mid-file.
"""

import csv
import gzip
import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from common import storage

log = logging.getLogger(__name__)

_READ_BYTES = 8 << 20
_LINE_BYTES = 64 << 10  # one request to a store: enough for a header, or for the rest of a range's last line
_GZIP_RATIO = 3  # of event logs and item properties with gzip -6
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)


@dataclass(frozen=True)
class ByteRange:
    """The lines of a file that start in the bytes [begin, end)."""

    path: str
    """The file."""
    ordinal: int
    """The file's index among the inputs, which orders rows of equal time."""
    begin: int
    """First byte."""
    end: int | None
    """One past the last byte; None: the end of the file."""
    size: int
    """Size in bytes as stored, perhaps compressed."""
    header: tuple[str, ...]
    """All column names of the file, in order."""
    columns: tuple[str, ...]
    """The columns to read."""


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a file."""

    source: ByteRange
    """The range that the lines are part of."""
    position: int
    """The byte (of the uncompressed file) at which the lines start."""
    data: bytes
    """The lines, each with its line feed."""


def list_byte_ranges(glob: str, required: Sequence[str], optional: Sequence[str] = ()) -> tuple[list[ByteRange], int]:
    """Divides all files of a glob into byte ranges; also returns their total size, estimated if compressed.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: a file lacks a required column, or has a column twice.
    """
    files = [(path, storage.size(path)) for path in storage.find_files(glob)]
    if not files:
        raise FileNotFoundError(f"no file matches {glob}; check the path, and quote the glob against the shell")
    ranges: list[ByteRange] = []
    for ordinal, (path, size) in enumerate(files):
        header, begin = _read_header(path)
        columns = _choose_columns(path, header, required, optional)
        # a compressed stream can only be read from its start
        step = _READ_BYTES if not _is_compressed(path) else None
        for first in range(begin, max(size, begin + 1), step) if step else (begin,):
            last = first + step if step else None
            stored = min(last, size) - first if last else size
            ranges.append(ByteRange(path, ordinal, first, last, stored, header, columns))
    return ranges, sum(size * (_GZIP_RATIO if _is_compressed(path) else 1) for path, size in files)


def read_chunks(source: ByteRange) -> Iterator[Chunk]:
    """Reads the lines of a byte range, a few MiB at a time; every chunk ends with a line feed."""
    # one request for the byte before the range, the range and the end of its last line: a second would be as large
    with _open(source.path, _READ_BYTES + _LINE_BYTES) as file:
        position = _seek_line(file, source)
        pending = b""
        while source.end is None or position + len(pending) < source.end:
            wanted = _READ_BYTES if source.end is None else source.end - position - len(pending)
            try:
                read = file.read(wanted)
            except _DAMAGE as error:
                raise ValueError(f"{source.path} is damaged after byte {position}: {error}") from error
            pending += read
            if len(read) < wanted:
                break
            if source.end is None and b"\n" in pending:
                lines, _, pending = pending.rpartition(b"\n")
                yield Chunk(source, position, lines + b"\n")
                position += len(lines) + 1
        if pending and not pending.endswith(b"\n"):
            pending += file.readline()
        if pending:
            yield Chunk(source, position, pending if pending.endswith(b"\n") else pending + b"\n")


def _choose_columns(
    path: str, header: tuple[str, ...], required: Sequence[str], optional: Sequence[str]
) -> tuple[str, ...]:
    missing = [name for name in required if name not in header]
    if missing:
        raise ValueError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: it has {', '.join(header)}; "
            f"required columns: {', '.join(required)}, separated by commas"
        )
    chosen = (*required, *(name for name in optional if name in header))
    repeated = sorted({name for name in chosen if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{path} repeats the column name {', '.join(repeated)}; rename or remove all but one")
    unused = [name for name in header if name not in chosen]
    if unused:
        log.info("%s: unused columns: %s", path, ", ".join(unused))
    return chosen


def _is_compressed(path: str) -> bool:
    return path.endswith(".gz")


def _open(path: str, request_bytes: int) -> BinaryIO:
    file = storage.open_binary(path, request_bytes)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file) if _is_compressed(path) else file)


def _read_header(path: str) -> tuple[tuple[str, ...], int]:
    """Returns the column names and the byte after the header."""
    with _open(path, _LINE_BYTES) as file:
        try:
            line = file.readline()
        except _DAMAGE as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
    if b"\r" in line.rstrip(b"\r\n"):
        raise ValueError(f"{path} ends its lines with carriage returns alone; convert it to line feeds")
    text = line.removeprefix(_BYTE_ORDER_MARK).rstrip(b"\r\n")
    if not text:
        raise ValueError(f"{path} has no header line; the first line must name the columns")
    try:
        return tuple(name.strip() for name in next(csv.reader([text.decode()]))), len(line)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} has a header that is not CSV in UTF-8: {text[:80]!r}") from error


def _seek_line(file: BinaryIO, source: ByteRange) -> int:
    """Moves to the first line that starts at or after the range's begin; returns its position."""
    if source.end is None:
        return len(file.readline())  # compressed: skip the header
    # if the byte before the range is a line feed, a line starts exactly at the range's begin
    file.seek(source.begin - 1)
    return source.begin - 1 + len(file.readline())
