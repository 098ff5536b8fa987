"""Reads CSV files. Well-formed rows become text columns. Malformed rows become rejects, which are not used.

Shapes: L non-blank lines of a chunk, N well-formed lines.
"""

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from preprocessing import validation
from preprocessing.sources.line_batches import LineBatch, find_lines, is_utf8, reject_lines
from preprocessing.sources.source import Part
from preprocessing.sources.text_files import Lines, TextFormat, divide, read_lines
from preprocessing.validation import Flaws

_QUOTE, _CARRIAGE_RETURN = b'"\r'


@dataclass(frozen=True)
class CsvFiles:
    """The format of CSV files, which all have the same columns."""

    text_format: TextFormat
    """Compression and encoding."""
    separator: str
    """Character that separates fields."""
    header: tuple[str, ...]
    """All column names, in order."""
    first_byte: int
    """The byte at which the rows start, after any byte order mark and header line."""
    columns: tuple[str, ...]
    """The columns to read."""


class CsvSource(CsvFiles):
    """Reads byte ranges of CSV files in parallel. A row must be one line."""

    def split(self, path: str, ordinal: int, size: int) -> list[Part]:
        """Divides a file into byte ranges. `ordinal` is the index of the file in the input."""
        ranges = divide(size, self.first_byte, self.text_format)
        return [Part(self, path, ordinal, begin, end, stored) for begin, end, stored in ranges]

    def read(self, part: Part) -> Iterator[LineBatch]:
        """Yields the rows of a byte range in batches of a few MiB."""
        for lines in read_lines(part.path, self.text_format, part.begin, part.end):
            yield parse_lines(self, part, lines)


def parse_lines(source: CsvSource, part: Part, lines: Lines) -> LineBatch:
    """Parses CSV lines into text columns, and keeps malformed lines as rejects."""
    data = lines.data
    begins, ends, num_blank = find_lines(data)
    flaws = Flaws.none(len(begins))
    is_quoted = _mark_malformed(source, data, begins, ends, flaws)
    plain = _parse(source, data, begins, ends, flaws.is_valid & ~is_quoted, has_quotes=False)
    quoted_rows = np.flatnonzero(flaws.is_valid & is_quoted)
    columns, rows = plain, np.flatnonzero(flaws.is_valid & ~is_quoted)
    if len(quoted_rows):
        quoted, quoted_rows = _parse_quoted(source, data, begins, ends, quoted_rows, flaws)
        rows = np.r_[rows, quoted_rows]
        order = np.argsort(rows)
        columns, rows = pa.concat_tables([plain, quoted]).take(order), rows[order]
    invalid = flaws.invalid_rows
    malformed = reject_lines(part, lines, begins[invalid], ends[invalid], flaws.reasons)
    return LineBatch(part, lines, columns.combine_chunks(), begins[rows], ends[rows], malformed, num_blank)


def parse_header(line: bytes, separator: str) -> tuple[str, ...]:
    """Returns the column names of a header line.

    Raises:
      ValueError: the line is not valid CSV in UTF-8.
    """
    try:
        text = line.decode()
        return tuple(name.strip() for name in next(csv.reader([text], delimiter=separator), ()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"not CSV in UTF-8: {line[:80]!r}") from error


def _mark_malformed(source: CsvSource, data: bytes, begins: np.ndarray, ends: np.ndarray, flaws: Flaws) -> np.ndarray:
    """Marks malformed lines. Returns a mask [L] of the lines with quotes. Does not count their fields."""
    buffer = np.frombuffer(data, np.uint8)

    def count(byte: int) -> np.ndarray:
        positions = np.flatnonzero(buffer == byte)
        return np.searchsorted(positions, ends) - np.searchsorted(positions, begins)

    if not is_utf8(data):
        is_broken = [not is_utf8(data[begin:end]) for begin, end in zip(begins, ends, strict=True)]
        flaws.mark(np.array(is_broken, bool), validation.ENCODING)
    is_quoted = count(_QUOTE) > 0 if b'"' in data else np.zeros(len(begins), bool)
    if b"\r" in data:
        flaws.mark(count(_CARRIAGE_RETURN) > 0, validation.QUOTING)
    num_fields = count(ord(source.separator)) + 1
    flaws.mark((num_fields != len(source.header)) & ~is_quoted, validation.FIELD_COUNT)
    return is_quoted


def _parse(
    source: CsvSource, data: bytes, begins: np.ndarray, ends: np.ndarray, is_used: np.ndarray, *, has_quotes: bool
) -> pa.Table:
    """Parses the lines that the mask `is_used` [L] selects. They must have the right number of fields."""
    schema = {name: pa.string() for name in source.columns}
    if not is_used.any():
        return pa.table({name: pa.array([], pa.string()) for name in source.columns})
    if not is_used.all():
        data = b"".join(data[begins[row] : ends[row]] + b"\n" for row in np.flatnonzero(is_used))
    if data.startswith(codecs.BOM_UTF8):
        # Arrow drops a mark at the start of its input, which may be any chunk; the file's own mark is already skipped
        data = codecs.BOM_UTF8 + data
    return pa_csv.read_csv(
        pa.BufferReader(data),
        pa_csv.ReadOptions(column_names=source.header, use_threads=False, block_size=len(data) + 1),
        pa_csv.ParseOptions(delimiter=source.separator, quote_char='"' if has_quotes else False),
        pa_csv.ConvertOptions(
            column_types=schema, include_columns=source.columns, strings_can_be_null=False, check_utf8=False
        ),
    ).combine_chunks()


def _parse_quoted(
    source: CsvSource, data: bytes, begins: np.ndarray, ends: np.ndarray, rows: np.ndarray, flaws: Flaws
) -> tuple[pa.Table, np.ndarray]:
    """Parses the quoted lines at the indices `rows`. Marks malformed lines; returns the others and their indices."""
    lines = pa.array([data[begins[row] : ends[row]] for row in rows], pa.large_binary()).cast(pa.large_string())
    field = f'(?:"(?:[^"]|"")*"|[^"{re.escape(source.separator)}][^{re.escape(source.separator)}]*|)'
    separator = re.escape(source.separator)
    is_balanced = pc.match_substring_regex(lines, f"^{field}(?:{separator}{field})*$").to_numpy(zero_copy_only=False)
    mask = np.zeros(len(begins), bool)
    mask[rows[~is_balanced]] = True
    flaws.mark(mask, validation.QUOTING)
    # without quoted fields, only the separators between fields are left; quotes within a field do not quote it
    bare = pc.replace_substring_regex(lines, f'(^|{separator})"(?:[^"]|"")*"', r"\1")
    has_all = pc.equal(pc.count_substring(bare, source.separator), len(source.header) - 1)
    mask[:] = False
    mask[rows[is_balanced & ~has_all.to_numpy(zero_copy_only=False)]] = True
    flaws.mark(mask, validation.FIELD_COUNT)
    is_used = np.zeros(len(begins), bool)
    is_used[rows] = flaws.is_valid[rows]
    return _parse(source, data, begins, ends, is_used, has_quotes=True), np.flatnonzero(is_used)
