"""Parses the visitor, time, kind, item, transaction and weight of each event from the columns of the log.

Shapes: N events of a batch.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.schema import DEFAULT_KINDS
from preprocessing import validation
from preprocessing.config import EventColumns, PrepareConfig, TimeConfig
from preprocessing.kinds import KindConfig
from preprocessing.mapping import (
    Condition,
    Elements,
    check_single,
    constant_of,
    is_missing,
    parse_condition,
    select_elements,
    to_ids,
    to_numbers,
    to_text,
)
from preprocessing.sources.rejects import Rejects
from preprocessing.sources.source import Batch, reject_rows
from preprocessing.times import parse_times
from preprocessing.validation import Flaws

TRANSACTION = "transactionid"
MAX_WEIGHT = 1e9
"""Maximum weight of an event. Larger numbers are probably ids or times."""
_MOST_WORDS = 10
EMPTY_LIST = "rows without an element in the list of events"
NOT_MET, DROPPED_KIND = "not met: ", "kind "
"""Prefixes of reasons in `ParsedEvents.filtered`. They are followed by the condition or by the dropped word."""


class ParsedEvents(NamedTuple):
    """The valid events of a batch of rows, the invalid rows, and counts of the rows that the settings drop."""

    table: pa.Table
    """The valid events. The columns are visitor, timestamp_ms, event (index of the kind), item, transaction and weight
    (float32). A missing transaction is ''."""
    rejects: Rejects
    """The invalid rows."""
    filtered: Counter[str]
    """Number of rows that the settings drop, by reason, such as a condition."""


@dataclass(frozen=True)
class EventMapping:
    """How to read events from the columns of a log.

    If the settings give no time format, `inputs.resolve_mapping` detects it from the log.
    """

    columns: EventColumns
    """The path or constant of each field of an event."""
    conditions: tuple[Condition, ...]
    """Conditions that an event must meet to be kept."""
    time: TimeConfig
    """Unit or format of times."""
    kinds: KindConfig
    """Event kinds of the log, from `resolve_kinds`."""

    @property
    def paths(self) -> list[str]:
        """The paths of all columns to read."""
        columns = self.columns
        found = [path for path in vars(columns).values() if path is not None and constant_of(path) is None]
        return list(dict.fromkeys([*found, *(condition.path for condition in self.conditions)]))


def make_mapping(config: PrepareConfig) -> EventMapping:
    """Makes the mapping from the settings, without detection of the time format.

    Raises:
      ValueError: a condition or the constant event kind is invalid.
    """
    kinds = resolve_kinds(config.kinds, config.columns.kind)
    return EventMapping(config.columns, tuple(map(parse_condition, config.where)), config.time, kinds)


def resolve_kinds(config: KindConfig, path: str) -> KindConfig:
    """Returns the event kinds of a log.

    Args:
      config: the kinds in the settings.
      path: the setting `columns.kind`: a column, or a quoted constant such as `'sale'`. If the settings name no kinds,
        the constant becomes the only kind.

    Raises:
      ValueError: the constant is unknown to the settings or, if they name no kinds, is not a valid name.
    """
    constant = constant_of(path)
    if constant is None:
        return config
    code = _codes_of_words(config).get(constant)
    if config.names != DEFAULT_KINDS:
        if code is None:
            raise ValueError(
                f"columns.kind is {path}, which is not among the kinds {', '.join(config.names)}; add it to "
                "kinds.names, or map it in kinds.words"
            )
        return config
    weights = None if config.weights is None or code is None else (config.weights[code],)
    name = constant if code is None else config.names[code]
    words = tuple(entry for entry in config.words if entry.rpartition("=")[2] == name)
    return replace(config, names=(name,), weights=weights, words=words)


def keeps_repeats(config: PrepareConfig) -> bool:
    """Returns True if equal rows are separate events; see `PrepareConfig.keep_repeats`."""
    if config.keep_repeats is not None:
        return config.keep_repeats
    return constant_of(config.columns.kind) is not None


def parse_events(batch: Batch, mapping: EventMapping) -> ParsedEvents:
    """Parses the events of a batch. A row is one event or contains a list of events.

    Raises:
      ValueError: a path has no values, or its values are lists or objects.
    """
    table, paths = batch.columns, mapping.paths
    columns = mapping.columns
    if columns.transaction is None and TRANSACTION in table.column_names:
        paths = [*paths, TRANSACTION]
    elements = select_elements(table, paths)
    for path in (path for path in vars(columns).values() if path is not None and path in elements.columns):
        check_single(elements.columns[path], path)
    filtered = Counter({EMPTY_LIST: elements.num_empty} if elements.num_empty else {})
    num_events = len(table) if elements.owners is None else len(elements.owners)
    kept = _filter(elements, mapping, num_events, filtered)

    def read(path: str) -> pa.Array:
        constant = constant_of(path)
        values = elements.columns[path] if constant is None else pa.repeat(constant, num_events)
        return values if kept is None else values.take(kept)

    owners = elements.owners if kept is None else (kept if elements.owners is None else elements.owners[kept])
    flaws = Flaws.none(num_events if kept is None else len(kept))
    times = parse_times(read(columns.time), mapping.time, flaws)
    kinds = parse_kinds(to_text(read(columns.kind)), mapping.kinds, flaws)
    visitor, item = to_ids(read(columns.visitor)), to_ids(read(columns.item))
    validation.check_ids(visitor, flaws)
    validation.check_ids(item, flaws)
    weight = np.ones(len(item), np.float32) if columns.weight is None else parse_weights(read(columns.weight), flaws)
    transaction = columns.transaction or (TRANSACTION if TRANSACTION in elements.columns else "''")
    events = pa.table(
        {
            "visitor": visitor,
            "timestamp_ms": times,
            "event": kinds,
            "item": item,
            "transaction": to_ids(read(transaction)),
            "weight": weight,
        }
    )
    valid = events if flaws.is_valid.all() else events.filter(flaws.is_valid)
    return ParsedEvents(valid, reject_rows(batch, flaws, owners), filtered)


def parse_weights(values: pa.Array, flaws: Flaws) -> np.ndarray:
    """Parses weights to float32, [N]. A missing weight becomes 1. Marks invalid weights in `flaws`."""
    missing = is_missing(values)
    parsed: np.ndarray = to_numbers(values).fill_null(np.nan).to_numpy(zero_copy_only=False)
    is_weight = (parsed >= 0) & (parsed <= MAX_WEIGHT)  # False for NaN
    flaws.mark(~is_weight & ~missing, validation.BAD_WEIGHT)
    return np.where(is_weight, parsed, 1).astype(np.float32)


def parse_kinds(texts: pa.Array, config: KindConfig, flaws: Flaws) -> np.ndarray:
    """Converts a log's words for event kinds to indices in `config.names`, [N] int8.

    An unknown word becomes -1, and its row is marked in `flaws`.
    """
    codes = _codes_of_words(config)
    found = pc.index_in(texts, value_set=pa.array(list(codes)))
    parsed: np.ndarray = pa.array(codes.values(), pa.int8()).take(found).fill_null(-1).to_numpy()
    flaws.mark(parsed < 0, validation.UNKNOWN_EVENT)
    return parsed


def check_kinds(texts: pa.Array, path: str, config: KindConfig, max_reject_share: float) -> None:
    """Checks that the words for event kinds in a sample [N] are known.

    A word is known if it names a kind, maps to a kind, or is dropped. `path` names the column in the error message.

    Raises:
      ValueError: more than `max_reject_share` of the words are unknown.
    """
    counts = count_words(to_text(texts).fill_null(""))
    unknown = {word: count for word, count in counts.items() if word not in {*_codes_of_words(config), *config.dropped}}
    if sum(unknown.values()) <= max_reject_share * len(texts):
        return
    found = ", ".join(f"{word or '(empty)'} ({count:,})" for word, count in Counter(unknown).most_common(_MOST_WORDS))
    raise ValueError(
        f"`{path}` has event kinds other than {', '.join(config.names)}: {found}; add them to kinds.names, map "
        "them in kinds.words, drop them in kinds.dropped, or let `cartwheel inspect` propose a shop.toml"
    )


def _codes_of_words(config: KindConfig) -> dict[str, int]:
    """Maps the name of each event kind, and each word that the settings map to the kind, to the kind's index."""
    codes = {kind: code for code, kind in enumerate(config.names)}
    given = (entry.rpartition("=") for entry in config.words)
    return codes | {word: codes[kind] for word, _, kind in given}


def count_words(texts: pa.Array) -> Counter[str]:
    """Returns how often each distinct text occurs."""
    return Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(texts).to_pylist()})


def _filter(elements: Elements, mapping: EventMapping, num_events: int, filtered: Counter[str]) -> np.ndarray | None:
    """Returns the indices of the events that the settings keep (None: all); counts the others in `filtered`."""
    if not mapping.conditions and not mapping.kinds.dropped:
        return None
    is_kept = np.ones(num_events, bool)
    for condition in mapping.conditions:
        is_met = condition.is_met(elements.columns[condition.path])
        _count_filtered(f"{NOT_MET}{condition.text}", is_kept & ~is_met, filtered)
        is_kept &= is_met
    if mapping.kinds.dropped and constant_of(mapping.columns.kind) is None:
        words = to_text(elements.columns[mapping.columns.kind])
        for word in mapping.kinds.dropped:
            is_word = pc.fill_null(pc.equal(words, word), False).to_numpy(zero_copy_only=False)
            _count_filtered(f"{DROPPED_KIND}{word}", is_kept & is_word, filtered)
            is_kept &= ~is_word
    return None if is_kept.all() else np.flatnonzero(is_kept)


def _count_filtered(name: str, rows: np.ndarray, filtered: Counter[str]) -> None:
    if rows.any():
        filtered[name] += int(rows.sum())
