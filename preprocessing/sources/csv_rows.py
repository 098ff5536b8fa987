"""Parser of CSV lines: text columns of the well-formed rows, and the malformed rows as rejects.

Shapes: L lines of a chunk that are not blank, N of them well-formed.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from preprocessing import validation
from preprocessing.sources.byte_ranges import ByteRange, Chunk, read_chunks
from preprocessing.sources.rejects import Rejects
from preprocessing.validation import Flaws

_COMMA, _QUOTE, _LINE_FEED, _CARRIAGE_RETURN = b',"\n\r'
_REJECT_TEXT_BYTES = 200


@dataclass(frozen=True)
class ParsedRows:
    """The rows of a chunk."""

    chunk: Chunk
    """The lines that were parsed."""
    columns: pa.Table
    """Well-formed rows: a string column [N] for each column to read."""
    begins: np.ndarray
    """[N] index in the chunk's data at which each of these rows begins."""
    ends: np.ndarray
    """[N] index at which each of these rows ends, without the line end."""
    malformed: Rejects
    """Rows that are not well-formed CSV."""
    num_blank: int
    """Number of empty lines, which are skipped."""

    def reject(self, flaws: Flaws) -> Rejects:
        """Returns the malformed rows, followed by the rows [N] that `flaws` marks."""
        return self.malformed.extend(_make_rejects(self.chunk, self.begins, self.ends, flaws))


def read_rows(source: ByteRange) -> Iterator[ParsedRows]:
    """Reads and parses a byte range, a few MiB at a time."""
    return map(parse_chunk, read_chunks(source))


def parse_chunk(chunk: Chunk) -> ParsedRows:
    """Parses lines into text columns."""
    data = chunk.data
    begins, ends, num_blank = _find_lines(data)
    flaws = Flaws.none(len(begins))
    is_quoted = _mark_malformed(data, begins, ends, len(chunk.source.header), flaws)
    plain = _parse_plain(chunk, begins, ends, flaws.is_valid & ~is_quoted)
    quoted, quoted_rows = _parse_quoted(chunk, begins, ends, np.flatnonzero(flaws.is_valid & is_quoted), flaws)
    columns, rows = plain, np.flatnonzero(flaws.is_valid & ~is_quoted)
    if len(quoted_rows):
        rows = np.r_[rows, quoted_rows]
        order = np.argsort(rows)
        columns, rows = pa.concat_tables([plain, quoted]).take(order), rows[order]
    malformed = _make_rejects(chunk, begins, ends, flaws)
    return ParsedRows(chunk, columns, begins[rows], ends[rows], malformed, num_blank)


def _make_rejects(chunk: Chunk, begins: np.ndarray, ends: np.ndarray, flaws: Flaws) -> Rejects:
    rows = flaws.invalid_rows
    return Rejects(
        chunk.source.path,
        (begins[rows] + chunk.position).tolist(),
        flaws.reasons,
        [_shorten(chunk.data[begins[row] : ends[row]]) for row in rows],
    )


def _shorten(line: bytes) -> str:
    return line[:_REJECT_TEXT_BYTES].decode(errors="backslashreplace")


def _find_lines(data: bytes) -> tuple[np.ndarray, np.ndarray, int]:
    """Finds the begin [L] and end [L] (without the line end) of lines that are not blank; counts the blank ones."""
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == _LINE_FEED)
    begins = np.r_[0, ends[:-1] + 1]
    ends = ends - ((ends > begins) & (buffer[ends - 1] == _CARRIAGE_RETURN))
    is_blank = ends == begins
    return begins[~is_blank], ends[~is_blank], int(is_blank.sum())


def _mark_malformed(data: bytes, begins: np.ndarray, ends: np.ndarray, num_fields: int, flaws: Flaws) -> np.ndarray:
    """Marks lines with a wrong field count, encoding or line end; returns which lines have quotes, [L] bool."""
    buffer = np.frombuffer(data, np.uint8)

    def count(byte: int) -> np.ndarray:
        positions = np.flatnonzero(buffer == byte)
        return np.searchsorted(positions, ends) - np.searchsorted(positions, begins)

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


def _parse_plain(chunk: Chunk, begins: np.ndarray, ends: np.ndarray, is_used: np.ndarray) -> pa.Table:
    """Parses the lines of a mask [L], which have no quotes."""
    source = chunk.source
    schema = {name: pa.string() for name in source.columns}
    if not is_used.any():
        return pa.table({name: pa.array([], pa.string()) for name in source.columns})
    data = chunk.data
    if not is_used.all():
        data = b"".join(data[begins[row] : ends[row]] + b"\n" for row in np.flatnonzero(is_used))
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
    """Parses lines with quotes by the standard library, which is slow but rarely needed.

    Returns the columns of the well-formed lines, and their indices among all lines.
    """
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
    for invalid, reason in ((unbalanced, validation.QUOTING), (miscounted, validation.FIELD_COUNT)):
        flaws.mark(np.isin(np.arange(len(begins)), invalid), reason)
    columns = {}
    for name in source.columns:
        index = source.header.index(name)
        columns[name] = pa.array([fields[index] for fields in records.values()], pa.string())
    return pa.table(columns), np.array(list(records), np.int64)
