"""Describes the columns of a sample of rows. A field of a nested column is described as a column."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.config import TimeConfig
from preprocessing.mapping import is_list, is_missing, to_plain
from preprocessing.times import drop_missing, guess_times, is_time_type, parse_times
from preprocessing.validation import Flaws

_EXAMPLES = 3
_TIMES = 1000  # values that decide whether a column has times


@dataclass(frozen=True)
class Column:
    """Description of a column, or of a field of a nested column."""

    path: str
    """Path of the column, such as `user.id`."""
    type: str
    """Type of the values, in words such as `whole number`."""
    examples: tuple[str, ...]
    """The first distinct values."""
    missing: float
    """Share of values that are missing or empty."""


def walk_columns(table: pa.Table) -> Iterator[tuple[str, pa.Array]]:
    """Yields (path, values) of each column. A nested column is replaced by its fields."""
    for name in table.column_names:
        yield from _walk_values(name, table[name].combine_chunks())


def _walk_values(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    if pa.types.is_struct(values.type):
        for child in values.type:
            yield from _walk_values(f"{path}.{child.name}", pc.struct_field(values, child.name))
    elif is_list(values.type) and "[]" not in path:
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


def describe_column(path: str, values: pa.Array) -> Column:
    """Describes the values of the column at `path`."""
    present = values.filter(pa.array(~is_missing(values)))
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
    if is_time_type(kind):
        return "time"
    return str(kind)


def has_times(values: pa.Array) -> bool:
    """Returns True if the values are times, or can be parsed as times, and at least one can be the time of an event."""
    if not is_single(values.type):
        return False
    sample = drop_missing(values)[:_TIMES]
    guesses = [TimeConfig()] if is_time_type(values.type) else guess_times(sample)
    return any(_has_valid_time(sample, guess) for guess in guesses)


def _has_valid_time(values: pa.Array, config: TimeConfig) -> bool:
    flaws = Flaws.none(len(values))
    parse_times(values, config, flaws)
    return bool(flaws.is_valid.any())


def is_single(kind: pa.DataType) -> bool:
    """Returns True for types of single values; False for lists, objects and bytes."""
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
