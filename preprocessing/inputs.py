"""Input files of `prepare`, divided into parts and partitions."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from preprocessing import catalogue
from preprocessing.config import FormatConfig, PrepareConfig
from preprocessing.events import TRANSACTION, EventMapping, make_mapping
from preprocessing.mapping import constant_of, select_elements
from preprocessing.sources.formats import open_files
from preprocessing.sources.source import Part, read_batches
from preprocessing.times import resolve_times

log = logging.getLogger(__name__)

MAX_PARTITIONS = 4096
_SAMPLE_ROWS = 10_000
_UNITS = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "iso": "ISO 8601",
}


class Input(NamedTuple):
    """The files of one kind."""

    parts: list[Part]
    """Parts that cover the files; empty if there are none."""
    num_partitions: int
    """Number of partitions for the rows."""


class Inputs(NamedTuple):
    """All input files."""

    events: Input
    """The event log."""
    mapping: EventMapping
    """The columns of the event log."""
    properties: Input
    """Item properties, optional."""
    tree: Input
    """The category tree, optional."""


def list_inputs(config: PrepareConfig) -> Inputs:
    """Finds all input files, checks their columns, and finds the unit of the times of events.

    Raises:
      FileNotFoundError: a glob matches no file.
      ValueError: a file lacks a required column, or the times of events cannot be read.
    """
    mapping = make_mapping(config)
    events = _find(config, config.events, config.events_format, mapping.roots, [TRANSACTION])
    return Inputs(
        events=events,
        mapping=resolve_mapping(mapping, events.parts),
        properties=_find(config, config.item_properties, FormatConfig(), catalogue.PROPERTY_COLUMNS),
        tree=_find(config, config.category_tree, FormatConfig(), catalogue.TREE_COLUMNS),
    )


def resolve_mapping(mapping: EventMapping, parts: Sequence[Part]) -> EventMapping:
    """Finds the unit or format of times from the first rows.

    Raises:
      ValueError: a path leads to nothing, or no unit or format fits.
    """
    path = mapping.columns.time
    if constant_of(path) is not None:
        raise ValueError(f"time must be a column, got the constant {path}; each event needs its own time")
    batch = next(read_batches(parts), None)
    if batch is None:
        return mapping
    values = select_elements(batch.columns, mapping.paths).columns[path]
    time = resolve_times(values.slice(0, _SAMPLE_ROWS), mapping.time, path)
    if time != mapping.time:
        log.info("times in `%s` are %s", path, time.format or _UNITS[time.unit])
    return replace(mapping, time=time)


def _find(
    config: PrepareConfig,
    glob: str | None,
    files: FormatConfig,
    required: Sequence[str],
    optional: Sequence[str] = (),
) -> Input:
    if glob is None:
        return Input([], 1)
    parts, size = open_files(glob, files, required, optional)
    return Input(parts, min(max(math.ceil(size / config.partition_bytes), 1), MAX_PARTITIONS))
