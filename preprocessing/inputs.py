"""Input files of `prepare`, divided into byte ranges and partitions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from preprocessing import catalogue, timelines
from preprocessing.config import PrepareConfig
from preprocessing.sources.byte_ranges import ByteRange, list_byte_ranges

MAX_PARTITIONS = 4096


class Input(NamedTuple):
    """The files of one kind."""

    ranges: list[ByteRange]
    """Byte ranges that cover the files; empty if there are none."""
    num_partitions: int
    """Number of partitions for the rows."""


class Inputs(NamedTuple):
    """All input files."""

    events: Input
    """The event log."""
    properties: Input
    """Item properties, optional."""
    tree: Input
    """The category tree, optional."""


def list_inputs(config: PrepareConfig) -> Inputs:
    """Finds all input files and checks their headers.

    Raises:
      FileNotFoundError: a glob matches no file.
      ValueError: a file lacks a required column.
    """
    return Inputs(
        events=_find(config, config.events, timelines.EVENT_COLUMNS, timelines.OPTIONAL_EVENT_COLUMNS),
        properties=_find(config, config.item_properties, catalogue.PROPERTY_COLUMNS),
        tree=_find(config, config.category_tree, catalogue.TREE_COLUMNS),
    )


def _find(config: PrepareConfig, glob: str | None, required: Sequence[str], optional: Sequence[str] = ()) -> Input:
    if glob is None:
        return Input([], 1)
    ranges, size = list_byte_ranges(glob, required, optional)
    return Input(ranges, min(max(math.ceil(size / config.partition_bytes), 1), MAX_PARTITIONS))
