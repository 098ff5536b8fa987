"""Finds the input files of `prepare`. Divides the files into parts, and chooses the numbers of partitions."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from preprocessing import catalogue
from preprocessing.config import FormatConfig, PrepareConfig
from preprocessing.events import TRANSACTION, EventMapping, check_kinds, make_mapping
from preprocessing.item_table import ItemTableMapping, resolve_types
from preprocessing.mapping import constant_of, select_elements
from preprocessing.sources.formats import EVENTS_ADVICE, FIXED_ADVICE, ITEM_TABLE_ADVICE, ColumnAdvice, open_files
from preprocessing.sources.source import Part, read_batches
from preprocessing.times import check_times, drop_missing, resolve_times

log = logging.getLogger(__name__)

MAX_PARTITIONS = 4096
_SAMPLE_ROWS = 10_000
_SAMPLE_BATCHES = 100
_UNITS = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "iso": "ISO 8601",
}


class Input(NamedTuple):
    """The files of one input, such as the event log."""

    parts: list[Part]
    """The parts into which the files are divided; empty if there are no files."""
    num_partitions: int
    """Number of partitions into which the rows are divided."""


class Inputs(NamedTuple):
    """All input files of `prepare`, and how to read them."""

    events: Input
    """The event log."""
    mapping: EventMapping
    """How to read events from the columns of the event log."""
    properties: Input
    """Item properties or an item table; empty if the shop has neither."""
    table: ItemTableMapping | None
    """How to read the columns of the item table; None if there is no item table."""
    tree: Input
    """The category tree; empty if the shop has none."""


def list_inputs(config: PrepareConfig) -> Inputs:
    """Finds all input files, checks their columns, and detects the format of event times.

    Raises:
      FileNotFoundError: a glob matches no file.
      ValueError: a file lacks a required column, or the times of events cannot be read.
    """
    mapping = make_mapping(config)
    events = _find(config, config.events, config.events_format, mapping.paths, [TRANSACTION])
    properties, table = _find_items(config)
    return Inputs(
        events=events,
        mapping=resolve_mapping(mapping, events.parts, config.max_reject_share),
        properties=properties,
        table=table,
        tree=_find(config, config.category_tree, FormatConfig(), catalogue.TREE_COLUMNS, advice=FIXED_ADVICE),
    )


def resolve_mapping(mapping: EventMapping, parts: Sequence[Part], max_reject_share: float) -> EventMapping:
    """Detects the time format of the log from its first rows, and checks the event kinds of these rows.

    Returns the mapping with the detected format; unchanged if these rows have no time.

    Args:
      mapping: the mapping from the settings.
      parts: parts of the event log.
      max_reject_share: maximum share of rows with an unknown event kind.

    Raises:
      ValueError: the time is a quoted constant, a path has no values, no format fits or another
        one fits better, or too many kinds are unknown.
    """
    path = mapping.columns.time
    if constant_of(path) is not None:
        raise ValueError(f"columns.time must name a column, got the constant {path}; each event needs its own time")
    # the first batches may be empty files or rows without a time
    for batch in islice(read_batches(parts), _SAMPLE_BATCHES):
        columns = select_elements(batch.columns, mapping.paths).columns
        sample = drop_missing(columns[path]).slice(0, _SAMPLE_ROWS)
        if len(sample):
            break
    else:
        return mapping
    if mapping.columns.kind in columns:
        check_kinds(columns[mapping.columns.kind], mapping.columns.kind, mapping.kinds, max_reject_share)
    time = resolve_times(sample, mapping.time, path)
    check_times(sample, time, path, max_reject_share)
    if time != mapping.time:
        log.info("times in `%s` are %s", path, time.format or _UNITS[time.unit])
    return replace(mapping, time=time)


def _find_items(config: PrepareConfig) -> tuple[Input, ItemTableMapping | None]:
    """Finds the files of the item properties or of the item table. Without an item table, the mapping is None."""
    if config.item_table.files is None:
        columns = catalogue.PROPERTY_COLUMNS
        return _find(config, config.item_properties, FormatConfig(), columns, advice=FIXED_ADVICE), None
    mapping = ItemTableMapping(config.item_table, config.properties)
    table = config.item_table
    parts, size = open_files(
        config.item_table.files, table.format, mapping.paths, advice=ITEM_TABLE_ADVICE, has_line_breaks=True
    )
    batch = next(read_batches(parts), None)
    if batch is None:
        raise ValueError(f"{table.files} has no rows; check item_table.files")
    resolved = resolve_types(mapping, batch.columns.slice(0, _SAMPLE_ROWS))
    log.info("attributes of items: %s", ", ".join(map(resolved.describe, table.attributes)) or "none")
    return Input(parts, _count_partitions(size, config)), resolved


def _find(
    config: PrepareConfig,
    glob: str | None,
    files: FormatConfig,
    required: Sequence[str],
    optional: Sequence[str] = (),
    advice: ColumnAdvice = EVENTS_ADVICE,
) -> Input:
    if glob is None:
        return Input([], 1)
    parts, size = open_files(glob, files, required, optional, advice=advice)
    return Input(parts, _count_partitions(size, config))


def _count_partitions(size: int, config: PrepareConfig) -> int:
    return min(max(math.ceil(size / config.partition_bytes), 1), MAX_PARTITIONS)
