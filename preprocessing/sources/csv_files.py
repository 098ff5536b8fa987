"""Files to columns: byte ranges of CSV files become Arrow tables; a bad row goes to the rejects with its reason.

Quoted fields are understood within a line. A line feed inside a quoted field is not: a file could then no longer be
cut at line feeds and read in parallel; such rows are rejected.
"""

import csv
import gzip
import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from common import storage
from preprocessing import validation
from preprocessing.validation import Flaws

log = logging.getLogger(__name__)

_READ_BYTES = 8 << 20
_LINE_BYTES = 64 << 10  # fetched of a store at once, it holds a header, or the rest of a range's last line
_GZIP_RATIO = 3  # event logs and item properties, by gzip -6
_COMMA, _QUOTE, _LINE_FEED, _CARRIAGE_RETURN = b',"\n\r'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_REJECT_TEXT_BYTES = 200
_REJECTS_KEPT = 1000  # of each reason, a chunk: all of a file's come together in one worker, 550 bytes each
_DAMAGE = (gzip.BadGzipFile, EOFError, zlib.error)


@dataclass(frozen=True)
class ByteRange:
    """The lines of a file whose first byte lies in [begin, end); end None: to the end of the file.

    ordinal    the file's place among the inputs, which orders rows of equal time
    size       its part of the file as it is stored, in bytes
    header     the file's column names, in its order
    columns    the columns wanted
    """

    path: str
    ordinal: int
    begin: int
    end: int | None
    size: int
    header: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Chunk:
    """Whole lines of a file; `position` is the byte (of the uncompressed file) at which they begin."""

    source: ByteRange
    position: int
    data: bytes


@dataclass(frozen=True)
class ParsedRows:
    """Text columns of the rows that are well-formed CSV.

    chunk          what was parsed
    columns        one string column [N] for each wanted column
    begins, ends   [N] places in the chunk's data at which the rows begin and end
    rejects        rows that are not well-formed
    num_blank      lines without a character, passed over
    """

    chunk: Chunk
    columns: pa.Table
    begins: np.ndarray
    ends: np.ndarray
    rejects: "Rejects"
    num_blank: int


@dataclass(frozen=True)
class Rejects:
    """Bad rows: where they begin [N], why [N], and how they read [N], the text cut to 200 bytes."""

    path: str
    positions: Sequence[int]
    reasons: Sequence[str]
    texts: Sequence[str]


def list_byte_ranges(glob: str, required: Sequence[str], optional: Sequence[str] = ()) -> tuple[list[ByteRange], int]:
    """Byte ranges that together cover all files of a glob, and their total size in bytes, estimated where compressed.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: a file lacks a required column, or names one twice.
    """
    files = [(path, storage.size(path)) for path in storage.find_files(glob)]
    if not files:
        raise FileNotFoundError(f"no file matches {glob}; check the path, and quote the glob against the shell")
    ranges: list[ByteRange] = []
    for ordinal, (path, size) in enumerate(files):
        header, begin = _read_header(path)
        wanted = _choose_columns(path, header, required, optional)
        # a compressed stream can only be read from its start
        step = _READ_BYTES if not _is_compressed(path) else None
        for first in range(begin, max(size, begin + 1), step) if step else (begin,):
            last = first + step if step else None
            stored = min(last, size) - first if last else size
            ranges.append(ByteRange(path, ordinal, first, last, stored, header, wanted))
    return ranges, sum(size * (_GZIP_RATIO if _is_compressed(path) else 1) for path, size in files)


def read_chunks(source: ByteRange) -> Iterator[Chunk]:
    """The lines of a byte range, a few MiB at a time, each chunk ending with a line feed."""
    # in one piece with the byte before it and the end of its last line: a second piece would be as large
    with _open(source.path, _READ_BYTES + _LINE_BYTES) as file:
        position = _seek_line(file, source)
        pending = b""
        while source.end is None or position + len(pending) < source.end:
            want = _READ_BYTES if source.end is None else source.end - position - len(pending)
            try:
                read = file.read(want)
            except _DAMAGE as error:
                raise ValueError(f"{source.path} is damaged after byte {position}: {error}") from error
            pending += read
            if len(read) < want:
                break
            if source.end is None and _LINE_FEED in pending:
                lines, _, pending = pending.rpartition(b"\n")
                yield Chunk(source, position, lines + b"\n")
                position += len(lines) + 1
        if pending and not pending.endswith(b"\n"):
            pending += file.readline()
        if pending:
            yield Chunk(source, position, pending if pending.endswith(b"\n") else pending + b"\n")


def parse_chunk(chunk: Chunk) -> ParsedRows:
    """Splits lines into text columns; malformed lines go to the rejects."""
    source, data = chunk.source, chunk.data
    begins, ends, num_blank = _find_lines(data)
    flaws = Flaws.none(len(begins))
    is_quoted = _mark_malformed(data, begins, ends, len(source.header), flaws)
    plain = _parse_plain(chunk, begins, ends, flaws.is_good & ~is_quoted)
    quoted, quoted_rows = _parse_quoted(chunk, begins, ends, np.flatnonzero(flaws.is_good & is_quoted), flaws)
    columns, rows = plain, np.flatnonzero(flaws.is_good & ~is_quoted)
    if len(quoted_rows):
        rows = np.r_[rows, quoted_rows]
        order = np.argsort(rows)
        columns, rows = pa.concat_tables([plain, quoted]).take(order), rows[order]
    return ParsedRows(chunk, columns, begins[rows], ends[rows], _rejects(chunk, begins, ends, flaws), num_blank)


def reject_rows(parsed: ParsedRows, flaws: Flaws) -> Rejects:
    """The rejects of `parsed` together with the rows that `flaws` marks among its columns."""
    first, more = parsed.rejects, _rejects(parsed.chunk, parsed.begins, parsed.ends, flaws)
    return Rejects(
        first.path,
        [*first.positions, *more.positions],
        [*first.reasons, *more.reasons],
        [*first.texts, *more.texts],
    )


def keep_first(rejects: Rejects) -> Rejects:
    """The first rows of each reason, as many as are written of a chunk."""
    numbered: Counter[str] = Counter()
    kept = []
    for place, reason in enumerate(rejects.reasons):
        numbered[reason] += 1
        if numbered[reason] <= _REJECTS_KEPT:
            kept.append(place)
    return Rejects(
        rejects.path,
        [rejects.positions[place] for place in kept],
        [rejects.reasons[place] for place in kept],
        [rejects.texts[place] for place in kept],
    )


def _rejects(chunk: Chunk, begins: np.ndarray, ends: np.ndarray, flaws: Flaws) -> Rejects:
    bad = flaws.bad_rows
    return Rejects(
        chunk.source.path,
        (begins[bad] + chunk.position).tolist(),
        flaws.reasons(),
        [_shown(chunk.data[begins[row] : ends[row]]) for row in bad],
    )


def _choose_columns(
    path: str, header: tuple[str, ...], required: Sequence[str], optional: Sequence[str]
) -> tuple[str, ...]:
    missing = [name for name in required if name not in header]
    if missing:
        raise ValueError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}: it has {', '.join(header)}; "
            f"needed are {', '.join(required)}, separated by commas"
        )
    wanted = (*required, *(name for name in optional if name in header))
    twice = sorted({name for name in wanted if header.count(name) > 1})
    if twice:
        raise ValueError(f"{path} names the column {', '.join(twice)} more than once")
    extra = [name for name in header if name not in wanted]
    if extra:
        log.info("%s: columns not used: %s", path, ", ".join(extra))
    return wanted


def _is_compressed(path: str) -> bool:
    return path.endswith(".gz")


def _open(path: str, piece_bytes: int) -> BinaryIO:
    file = storage.open_binary(path, piece_bytes)
    return cast(BinaryIO, gzip.GzipFile(fileobj=file) if _is_compressed(path) else file)


def _read_header(path: str) -> tuple[tuple[str, ...], int]:
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
    """Moves to the first line that begins at or after the range's begin; returns its position."""
    if source.end is None:
        return len(file.readline())  # compressed: past the header
    # the byte before tells whether a line begins just here
    file.seek(source.begin - 1)
    return source.begin - 1 + len(file.readline())


def _find_lines(data: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    """Begin and end (without the line's end) of each line that is not blank, and how many are."""
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == _LINE_FEED)
    begins = np.r_[0, ends[:-1] + 1]
    ends = ends - ((ends > begins) & (buffer[ends - 1] == _CARRIAGE_RETURN))
    is_blank = ends == begins
    return begins[~is_blank], ends[~is_blank], int(is_blank.sum())


def _mark_malformed(data: bytes, begins: np.ndarray, ends: np.ndarray, num_fields: int, flaws: Flaws) -> np.ndarray:
    """Marks lines of the wrong field count, encoding or with a stray line end; returns which lines hold quotes [N]."""
    buffer = np.frombuffer(data, np.uint8)

    def count(byte: int) -> np.ndarray:
        places = np.flatnonzero(buffer == byte)
        return np.searchsorted(places, ends) - np.searchsorted(places, begins)

    if not _is_utf8(data):
        is_broken = [not _is_utf8(data[begin:end]) for begin, end in zip(begins, ends, strict=True)]
        flaws.mark(np.array(is_broken, bool), validation.ENCODING)
    is_quoted = count(_QUOTE) > 0 if b'"' in data else np.zeros(len(begins), bool)
    if b"\r" in data:
        flaws.mark(count(_CARRIAGE_RETURN) > 0, validation.QUOTING)
    flaws.mark((count(_COMMA) != num_fields - 1) & ~is_quoted, validation.FIELD_COUNT)
    return is_quoted


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parse_plain(chunk: Chunk, begins: np.ndarray, ends: np.ndarray, use: np.ndarray) -> pa.Table:
    source = chunk.source
    schema = {name: pa.string() for name in source.columns}
    if not use.any():
        return pa.table({name: pa.array([], pa.string()) for name in source.columns})
    data = chunk.data
    if not use.all():
        data = b"".join(data[begins[row] : ends[row]] + b"\n" for row in np.flatnonzero(use))
    return pa_csv.read_csv(
        pa.BufferReader(data),
        pa_csv.ReadOptions(column_names=source.header, use_threads=False, block_size=len(data) + 1),
        pa_csv.ParseOptions(quote_char=False),
        pa_csv.ConvertOptions(
            column_types=schema, include_columns=source.columns, strings_can_be_null=False, check_utf8=False
        ),
    ).combine_chunks()


def _parse_quoted(
    chunk: Chunk, begins: np.ndarray, ends: np.ndarray, rows: np.ndarray, flaws: Flaws
) -> tuple[pa.Table, np.ndarray]:
    """Lines with quotes, by the standard library's parser: rare, or else slow but right."""
    source = chunk.source
    csv.field_size_limit(max(csv.field_size_limit(), len(chunk.data)))
    records, unbalanced, miscounted = {}, [], []
    for row in rows:
        try:
            fields = next(csv.reader([chunk.data[begins[row] : ends[row]].decode()], strict=True))
        except csv.Error:
            unbalanced.append(row)
            continue
        if len(fields) == len(source.header):
            records[row] = fields
        else:
            miscounted.append(row)
    for bad, reason in ((unbalanced, validation.QUOTING), (miscounted, validation.FIELD_COUNT)):
        flaws.mark(np.isin(np.arange(len(begins)), bad), reason)
    places = [source.header.index(name) for name in source.columns]
    columns = {
        name: pa.array([fields[place] for fields in records.values()], pa.string())
        for name, place in zip(source.columns, places, strict=True)
    }
    return pa.table(columns), np.array(list(records), np.int64)


def _shown(line: bytes) -> str:
    return line[:_REJECT_TEXT_BYTES].decode(errors="backslashreplace")
