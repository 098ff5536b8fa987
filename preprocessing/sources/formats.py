"""Opens the files of an input. Detects the format, compression, encoding, separator and columns of each file."""

import codecs
import json
import logging
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from common import storage
from preprocessing.config import FormatConfig
from preprocessing.mapping import root_of
from preprocessing.names import find_usual, role_of
from preprocessing.sources.csv_rows import CsvSource, parse_header
from preprocessing.sources.csv_tables import CsvTableSource
from preprocessing.sources.json_rows import JsonSource
from preprocessing.sources.parquet_rows import ParquetSource, open_parquet, partition_columns
from preprocessing.sources.source import Part, Source
from preprocessing.sources.text_files import (
    COMPRESSION_RATIO,
    ENCODING_SETTINGS,
    HEAD_BYTES,
    TextFormat,
    detect_format,
    read_start,
)

log = logging.getLogger(__name__)

_SEPARATORS = (",", ";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_PARQUET = b"PAR1"
# role by its default column; any other missing column was named by the settings
_ROLES = {"visitorid": "visitor", "itemid": "item", "timestamp": "time", "event": "kind"}
_COLUMN = "COLUMN"  # if no column of the file has a usual name


class ColumnAdvice(NamedTuple):
    """Texts for error messages about missing columns."""

    mapping: str
    """Template of a sentence that says how to map a missing column. The placeholder {role} is the meaning of the
    missing column, such as `visitor`, and {column} is the likeliest column of the file, or COLUMN."""
    setting: str = ""
    """The setting that lists the column names of files without a header. Empty: files need a header."""


EVENTS_ADVICE = ColumnAdvice(
    "Map columns with --map, such as {role}={column}, or let `cartwheel inspect` propose a mapping",
    "events_format.columns",
)
FIXED_ADVICE = ColumnAdvice("Rename the columns, or check the path")
"""Advice for item properties and for the category tree. The column names of both are fixed."""
ITEM_TABLE_ADVICE = ColumnAdvice(
    "Name the right column in item_table.id, item_table.title, …", "item_table.format.columns"
)
ITEM_FACTS_ADVICE = ColumnAdvice("Name the right column, such as --map id={column}", "item_table.format.columns")


@dataclass(frozen=True)
class Layout:
    """The format and the columns of a file."""

    format: str
    """`csv`, `parquet` or `jsonl`."""
    columns: tuple[str, ...]
    """All column names."""
    text_format: TextFormat = field(default_factory=TextFormat)
    """Compression and encoding of a text file."""
    separator: str = ","
    """Separator of a CSV file."""
    has_header: bool = False
    """Whether the first line of a CSV file names the columns."""
    first_byte: int = 0
    """The byte at which the rows of a CSV file start."""

    def describe(self) -> str:
        """Describes the format, such as `CSV separated by commas`."""
        if self.format == "parquet":
            return "Parquet"
        packed = f", {self.text_format.compression}" if self.text_format.compression else ""
        encoding = f", {self.text_format.encoding}" if self.text_format.encoding != "utf-8" else ""
        if self.format == "jsonl":
            return f"JSON Lines{encoding}{packed}"
        header = "" if self.has_header else ", without a header"
        return f"CSV separated by {_NAMES.get(self.separator, repr(self.separator))}{header}{encoding}{packed}"


def find_input_files(glob: str) -> list[str]:
    """Lists the files of a glob or a directory. Skips hidden files unless the glob names them.

    Raises:
      FileNotFoundError: no file matches.
    """
    files = storage.find_files(glob)
    if not _is_hidden(posixpath.basename(glob)):
        files = [path for path in files if not _is_hidden(posixpath.basename(path))]
    if not files:
        below = [name for name in storage.list_files(glob) if not _is_hidden(name)]
        files = [f"{glob.rstrip('/')}/{name}" for name in below]
    if not files:
        raise FileNotFoundError(
            f"no file matches {glob}; check the path, and quote a glob, so that the shell does not expand it"
        )
    return files


def detect_layout(path: str, config: FormatConfig, advice: ColumnAdvice = EVENTS_ADVICE) -> Layout:
    """Detects the format and the columns of a file.

    Args:
      config: settings of the format; each value that is `auto` or None is detected.
      advice: texts for error messages about columns.

    Raises:
      ValueError: the file is empty, damaged, or in a format that cannot be read.
    """
    head = storage.read_bytes(path, 0, HEAD_BYTES)
    if config.format == "parquet" or (config.format == "auto" and head.startswith(_PARQUET)):
        with open_parquet(path) as file:
            stored = file.schema_arrow.names
            return Layout("parquet", (*stored, *partition_columns(path, stored)))
    text_format = detect_format(head, config.encoding)
    start = read_start(path, text_format, head)
    if config.encoding is None and text_format.compression and detect_format(start).encoding != "utf-8":
        text_format = replace(text_format, encoding=detect_format(start).encoding)
        start = read_start(path, text_format, head)
    mark = codecs.BOM_UTF8 if start.startswith(codecs.BOM_UTF8) else b""
    start = start.removeprefix(mark)
    _check_text(path, start, config)
    if config.format == "jsonl" or (config.format == "auto" and start.lstrip()[:1] == b"{"):
        return Layout("jsonl", _json_fields(path, start), text_format)
    return _detect_csv(path, start, len(mark), text_format, config, advice)


def open_files(
    glob: str,
    config: FormatConfig,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    advice: ColumnAdvice = EVENTS_ADVICE,
    has_line_breaks: bool = False,
) -> tuple[list[Part], int]:
    """Divides all files of a glob into parts.

    Args:
      glob: glob or directory of the files. Empty files are skipped unless all are empty.
      config: settings of the format.
      required: columns that every file must have; for a path such as `user.id`, the column `user`.
      optional: columns to read if a file has them.
      advice: texts for error messages about missing columns.
      has_line_breaks: whether quoted fields of CSV files may have line breaks. Such files are not divided.

    Returns:
      The parts, and the total uncompressed size in bytes (an estimate for compressed files).

    Raises:
      FileNotFoundError: no file matches.
      ValueError: a file cannot be read, lacks a required column, or repeats the name of a column to read.
    """
    parts: list[Part] = []
    total = 0
    for ordinal, (path, size) in enumerate(_sizes_of_files(glob).items()):
        layout = detect_layout(path, config, advice)
        columns = _choose_columns(path, layout, required, optional, advice)
        source = make_source(layout, columns, has_line_breaks=has_line_breaks)
        parts += source.split(path, ordinal, size)
        is_packed = layout.format == "parquet" or layout.text_format.compression is not None
        total += size * (COMPRESSION_RATIO if is_packed else 1)
    return parts, total


def first_file(files: Sequence[str]) -> str:
    """Returns the first file that is not empty, or the first file if all are empty."""
    return next((path for path in files if storage.size(path)), files[0])


def _sizes_of_files(glob: str) -> dict[str, int]:
    """Returns the size in bytes of each file of a glob. Omits empty files unless all are empty."""
    sizes = {path: storage.size(path) for path in find_input_files(glob)}
    filled = {path: size for path, size in sizes.items() if size}
    if filled and len(filled) < len(sizes):
        empty = [path for path in sizes if path not in filled]
        log.warning("skipped empty files of %s: %d, such as %s", glob, len(empty), empty[0])
    return filled or sizes


def make_source(layout: Layout, columns: tuple[str, ...], *, has_line_breaks: bool = False) -> Source:
    """Makes the source that reads files with the given layout.

    `has_line_breaks`: whether quoted fields of CSV files may have line breaks; such files are not divided.
    """
    if layout.format == "parquet":
        return ParquetSource(columns)
    if layout.format == "jsonl":
        return JsonSource(layout.text_format, columns)
    source = CsvTableSource if has_line_breaks else CsvSource
    return source(layout.text_format, layout.separator, layout.columns, layout.first_byte, columns)


def _choose_columns(
    path: str, layout: Layout, required: Sequence[str], optional: Sequence[str], advice: ColumnAdvice
) -> tuple[str, ...]:
    """Returns the columns to read: the required ones, and the optional ones that the file has.

    For JSON Lines, returns all required and optional columns, because later lines may have more fields than `layout`.

    Raises:
      ValueError: a required column is missing (except in JSON Lines), or a column to read occurs twice.
    """
    required = [root_of(name, layout.columns) for name in required]
    missing = [name for name in dict.fromkeys(required) if name not in layout.columns]
    # objects of JSON Lines may lack a field that later ones have
    is_open = layout.format == "jsonl"
    if missing and is_open:
        log.warning(
            "%s. Reading continues, because in JSON Lines, later lines can have more columns",
            _describe_missing(f"the start of {path}", layout, missing, advice),
        )
    elif missing:
        raise ValueError(_describe_missing(path, layout, missing, advice))
    chosen = tuple(dict.fromkeys((*required, *(name for name in optional if is_open or name in layout.columns))))
    repeated = sorted({name for name in chosen if layout.columns.count(name) > 1})
    if repeated:
        raise ValueError(f"{path} repeats the column name {', '.join(repeated)}; rename or remove the repeated columns")
    unused = [name for name in layout.columns if name not in chosen]
    if unused:
        log.info("%s: unused columns: %s", path, ", ".join(unused))
    return chosen


def _describe_missing(path: str, layout: Layout, missing: list[str], advice: ColumnAdvice) -> str:
    plural = "s" * (len(missing) > 1)
    found = f"{path} ({layout.describe()}) has no column{plural} {', '.join(missing)}"
    if layout.has_header and any(_is_data(name) for name in layout.columns):
        header = f"name the columns in {advice.setting}" if advice.setting else "add a header line"
        first_line = ", ".join(layout.columns)[:80]
        return f"{found}, and its first line looks like data, not like a header: {first_line}; {header}"
    if advice.setting and (problem := describe_wrong_separator(layout, advice.setting.replace("columns", "separator"))):
        return f"{found}: {problem}"
    return f"{found}: it has {', '.join(layout.columns)}. {_advise_mapping(layout, missing, advice)}"


def describe_wrong_separator(layout: Layout, setting: str) -> str | None:
    """Returns a text for an error message if a CSV file has another separator; None if the separator may be right.

    `setting` is the name of the setting for the separator.
    """
    separator = next((sign for sign in _SEPARATORS if sign in layout.columns[0]), None)
    if separator is None or len(layout.columns) > 1 or layout.format != "csv":
        return None
    return (
        f"its only column is {layout.columns[0]}, which contains {_NAMES[separator]}; set {setting} to "
        f"{json.dumps(separator)}, or remove the setting, so that the separator is detected"
    )


def _advise_mapping(layout: Layout, missing: list[str], advice: ColumnAdvice) -> str:
    """Returns the advice about missing columns, with the likeliest column for the first one that has any."""
    if advice is ITEM_FACTS_ADVICE:
        return advice.mapping.format(column=next(iter(find_usual("item", layout.columns)), _COLUMN))
    roles = [_ROLES[name] if name in _ROLES else role_of(name) or "visitor" for name in missing]
    likely = {role: found[0] for role in roles if (found := find_usual(role, layout.columns))}
    role = next(iter(likely), roles[0])
    mapping = advice.mapping.format(role=role, column=likely.get(role, _COLUMN))
    if advice is EVENTS_ADVICE and "time" in roles and "time" not in likely:
        return f"{mapping}. No column is named like a time; a log needs a column with the time of each event"
    return mapping


def _is_data(name: str) -> bool:
    return not name or name[0].isdigit()


def _check_text(path: str, start: bytes, config: FormatConfig) -> None:
    if not start.strip():
        raise ValueError(f"{path} is empty: it has no header line and no row; check the program that wrote it")
    if start.lstrip()[:1] == b"[" and config.format in ("auto", "jsonl"):
        raise ValueError(
            f"{path} is a JSON array; convert it to JSON Lines, one object per line, for example with "
            "`jq -c '.[]' FILE`"
        )
    if b"\0" in start.partition(b"\n")[0]:  # later ones may be part of an id
        raise ValueError(
            f"{path} is not text: it contains NUL bytes (0x00), like UTF-16 without a byte order mark; save it as "
            f"UTF-8, or set its encoding to {_guess_utf16(start)} ({ENCODING_SETTINGS})"
        )


def _guess_utf16(start: bytes) -> str:
    """Guesses the byte order of UTF-16 from the zero bytes, which are the high bytes in most texts."""
    return "utf-16-be" if start[::2].count(0) > start[1::2].count(0) else "utf-16-le"


def _json_fields(path: str, start: bytes) -> tuple[str, ...]:
    """Returns the field names of the objects in the first lines, in order of occurrence.

    Raises:
      ValueError: no line is a JSON object with fields.
    """
    complete = start.rpartition(b"\n")[0]
    lines = [line for line in (complete if complete.strip() else start).splitlines() if line.strip()]
    fields: dict[str, None] = {}
    problem = ""
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError as error:
            problem = str(error)
        else:
            fields |= dict.fromkeys(value if isinstance(value, dict) else ())
    if not fields:
        raise ValueError(
            f"{path} is not valid JSON Lines: {problem or 'no line is an object'}, and the first line is "
            f"{lines[0][:80]!r}; write one JSON object per line"
        )
    return tuple(fields)


def _detect_csv(
    path: str, start: bytes, mark_bytes: int, text_format: TextFormat, config: FormatConfig, advice: ColumnAdvice
) -> Layout:
    line, line_feed, _ = start.partition(b"\n")
    if b"\r" in line.rstrip(b"\r"):
        raise ValueError(f"{path} ends its lines with carriage returns alone; convert them to line feeds")
    text = line.rstrip(b"\r")
    if not text:
        raise ValueError(f"{path} has no header line; the first line must name the columns")
    separator = config.separator or _guess_separator(text)
    try:
        names = parse_header(text, separator)
    except ValueError as error:
        raise ValueError(
            f"the header line of {path} is {error}; correct it or, if the file has another encoding, set the encoding "
            f"({ENCODING_SETTINGS})"
        ) from error
    if not config.columns:
        return Layout("csv", names, text_format, separator, True, mark_bytes + len(line) + len(line_feed))
    if len(config.columns) != len(names):
        raise ValueError(
            f"{path} has {len(names)} columns, but {advice.setting} names {len(config.columns)}: "
            f"{', '.join(config.columns)}; list every column of the file in {advice.setting}"
        )
    return Layout("csv", config.columns, text_format, separator, False, mark_bytes)


def _guess_separator(header: bytes) -> str:
    """Returns the separator that gives the most columns; a comma if the header has no separator."""
    try:
        return max(_SEPARATORS, key=lambda separator: len(parse_header(header, separator)))
    except ValueError:
        return ","


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
