"""The command `inspect`, which describes the columns of a log or an item table and proposes a shop.toml."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from common import storage
from contract.schema import DEFAULT_KINDS
from preprocessing.config import FormatConfig, PrepareConfig, format_when
from preprocessing.events import EventMapping, make_mapping, parse_events
from preprocessing.inspection.columns import Column, describe_column, walk_columns
from preprocessing.inspection.proposals import (
    find_time,
    looks_like_log,
    looks_like_weight,
    looks_unique,
    propose_log,
    propose_table,
)
from preprocessing.mapping import constant_of, select_elements, to_ids
from preprocessing.shop import format_shop
from preprocessing.sources.formats import (
    Layout,
    describe_wrong_separator,
    detect_layout,
    find_input_files,
    first_file,
    make_source,
)
from preprocessing.sources.source import Batch, read_batches
from preprocessing.times import have_zones

_SAMPLE_ROWS = 50_000
_EVENTS = 5


@dataclass(frozen=True)
class Inspection:
    """Findings of `inspect` about a log or an item table."""

    files: tuple[str, ...]
    """All files that match the glob. Only the first non-empty file is read."""
    layout: Layout
    """Format and columns of the file that is read."""
    columns: tuple[Column, ...]
    """Descriptions of all columns, and of the fields of nested columns."""
    config: PrepareConfig
    """The proposed settings."""
    events: tuple[dict[str, str], ...] = ()
    """The first events, as read with the proposed settings."""
    rejected: int = 0
    """Number of sample rows that are invalid with the proposed settings."""
    filtered: int = 0
    """Number of sample rows that the proposed settings drop, for example by a condition."""
    sample_rows: int = 0
    """Number of rows in the sample."""
    warnings: tuple[str, ...] = field(default=())
    """Possible problems, as sentences."""
    is_item_table: bool = False
    """Whether the file is treated as an item table, because no column has times."""


def inspect(glob: str, files_config: FormatConfig | None = None) -> Inspection:
    """Inspects the first rows of a log or an item table, and proposes settings.

    Args:
      glob: glob of the files.
      files_config: how to read the files; None: detected from the first non-empty file.

    Raises:
      FileNotFoundError: no file matches the glob.
      ValueError: the first non-empty file cannot be read, has no rows, or has another separator.
    """
    config = files_config or FormatConfig()
    files = find_input_files(glob)
    first = first_file(files)
    layout = detect_layout(first, config)
    if problem := describe_wrong_separator(layout, "--separator"):
        raise ValueError(f"{first} ({layout.describe()}) cannot be read: {problem}")
    if layout.has_header and _looks_like_data(layout.columns):
        names = tuple(f"column{number}" for number in range(1, len(layout.columns) + 1))
        config = replace(config, columns=names)
        layout = detect_layout(first, config)
    batch = _read_sample(first, layout)
    table = batch.columns.slice(0, _SAMPLE_ROWS)
    columns = tuple(describe_column(path, values) for path, values in walk_columns(table))
    values = dict(walk_columns(table))
    if find_time(values) is None:
        table_config = propose_table(glob, table, columns, config)
        proposed = PrepareConfig(events="", item_table=table_config)
        warnings = tuple(_warn_of_missing_times(values))
        return Inspection(
            tuple(files), layout, columns, proposed, sample_rows=len(table), warnings=warnings, is_item_table=True
        )
    proposed = propose_log(glob, table, columns, config)
    return _try(Inspection(tuple(files), layout, columns, proposed, sample_rows=len(table)), batch, table)


def describe(found: Inspection) -> str:
    """Formats an inspection as text for a terminal."""
    more = f" (and {len(found.files) - 1:,} more files)" if len(found.files) > 1 else ""
    lines = [f"{found.files[0]}{more}: {found.layout.describe()}", "", "columns:"]
    width = max(len(column.path) for column in found.columns)
    kinds = max(len(column.type) for column in found.columns)
    for column in found.columns:
        missing = f"  ({column.missing:.2%} missing)" if column.missing else ""
        lines.append(f"  {column.path:{width}}  {column.type:{kinds}}  {', '.join(column.examples)}{missing}"[:120])
    if found.is_item_table:
        lines += ["", "no column has times, so this is a table of items; add this to shop.toml:", ""]
        lines += [f"  {line}".rstrip() for line in format_shop(found.config).splitlines()]
        lines += ["", *(f"warning: {warning}" for warning in found.warnings)]
        return "\n".join(lines).rstrip()
    lines += ["", "proposed shop.toml:", ""]
    lines += [f"  {line}".rstrip() for line in format_shop(found.config).splitlines()]
    lines += ["", f"first events, of {found.sample_rows:,} rows read:"]
    lines += [f"  {event['time']}  {event['kind']:12} {event['visitor']:24} {event['item']}" for event in found.events]
    lines += [] if found.events else ["  none"]
    lines += ["", *(f"warning: {warning}" for warning in found.warnings)]
    return "\n".join(lines).rstrip()


def _read_sample(path: str, layout: Layout) -> Batch:
    batch = _read_first(path, layout, has_line_breaks=False)
    # a table of items may have line breaks in quoted fields; read as an event log, these lines are malformed
    if layout.format == "csv" and len(batch.malformed.reasons) > 0.01 * len(batch.columns):
        return _read_first(path, layout, has_line_breaks=True)
    return batch


def _read_first(path: str, layout: Layout, *, has_line_breaks: bool) -> Batch:
    source = make_source(layout, layout.columns, has_line_breaks=has_line_breaks)
    for batch in read_batches(source.split(path, 0, storage.size(path))):
        return batch
    raise ValueError(f"{path} has no rows; give a file with at least one row")


def _looks_like_data(names: Sequence[str]) -> bool:
    """Returns True if a column name looks like a value, because it has no letter or starts with a date."""
    return any(not re.search(r"[A-Za-zÀ-ÿ_]", name) or re.match(r"^\d{4}-\d\d-\d\d", name) for name in names)


def _try(found: Inspection, batch: Batch, table: pa.Table) -> Inspection:
    """Reads the first rows with the proposed settings, and adds events and warnings to the inspection."""
    try:
        mapping = make_mapping(found.config)
        parsed = parse_events(batch, mapping)
    except (ValueError, KeyError) as error:
        return replace(found, warnings=(f"the proposed columns do not fit: {error}; correct [columns]",))
    events = tuple(
        {
            "time": format_when(row["timestamp_ms"]),
            "kind": mapping.kinds.names[row["event"]],
            "visitor": row["visitor"],
            "item": row["item"],
        }
        for row in parsed.table.slice(0, _EVENTS).to_pylist()
    )
    warnings = [
        *_warn_of_ids(mapping, table),
        *_warn_of_times(parsed.table),
        *_warn_of_zone(found.config, table),
    ]
    warnings += [
        f"rows of the sample that would be rejected ({reason}): {count:,}"
        for reason, count in Counter(parsed.rejects.reasons).items()
    ]
    warnings += [*_warn_of_kinds(found.config), *_suggest_weights(found)]
    return replace(
        found,
        events=events,
        rejected=len(parsed.rejects.reasons),
        filtered=parsed.filtered.total(),
        warnings=tuple(warnings),
    )


def _warn_of_missing_times(values: Mapping[str, pa.Array]) -> Iterator[str]:
    if looks_like_log(values):
        yield (
            f"the columns {', '.join(values)} look like an event log without times, but each event needs its time; add "
            "a column with the times or, if their format is not recognised, write [columns] and [time] by hand"
        )


def _warn_of_kinds(config: PrepareConfig) -> Iterator[str]:
    if constant_of(config.columns.kind) is not None:
        yield f"no column of event kinds was found, so all events are {config.columns.kind}"
    if len(config.kinds.names) > 1 and config.kinds.names != DEFAULT_KINDS:
        yield (
            f"the order of the event kinds is a guess: {', '.join(config.kinds.names)}; in [kinds], sort `names` from "
            "the first look at an item to its purchase, and move the kinds not meant for training to `dropped`"
        )
    if config.kinds.dropped:
        dropped = ", ".join(word or "(empty)" for word in config.kinds.dropped)
        yield (
            f"dropped event kinds: {dropped}; most of their rows have no item, or there are too many kinds. Add the "
            "kinds that are about items to `names` in [kinds]"
        )


def _suggest_weights(found: Inspection) -> Iterator[str]:
    for column in found.columns:
        if looks_like_weight(column):
            yield (
                f"`{column.path}` may be a weight of the events; to use it in training, write "
                f"weight = {json.dumps(column.path, ensure_ascii=False, allow_nan=False)} in [columns]"
            )


def _warn_of_ids(mapping: EventMapping, table: pa.Table) -> Iterator[str]:
    elements = select_elements(table, mapping.paths)
    for role, path in (("visitor", mapping.columns.visitor), ("item", mapping.columns.item)):
        values = elements.columns.get(path)
        if values is None:
            continue
        if looks_unique(values):
            yield (
                f"nearly every event has its own {role} id in `{path}`, as if `{path}` were the id of the event; check "
                f"columns.{role}"
            )
        if pa.types.is_floating(values.type):
            yield f"{role} ids in `{path}` are stored as numbers such as 12003.0; they are read as 12003"
        ids = to_ids(values)
        empty = pc.sum(pc.equal(ids, "")).as_py() or 0
        if empty:
            yield f"{empty:,} of {len(ids):,} {role} ids in `{path}` are missing"
        if pa.types.is_string(values.type) and (pc.sum(pc.match_substring_regex(ids, "^0[0-9]+$")).as_py() or 0):
            yield (
                f"{role} ids in `{path}` have leading zeros, which are kept; spreadsheets and pandas drop them, so "
                "check that the item table has the same ids"
            )


def _warn_of_times(events: pa.Table) -> Iterator[str]:
    if len(events) == 0:
        return
    latest = pc.max(events["timestamp_ms"]).as_py()
    if latest > datetime.now(UTC).timestamp() * 1000:
        yield f"some times are in the future, up to {format_when(latest)}; check [time]"


def _warn_of_zone(config: PrepareConfig, table: pa.Table) -> Iterator[str]:
    if not have_zones(select_elements(table, [config.columns.time]).columns[config.columns.time], config.time):
        yield f"times without a zone are read as {config.time.zone}; set time.zone if they are in another zone"


def as_json(found: Inspection) -> dict[str, Any]:
    """Returns an inspection as JSON values."""
    return {
        "files": list(found.files),
        "format": found.layout.describe(),
        "columns": [vars(column) | {"examples": list(column.examples)} for column in found.columns],
        "shop": format_shop(found.config),
        "events": list(found.events),
        "rows_read": found.sample_rows,
        "rejected": found.rejected,
        "filtered": found.filtered,
        "warnings": list(found.warnings),
    }
