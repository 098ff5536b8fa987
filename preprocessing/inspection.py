"""`inspect`: reads the first rows of a log or an item table, describes its columns, and proposes a shop.toml.

Shapes: N values of a sample.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from common import storage
from contract.schema import EVENT_KINDS
from preprocessing.config import (
    EventColumns,
    FormatConfig,
    ItemTableConfig,
    KindConfig,
    PrepareConfig,
    TimeConfig,
    format_when,
)
from preprocessing.events import EventMapping, count_words, make_mapping, parse_events
from preprocessing.mapping import constant_of, select_elements, to_ids, to_numbers, to_plain, to_text
from preprocessing.shop import format_shop
from preprocessing.sources.formats import Layout, detect_layout, find_input_files, make_source
from preprocessing.sources.source import Batch, read_batches
from preprocessing.times import guess_times, is_time_type

_SAMPLE_ROWS = 50_000
_EXAMPLES = 3
_EVENTS = 5

_NAMES = {
    "visitor": (
        "visitorid|visitor|userid|user|customerid|customer|custid|clientid|client|userpseudoid|sessionid|session|cookie|"
        "accountid|account|memberid|householdid|household|kunde|kundennr|kundennummer|uid"
    ),
    "item": (
        "itemid|item|productid|product|articleid|article|sku|stockcode|aid|asin|movieid|bookid|upc|ean|artikel|artikelnr|"
        "artikelnummer|pid|iid"
    ),
    "time": (
        "timestamp|ts|eventtimestamp|eventtime|time|datetime|date|tdat|createdat|invoicedate|orderdate|purchasedate|"
        "eventdate|zeitpunkt|datum|zeit"
    ),
    "kind": "event|eventtype|eventname|action|type|behavior|behaviour|activity|aktion|ereignis|kind",
    "transaction": "transactionid|invoiceno|invoice|orderid|order|basketid|basket|receiptid",
}
_WORDS = {
    "view": "view|views|viewitem|click|clicks|detail|productview|pv|ansicht|impression",
    "addtocart": "addtocart|cart|carts|basket|addtobasket|warenkorb",
    "transaction": "transaction|purchase|order|orders|buy|bought|sale|kauf|checkout|purchased",
}
_ITEM_NAMES = {
    "title": "title|name|prodname|productname|itemname|producttitle|bezeichnung",
    "price": "price|unitprice|preis|cost",
    "availability": "available|availability|instock|isavailable|verfuegbar|lieferbar",
}
_CATEGORIES = "category|categorypath|categoryname|productgroupname|producttypename|department|subcategory|kategorie"
_PURCHASE_SIGNS = "quantity|qty|price|unitprice|salesvalue|invoiceno|orderid|basketid|menge|preis|saleschannelid"


@dataclass(frozen=True)
class Column:
    """A column, or a field of a nested column."""

    path: str
    """Its path."""
    type: str
    """Its type."""
    examples: tuple[str, ...]
    """The first distinct values."""
    missing: float
    """Share of values that are missing or empty."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found in a log."""

    files: tuple[str, ...]
    """The files; the first was read."""
    layout: Layout
    """Format and columns of the first file."""
    columns: tuple[Column, ...]
    """All columns and nested fields."""
    config: PrepareConfig
    """The proposed settings."""
    events: tuple[dict[str, str], ...] = ()
    """The first events, as the settings read them."""
    rejected: int = 0
    """Rows of the sample that the settings reject."""
    filtered: int = 0
    """Rows of the sample that the settings drop on purpose."""
    sample_rows: int = 0
    """Rows of the sample."""
    warnings: tuple[str, ...] = field(default=())
    """What looks wrong."""
    is_item_table: bool = False
    """Whether the file is a table of items: it has no column of times."""


def inspect(glob: str, files_config: FormatConfig | None = None) -> Inspection:
    """Inspects the first rows of a log.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: the file cannot be read.
    """
    config = files_config or FormatConfig()
    files = find_input_files(glob)
    layout = detect_layout(files[0], config)
    if layout.has_header and _looks_like_data(layout.columns):
        names = tuple(f"column{number}" for number in range(1, len(layout.columns) + 1))
        config = replace(config, columns=names)
        layout = detect_layout(files[0], config)
    batch = _read_sample(files[0], layout)
    table = batch.columns.slice(0, _SAMPLE_ROWS)
    columns = tuple(_describe(path, values) for path, values in _walk(table))
    if not any(_is_time(values) for _, values in _walk(table)):
        table_config = _propose_table(glob, table, columns, config)
        proposed = PrepareConfig(events="", item_table=table_config)
        return Inspection(tuple(files), layout, columns, proposed, sample_rows=len(table), is_item_table=True)
    proposed = _propose(glob, table, columns, config)
    return _try(Inspection(tuple(files), layout, columns, proposed, sample_rows=len(table)), batch, table)


def describe(found: Inspection) -> str:
    """Renders an inspection for a terminal."""
    more = f" (and {len(found.files) - 1:,} more files)" if len(found.files) > 1 else ""
    lines = [f"{found.files[0]}{more}: {found.layout.describe()}", "", "columns:"]
    width = max(len(column.path) for column in found.columns)
    kinds = max(len(column.type) for column in found.columns)
    for column in found.columns:
        missing = f"  ({column.missing:.2%} missing)" if column.missing else ""
        lines.append(f"  {column.path:{width}}  {column.type:{kinds}}  {', '.join(column.examples)}{missing}"[:120])
    if found.is_item_table:
        lines += ["", "no column has times, so this is a table of items; add this to shop.toml:", ""]
        return "\n".join([*lines, *(f"  {line}".rstrip() for line in format_shop(found.config).splitlines())])
    lines += ["", "proposed shop.toml:", ""]
    lines += [f"  {line}".rstrip() for line in format_shop(found.config).splitlines()]
    lines += ["", f"first events, of {found.sample_rows:,} rows read:"]
    lines += [f"  {event['time']}  {event['kind']:12} {event['visitor']:24} {event['item']}" for event in found.events]
    lines += [] if found.events else ["  none"]
    lines += ["", *(f"look at this: {warning}" for warning in found.warnings)]
    return "\n".join(lines).rstrip()


def _read_sample(path: str, layout: Layout) -> Batch:
    batch = _read_first(path, layout, has_line_breaks=False)
    # a table of items may have quoted fields with line breaks, whose lines are malformed rows of an event log
    if layout.format == "csv" and len(batch.malformed.reasons) > 0.01 * len(batch.columns):
        return _read_first(path, layout, has_line_breaks=True)
    return batch


def _read_first(path: str, layout: Layout, *, has_line_breaks: bool) -> Batch:
    source = make_source(layout, layout.columns, has_line_breaks=has_line_breaks)
    for batch in read_batches(source.split(path, 0, storage.size(path))):
        return batch
    raise ValueError(f"{path} has no rows")


def _looks_like_data(names: Sequence[str]) -> bool:
    """Returns True if a header's names look like values: one has no letter, or is a time."""
    return any(not re.search(r"[A-Za-zÀ-ÿ_]", name) or re.match(r"^\d{4}-\d\d-\d\d", name) for name in names)


def _walk(table: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    """Yields all columns and the fields of nested ones, by path."""
    for name in table.column_names:
        yield from _walk_values(name, table[name].combine_chunks())


def _walk_values(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    if pa.types.is_struct(values.type):
        for child in values.type:
            yield from _walk_values(f"{path}.{child.name}", pc.struct_field(values, child.name))
    elif (pa.types.is_list(values.type) or pa.types.is_large_list(values.type)) and "[]" not in path:
        elements = pc.list_flatten(values)
        if pa.types.is_struct(elements.type):
            for child in elements.type:
                yield f"{path}[].{child.name}", _to_plain(pc.struct_field(elements, child.name))
        else:
            yield f"{path}[]", _to_plain(elements)
    else:
        yield path, _to_plain(values)


def _to_plain(values: pa.Array) -> pa.Array:
    try:
        return to_plain(values)
    except pa.ArrowInvalid:  # bytes that are not text
        return values


def _describe(path: str, values: pa.Array) -> Column:
    is_missing = values.is_null(nan_is_null=True)
    if pa.types.is_string(values.type):
        is_missing = pc.or_(is_missing, pc.fill_null(pc.equal(values, ""), False))
    present = values.filter(pc.invert(is_missing))
    examples = [str(value.as_py())[:30] for value in present[:200]]
    share = 1 - len(present) / len(values) if len(values) else 0.0
    return Column(path, _name_type(values.type), tuple(dict.fromkeys(examples))[:_EXAMPLES], share)


def _name_type(kind: pa.DataType) -> str:
    if pa.types.is_string(kind):
        return "text"
    if pa.types.is_integer(kind):
        return "whole number"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    return str(kind)


def _propose(glob: str, table: pa.Table, columns: Sequence[Column], files: FormatConfig) -> PrepareConfig:
    values = dict(_walk(table))
    found = {role: _match(_NAMES[role], columns, values, role) for role in _NAMES}
    found["kind"] = found["kind"] or next((path for path, column in values.items() if _is_kind(column)), None)
    found["time"] = found["time"] or next((path for path, column in values.items() if _is_time(column)), None)
    rest = [column.path for column in columns if column.path not in found.values()]
    for role in ("visitor", "item"):
        if found[role] is None and rest:
            found[role] = rest.pop(0)
    has_purchases = any(re.fullmatch(_PURCHASE_SIGNS, _plain(column.path)) for column in columns)
    kind = found["kind"] or ("'transaction'" if has_purchases else "'view'")
    named = {role: found[role] or "?" for role in ("visitor", "item", "time")}
    mapped = EventColumns(**named, kind=kind, transaction=found["transaction"])
    has_times = named["time"] in values and not is_time_type(values[named["time"]].type)
    times = guess_times(values[named["time"]].drop_null()[:1000]) if has_times else []
    time = times[0] if len(times) == 1 else TimeConfig()
    kinds = _propose_kinds(values[kind]) if kind in values else KindConfig()
    where = tuple(_propose_conditions(mapped, columns, values))
    return PrepareConfig(events=glob, events_format=files, columns=mapped, where=where, time=time, kinds=kinds)


def _propose_table(glob: str, table: pa.Table, columns: Sequence[Column], files: FormatConfig) -> ItemTableConfig:
    values = dict(_walk(table))
    named = {role: _match(pattern, columns, values, role) for role, pattern in _ITEM_NAMES.items()}
    item = _match(_NAMES["item"], columns, values, "item") or columns[0].path
    single = [path for path, column in values.items() if "[]" not in path and _is_single(column.type)]
    found = [path for path in single if _plain(path) in _CATEGORIES.split("|")]
    # from the root down: a category has fewer values than those below it
    category = sorted(found, key=lambda path: len(to_text(values[path]).unique()))
    rest = [path for path in single if path not in (item, *named.values(), *category)]
    return ItemTableConfig(
        files=glob,
        format=files,
        id=item,
        title=named["title"],
        category=tuple(category),
        price=named["price"],
        availability=named["availability"],
        attributes=tuple(rest),
    )


def _match(pattern: str, columns: Sequence[Column], values: dict[str, pa.Array], role: str) -> str | None:
    """Returns the column whose name fits a role best: in the order of the pattern, then of the file."""
    names = pattern.split("|")
    fits = [column.path for column in columns if _plain(column.path) in names]
    if role == "time":  # a date is worse than the time itself
        fits = [path for path in fits if _is_time(values[path])] or fits
    return min(fits, key=lambda path: names.index(_plain(path)), default=None)


def _plain(path: str) -> str:
    return re.sub(r"[^a-z]", "", re.split(r"\.|\[\]\.?", path)[-1].lower())


def _is_time(values: pa.Array) -> bool:
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return True
    return _is_single(kind) and bool(guess_times(values.drop_null()[:1000]))


def _is_single(kind: pa.DataType) -> bool:
    """Returns True unless a type is of lists, objects or bytes that are not text."""
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_kind(values: pa.Array) -> bool:
    """Returns True if most values are usual words for event kinds."""
    if not pa.types.is_string(values.type) or not len(values):
        return False
    known = sum(count for word, count in count_words(values.drop_null()).items() if _kind_of(word) is not None)
    return known > 0.5 * len(values)


def _kind_of(word: str) -> str | None:
    plain = re.sub(r"[^a-z]", "", word.lower())
    return next((kind for kind, pattern in _WORDS.items() if plain in pattern.split("|")), None)


def _propose_kinds(values: pa.Array) -> KindConfig:
    words, dropped = [], []
    for word in count_words(to_text(values).drop_null()):
        kind = _kind_of(word)
        if kind is None:
            dropped.append(word)
        elif word not in EVENT_KINDS:
            words.append(f"{word}={kind}")
    return KindConfig(words=tuple(words), dropped=tuple(sorted(dropped)))


def _propose_conditions(mapped: EventColumns, columns: Sequence[Column], values: dict[str, pa.Array]) -> Iterator[str]:
    missing = {column.path: column.missing for column in columns}
    for path in (mapped.visitor, mapped.item):
        if missing.get(path) and "[]" not in path:
            yield f"{path} is not null"
    for column in columns:
        if _plain(column.path) in ("quantity", "qty", "menge"):
            lowest = pc.min(to_numbers(values[column.path])).as_py()
            if lowest is not None and lowest <= 0:
                yield f"{column.path} > 0"


def _try(found: Inspection, batch: Batch, table: pa.Table) -> Inspection:
    """Reads the sample with the proposed settings, and looks for what is wrong."""
    try:
        mapping = make_mapping(found.config)
        parsed = parse_events(batch, mapping)
    except (ValueError, KeyError) as error:
        return replace(found, warnings=(f"the proposed columns do not fit: {error}; correct [columns]",))
    events = tuple(
        {
            "time": format_when(row["timestamp_ms"]),
            "kind": EVENT_KINDS[row["event"]],
            "visitor": row["visitor"],
            "item": row["item"],
        }
        for row in parsed.table.slice(0, _EVENTS).to_pylist()
    )
    warnings = [*_warn_of_ids(mapping, table), *_warn_of_times(found.config, parsed.table)]
    warnings += [
        f"rows of the sample that would be rejected, {reason}: {count:,}"
        for reason, count in _count(parsed.rejects.reasons).items()
    ]
    if found.config.kinds.dropped:
        warnings.append(
            f"kinds that are dropped because they are none of {', '.join(EVENT_KINDS)}: "
            f"{', '.join(found.config.kinds.dropped)}; move those that count to [kinds.words]"
        )
    if constant_of(found.config.columns.kind) is not None:
        warnings.append(f"no column of event kinds was found, so all events are {found.config.columns.kind}")
    return replace(
        found,
        events=events,
        rejected=len(parsed.rejects.reasons),
        filtered=parsed.filtered.total(),
        warnings=tuple(warnings),
    )


def _warn_of_ids(mapping: EventMapping, table: pa.Table) -> Iterator[str]:
    elements = select_elements(table, mapping.paths)
    for role, path in (("visitor", mapping.columns.visitor), ("item", mapping.columns.item)):
        values = elements.columns.get(path)
        if values is None:
            continue
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


def _warn_of_times(config: PrepareConfig, events: pa.Table) -> Iterator[str]:
    if len(events) == 0:
        return
    latest = pc.max(events["timestamp_ms"]).as_py()
    if latest > datetime.now(UTC).timestamp() * 1000:
        yield f"times reach into the future: {format_when(latest)}; check [time]"
    if config.time.format is not None or config.time.unit == "iso":
        yield f"times without a zone are read as {config.time.zone}; set time.zone if they are not"


def _count(reasons: Sequence[str]) -> dict[str, int]:
    return {reason: list(reasons).count(reason) for reason in dict.fromkeys(reasons)}


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
