"""Proposes settings for a log or an item table.

The role of a column, such as the visitor or the price, is recognised by the name and the values of the column.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from contract.schema import DEFAULT_KINDS, MAX_KINDS
from preprocessing.config import EventColumns, FormatConfig, ItemTableConfig, PrepareConfig, TimeConfig
from preprocessing.events import count_words
from preprocessing.inspection.columns import Column, has_times, is_single, walk_columns
from preprocessing.kinds import KindConfig, is_kind_name
from preprocessing.mapping import is_missing, select_elements, to_numbers, to_text
from preprocessing.names import find_usual, plain_name
from preprocessing.times import guess_times, is_time_type

# usual words for event kinds, in the order of the funnel
_STEPS = (
    "view|views|viewitem|click|clicks|detail|productview|pv|ansicht|impression",
    "wishlist|addtowishlist|favourite|favorite|fav|addtofavourites|addtofavorites|like|likes|save|bookmark|collect|merkliste",
    "addtocart|cart|carts|basket|addtobasket|warenkorb",
    "transaction|purchase|order|orders|buy|bought|sale|kauf|checkout|purchased",
)
_CATEGORIES = (
    "category|categorypath|categoryname|productgroupname|producttypename|department|subcategory|kategorie|"
    "productcategory|producttype|type"
)
_WEIGHTS = "quantity|qty|menge|rating|stars|bewertung|playcount|watchtime"
_MIN_ROWS = 50  # fewer rows may have distinct visitors or items by chance
_PURCHASE_SIGNS = (
    "quantity|qty|price|unitprice|salesvalue|invoiceno|orderid|basketid|menge|preis|saleschannelid|lineitemquantity|"
    "lineitemprice"
)


def propose_log(glob: str, table: pa.Table, columns: Sequence[Column], files: FormatConfig) -> PrepareConfig:
    """Proposes settings to read an event log.

    `table` contains the first rows; `columns` are descriptions of its columns.
    """
    values = dict(walk_columns(table))
    found = {role: _match(role, values) for role in ("visitor", "item", "kind", "transaction")}
    found["kind"] = found["kind"] or next((path for path, column in values.items() if _is_kind(column)), None)
    found["time"] = find_time(values)
    rest = [column.path for column in columns if column.path not in found.values()]
    num_events = max(map(len, values.values()))  # of a list in a row, each element is an event
    # the id of the event is neither the visitor nor the item
    rest.sort(key=lambda path: len(values[path]) == num_events and looks_unique(values[path]))
    for role in ("visitor", "item"):
        if found[role] is None and rest:
            found[role] = rest.pop(0)
    has_purchases = any(re.fullmatch(_PURCHASE_SIGNS, plain_name(column.path)) for column in columns)
    kind = found["kind"] or ("'transaction'" if has_purchases else "'view'")
    named = {role: found[role] or "?" for role in ("visitor", "item", "time")}
    mapped = EventColumns(**named, kind=kind, transaction=found["transaction"])
    column = values.get(named["time"])
    times = [] if column is None or is_time_type(column.type) else guess_times(column.drop_null()[:1000])
    time = times[0] if len(times) == 1 else TimeConfig()
    kinds = _propose_kinds(table, mapped) if kind in values else KindConfig()
    where = tuple(_propose_conditions(mapped, columns, values))
    return PrepareConfig(events=glob, events_format=files, columns=mapped, where=where, time=time, kinds=kinds)


def propose_table(glob: str, table: pa.Table, columns: Sequence[Column], files: FormatConfig) -> ItemTableConfig:
    """Proposes settings to read an item table.

    `table` contains the first rows; `columns` are descriptions of its columns.
    """
    values = dict(walk_columns(table))
    named = {role: _match(role, values) for role in ("title", "price", "availability")}
    item = _match("item", values) or columns[0].path
    single = [path for path, column in values.items() if "[]" not in path and is_single(column.type)]
    found = [path for path in single if plain_name(path) in _CATEGORIES.split("|")]
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


def find_time(values: Mapping[str, pa.Array]) -> str | None:
    """Returns the path of the column with the times of events; None if no column has times.

    A usual name for times is preferred. The ids of visitors or items are not times, although they may look like it.
    """
    others = {path for role in ("visitor", "item") for path in find_usual(role, values)}
    paths = dict.fromkeys([*find_usual("time", values), *(path for path in values if path not in others)])
    return next((path for path in paths if has_times(values[path])), None)


def looks_like_log(values: Mapping[str, pa.Array]) -> bool:
    """Returns True if columns have usual names for visitors and for items, whether or not a column has times."""
    return bool(find_usual("visitor", values) and find_usual("item", values))


def looks_unique(values: pa.Array) -> bool:
    """Returns True if nearly every row has its own value, as in a column with ids of events. False for few rows."""
    present = values.filter(pa.array(~is_missing(values)))
    return len(present) >= _MIN_ROWS and is_single(present.type) and len(present.unique()) > 0.95 * len(present)


def _match(role: str, values: Mapping[str, pa.Array]) -> str | None:
    return next(iter(find_usual(role, values)), None)


def looks_like_weight(column: Column) -> bool:
    """Returns True for a column of numbers with a usual name for weights, such as `quantity`."""
    are_numbers = to_numbers(pa.array(column.examples, pa.string())).null_count == 0
    return are_numbers and plain_name(column.path) in _WEIGHTS.split("|")


def _is_kind(values: pa.Array) -> bool:
    """Returns True if most values are common words for event kinds, such as `view`."""
    if not pa.types.is_string(values.type) or not len(values):
        return False
    known = sum(count for word, count in count_words(values.drop_null()).items() if _step_of(word) is not None)
    return known > 0.5 * len(values)


def _step_of(word: str) -> int | None:
    """Returns the funnel position of a word for an event kind: 0 for `view`, for example. None for unknown words."""
    plain = re.sub(r"[^a-z]", "", word.lower())
    return next((step for step, pattern in enumerate(_STEPS) if plain in pattern.split("|")), None)


def _propose_kinds(table: pa.Table, mapped: EventColumns) -> KindConfig:
    """Proposes the event kinds, in funnel order.

    A value of the kind column becomes a kind if at least half of its rows have an item; other values are dropped.
    """
    counts, with_item = _count_kinds(table, mapped)
    names = [word for word in counts if is_kind_name(word) and 2 * with_item[word] >= counts[word]]
    if len(names) > MAX_KINDS:
        names = [word for word in names if _step_of(word) is not None][:MAX_KINDS]
    if not names:
        return KindConfig()
    dropped = tuple(sorted(word for word in counts if word not in names))
    if set(names) <= set(DEFAULT_KINDS):
        return KindConfig(dropped=dropped)
    return KindConfig(names=tuple(sorted(names, key=lambda word: _funnel_position(word, counts))), dropped=dropped)


def _count_kinds(table: pa.Table, mapped: EventColumns) -> tuple[Counter[str], Counter[str]]:
    """Counts events by the word for their kind. Returns the counts of all events, and of the events with an item."""
    words = to_text(dict(walk_columns(table))[mapped.kind]).drop_null()
    try:
        columns = select_elements(table, [mapped.kind, mapped.item]).columns
    except ValueError:  # the proposed columns do not fit, as `inspect` reports
        return count_words(words), count_words(words)
    has_item = pa.array(~is_missing(columns[mapped.item]))
    return count_words(words), count_words(to_text(columns[mapped.kind]).filter(has_item).drop_null())


def _funnel_position(word: str, counts: Counter[str]) -> tuple[int, int, str]:
    """Returns a sort key for a word: by funnel step (unknown words last), then by descending count, then by name."""
    step = _step_of(word)
    return len(_STEPS) if step is None else step, -counts[word], word


def _propose_conditions(mapped: EventColumns, columns: Sequence[Column], values: dict[str, pa.Array]) -> Iterator[str]:
    missing = {column.path: column.missing for column in columns}
    for path in (mapped.visitor, mapped.item):
        if missing.get(path) and "[]" not in path:
            yield f"{path} is not null"
    for column in columns:
        if plain_name(column.path).endswith(("quantity", "qty", "menge")):
            lowest = pc.min(to_numbers(values[column.path])).as_py()
            if lowest is not None and lowest <= 0:
                yield f"{column.path} > 0"
