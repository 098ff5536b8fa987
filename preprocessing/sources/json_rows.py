"""Reads JSON Lines files. Each line is an object, which may be nested."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from preprocessing import validation
from preprocessing.mapping import to_ids
from preprocessing.sources.line_batches import LineBatch, find_lines, is_utf8, reject_lines
from preprocessing.sources.rejects import Rejects
from preprocessing.sources.source import Part
from preprocessing.sources.text_files import Lines, TextFormat, divide, read_lines

_OPEN, _CLOSE = b"{}"
_EXACT = 2.0**53
"""Whole numbers below this limit are exact as floating-point numbers."""


@dataclass(frozen=True)
class JsonSource:
    """Reads a fixed set of fields from JSON Lines files. Missing fields are null."""

    text_format: TextFormat
    """Compression and encoding."""
    columns: tuple[str, ...]
    """The top-level fields to read."""

    def split(self, path: str, ordinal: int, size: int) -> list[Part]:
        """Divides a file into byte ranges, one per part."""
        ranges = divide(size, 0, self.text_format)
        return [Part(self, path, ordinal, begin, end, stored) for begin, end, stored in ranges]

    def read(self, part: Part) -> Iterator[LineBatch]:
        """Yields the rows of a part of a file in batches of a few MiB."""
        for lines in read_lines(part.path, self.text_format, part.begin, part.end):
            yield parse_lines(self.columns, part, lines)


def parse_lines(columns: tuple[str, ...], part: Part, lines: Lines) -> LineBatch:
    """Parses lines that are JSON objects, and keeps all other lines as malformed.

    Raises:
      ValueError: a field is an object or a list on some lines only.
    """
    data = lines.data
    begins, ends, num_blank = find_lines(data)
    malformed = Rejects(part.path, [], [], [])
    if num_blank:
        data = b"".join(data[begin:end] + b"\n" for begin, end in zip(begins, ends, strict=True))
    try:
        if not is_utf8(data):  # Arrow would not notice
            raise pa.ArrowInvalid
        table = read_table(data, columns)
        if len(table) != len(begins) or not _are_braced(lines.data, begins, ends):
            raise pa.ArrowInvalid  # a line without an object, or with several
    except pa.ArrowInvalid:
        # a malformed line, a field of several types, or values that Arrow would change: slower, line by line
        objects, is_object = _parse_each(lines.data, begins, ends)
        invalid = np.flatnonzero(~is_object)
        is_text = [is_utf8(lines.data[begins[row] : ends[row]]) for row in invalid]
        reasons = [validation.INVALID_JSON if text else validation.ENCODING for text in is_text]
        malformed = reject_lines(part, lines, begins[invalid], ends[invalid], reasons)
        begins, ends = begins[is_object], ends[is_object]
        table = _to_table(objects, columns, f"{part.path} after byte {lines.position}")
    return LineBatch(part, lines, table, begins, ends, malformed, num_blank)


def read_table(data: bytes, columns: tuple[str, ...]) -> pa.Table:
    """Parses lines, each a JSON object, to a table. Texts that look like times stay texts.

    Raises:
      pa.ArrowInvalid: a line is not a JSON object, or a field has several types, numbers that Arrow would round, or
        numbers that are not finite.
    """
    if not data:
        return _select(pa.table({}), columns)
    read = pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
    table = _select(pa_json.read_json(pa.BufferReader(data), read), columns)
    schema = pa.schema([(field.name, _without_times(field.type)) for field in table.schema])
    if schema != table.schema:
        parse = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        table = _select(pa_json.read_json(pa.BufferReader(data), read, parse), columns)
    if any(_is_inexact(column.combine_chunks()) for column in table.columns):
        raise pa.ArrowInvalid  # whole numbers that Arrow rounds, or numbers that are not finite
    return table


def _are_braced(data: bytes, begins: np.ndarray, ends: np.ndarray) -> bool:
    """Returns True if each line starts with `{` and ends with `}`, apart from spaces.

    If so, each line has at least one object. Thus, if there are as many objects as lines, each line has exactly one.
    """
    buffer = np.frombuffer(data, np.uint8)
    others = np.flatnonzero((buffer[begins] != _OPEN) | (buffer[ends - 1] != _CLOSE))
    stripped = (data[begins[row] : ends[row]].strip(b" \t") for row in others)
    return all(line.startswith(b"{") and line.endswith(b"}") for line in stripped)


def _parse_each(data: bytes, begins: np.ndarray, ends: np.ndarray) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Parses lines one by one. Returns the objects, and a mask [L] of the lines that are objects."""
    objects, is_object = [], np.zeros(len(begins), bool)
    for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        try:
            value = json.loads(data[begin:end], parse_float=_parse_number, parse_constant=_parse_number)
            if b"\\u" in data[begin:end]:  # half of a surrogate pair is not valid text
                value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        except ValueError:
            continue
        if isinstance(value, dict):
            objects.append(value)
            is_object[row] = True
    return objects, is_object


def _parse_number(text: str) -> float | None:
    """Converts the text of a JSON number, or of the constant NaN; NaN becomes None.

    Raises:
      ValueError: the text is Infinity, or a number that is too large for a float.
    """
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is not a finite number")
    return None if math.isnan(value) else value


def _to_table(objects: list[dict[str, Any]], columns: tuple[str, ...], place: str) -> pa.Table:
    """Converts objects to columns; a missing field is null. `place` names the lines in the error message.

    Raises:
      ValueError: a field is an object or a list on some lines only.
    """
    found = {}
    for name in columns:
        values = [value.get(name) for value in objects]
        try:
            found[name] = _to_array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(
                f"{place} has a field `{name}` that changes its type from line to line, and is an object or a list on "
                f"some lines ({error}); correct or remove the lines with the wrong type"
            ) from error
    return pa.table(found)


def _to_array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # several types, or large numbers: as text
        return pa.array([_scalars_to_text(value) for value in values])


def _scalars_to_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _scalars_to_text(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_scalars_to_text(part) for part in value]
    if isinstance(value, float):
        return to_ids(pa.array([value]))[0].as_py()  # as in a column of numbers
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _without_times(kind: pa.DataType) -> pa.DataType:
    """Replaces time types in `kind` by text, also in nested types, because Arrow reads some texts as times."""
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _without_times(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_without_times(kind.value_type))
    return pa.string() if pa.types.is_timestamp(kind) else kind


def _is_inexact(values: pa.Array) -> bool:
    """Returns True for NaN, infinity, or large whole numbers that Arrow may have rounded."""
    if pa.types.is_struct(values.type):
        return any(_is_inexact(part) for part in values.flatten())
    if pa.types.is_list(values.type):
        return _is_inexact(values.flatten())
    if not pa.types.is_floating(values.type):
        return False
    return bool(pc.any(pc.invert(pc.less(pc.abs(values), _EXACT))).as_py())  # comparisons with NaN are false


def _select(table: pa.Table, columns: tuple[str, ...]) -> pa.Table:
    """Returns the given columns; missing ones are null.

    Raises:
      pa.ArrowInvalid: a column is inconsistent. Arrow's JSON reader may return such a column if lists have null
        elements.
    """
    absent = pa.nulls(len(table))
    selected = pa.table({name: table[name] if name in table.column_names else absent for name in columns})
    selected.validate()
    return selected
