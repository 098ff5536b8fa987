"""Maps the columns of a shop's files to the fields of events, by paths, constants and conditions.

A path names a column (`CustomerID`), a field of a nested column (`user.id`), or a field of each element of a list
(`items[].item_id`). If a path contains a list, each element of the list is an event. A constant is quoted:
`'transaction'`.

Shapes: N events in the rows of a batch.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LIST = "[]"
_CONSTANT = re.compile(r"""^(["'])(.*)\1$""")
_CONDITION = re.compile(r"^\s*(.+?)\s*(<=|>=|!=|==|=|<|>|\bis not null\b|\bis null\b|\bnot in\b|\bin\b)\s*(.*?)\s*$")
_SEVERAL = re.compile(r"[<>=]|\s(and|or)\s", re.IGNORECASE)
# by separator: numbers in which it separates thousands, because it cannot be the decimal point
_THOUSANDS = {
    ",": r"^-?[0-9]{1,3}((,[0-9]{3})+\.[0-9]*|(,[0-9]{3}){2,})$",
    ".": r"^-?[0-9]{1,3}((\.[0-9]{3})+,[0-9]*|(\.[0-9]{3}){2,})$",
}
_COMPARE: dict[str, Callable[[pa.Array, pa.Scalar], pa.Array]] = {
    "=": pc.equal,
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


class Elements(NamedTuple):
    """The values of all events in a batch, by path."""

    columns: dict[str, pa.Array]
    """[N] values by path."""
    owners: np.ndarray | None
    """[N] index of the row that contains each event. None: each row is an event."""
    num_empty: int
    """Number of rows with an empty list of events."""


@dataclass(frozen=True)
class Condition:
    """A condition that rows must meet, such as `Quantity > 0`."""

    text: str
    """The condition as the user wrote it."""
    path: str
    """The path of the column."""
    compare: str
    """The comparison, such as `>` or `not in`."""
    value: str
    """The value on the right side of the comparison."""

    def is_met(self, values: pa.Array) -> np.ndarray:
        """Returns a mask [N] of the values that meet the condition. A null meets only `is null` and `not in`.

        Raises:
          ValueError: the values are lists or objects, or times that are compared with a number.
        """
        if self.compare in ("is null", "is not null"):
            missing = is_missing(values)
            return missing if self.compare == "is null" else ~missing
        check_single(values, self.path)
        if self.compare in ("in", "not in"):
            parts = re.findall(r"""\s*("[^"]*"|'[^']*'|[^,]+)""", self.value.strip("[]()"))
            options = [_unquote(part.strip()) for part in parts]
            is_option = pc.is_in(to_text(values), value_set=pa.array(options, pa.string()))
            found: np.ndarray = is_option.to_numpy(zero_copy_only=False)
            return found if self.compare == "in" else ~found
        met: np.ndarray = self._compare_values(values).fill_null(False).to_numpy(zero_copy_only=False)
        return met

    def _compare_values(self, values: pa.Array) -> pa.Array:
        compare, number = _COMPARE[self.compare], _parse_number(self.value)
        if number is None:
            text = _unquote(self.value)
            return compare(to_text(values), pa.scalar(text.lower() if pa.types.is_boolean(values.type) else text))
        if pa.types.is_temporal(values.type):
            raise ValueError(f"`{self.text}` compares times with a number; write a date, such as 2024-03-01")
        return compare(to_numbers(values), pa.scalar(number))


def parse_condition(text: str) -> Condition:
    """Parses a condition, such as `Quantity > 0`.

    Raises:
      ValueError: the form is not COLUMN COMPARISON VALUE, or there are several conditions.
    """
    match = _CONDITION.match(text)
    if not match or (not match[3] and "null" not in match[2]):
        raise ValueError(
            f"`{text}` is not a condition; write one such as `Quantity > 0`, with one of the operators =, !=, <, <=, "
            ">, >=, in, not in, is null, is not null"
        )
    if match[2] in _COMPARE and not _CONSTANT.match(match[3]) and _SEVERAL.search(match[3]):
        raise ValueError(f"`{text}` has several conditions; give each separately, or quote the value if it is a text")
    return Condition(text, match[1], match[2], match[3])


def constant_of(path: str) -> str | None:
    """Returns the text of a quoted constant; None if `path` is not a constant."""
    match = _CONSTANT.match(path)
    return match[2] if match else None


def root_of(path: str, columns: Collection[str] = ()) -> str:
    """Returns the top-level column of a path, such as `user` for `user.id`.

    The column is the longest prefix of `path` in `columns` or, if there is none, the part before the first dot or `[]`.
    """
    starts = [path[: match.start()] for match in re.finditer(r"\.|\[\]|$", path)]
    return next((start for start in reversed(starts) if start in columns), starts[0])


def list_of(paths: Sequence[str]) -> str | None:
    """Returns the path of the list whose elements are events: `items` for `items[].id`; None if no path has a list.

    Raises:
      ValueError: the paths contain several lists, or a list in a list.
    """
    lists = {path.rpartition(_LIST)[0] for path in paths if _LIST in path}
    if len(lists) > 1 or any(_LIST in name for name in lists):
        raise ValueError(
            f"found several lists in {', '.join(f'`{path}`' for path in paths if _LIST in path)}, but each event is an "
            "element of one list; map all columns to the same list, such as `items[].id` and `items[].price`"
        )
    return next(iter(lists), None)


def select_elements(table: pa.Table, paths: Sequence[str]) -> Elements:
    """Selects the values at the given paths, one per event.

    If the paths lead into a list, each element of the list is an event; otherwise, each row is an event.

    Raises:
      ValueError: a column does not exist, a path has no values, texts are not valid UTF-8, `[]` follows a column
        that is not a list, or the paths contain several lists.
    """
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    prefix = list_of(paths)
    if prefix is None:
        return Elements({path: _to_plain_at(_follow(columns, path), path) for path in paths}, None, 0)
    lists = _follow(columns, prefix)
    if pa.types.is_null(lists.type):  # no object of the batch has the list
        empty = pa.nulls(0, pa.string())
        return Elements(dict.fromkeys(paths, empty), np.empty(0, np.int64), len(table))
    if not is_list(lists.type):
        raise ValueError(f"`{prefix}` has type {lists.type}, which is not a list; write `{prefix}` without []")
    owners = pc.list_parent_indices(lists)
    elements = pc.list_flatten(lists)
    num_empty = len(table) - len(pc.unique(owners))
    selected = {}
    for path in paths:
        if _LIST in path:
            rest = path.removeprefix(prefix + _LIST).removeprefix(".")
            selected[path] = _follow_fields(elements, rest, path) if rest else elements
        else:
            selected[path] = _follow(columns, path).take(owners)
    return Elements(
        {path: _to_plain_at(values, path) for path, values in selected.items()}, owners.to_numpy(), num_empty
    )


def check_single(values: pa.Array, path: str) -> None:
    """Raises ValueError if the values are lists or objects."""
    if pa.types.is_nested(values.type):
        raise ValueError(
            f"`{path}` has values of type {values.type}, not single values; {_advise_nested(values, path)}"
        )


def _advise_nested(values: pa.Array, path: str) -> str:
    if is_list(values.type):
        return f"to read each element as a row of its own, map `{path}{_LIST}`"
    if pa.types.is_struct(values.type) and values.type.num_fields:
        return f"map one of its fields, such as `{path}.{values.type.field(0).name}`"
    return "map another column"


def to_plain(values: pa.Array) -> pa.Array:
    """Converts Arrow's special text types, such as dictionaries, to strings, and float16 to float32."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return to_plain(values.dictionary_decode())
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    if is_binary or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(values, pa.string())
    return pc.cast(values, pa.float32()) if pa.types.is_float16(kind) else values


def to_ids(values: pa.Array) -> pa.Array:
    """Converts ids to texts. 12003.0 becomes `12003`; null and NaN become ''."""
    if pa.types.is_floating(values.type):
        is_whole = pc.fill_null(pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), 2.0**53)), False)
        whole = pc.cast(pc.cast(pc.if_else(is_whole, values, 0.0), pa.int64()), pa.string())
        # Arrow's NaN is not null
        values = pc.if_else(is_whole, whole, pc.if_else(pc.is_nan(values), None, pc.cast(values, pa.string())))
    if pa.types.is_decimal(values.type) and values.type.scale > 0:
        return pc.replace_substring_regex(to_text(values), r"\.0+$", "").fill_null("")
    return to_text(values).fill_null("")


def to_text(values: pa.Array) -> pa.Array:
    """Converts single values, such as numbers and times, to texts. Null stays null."""
    plain = to_plain(values)
    return plain if pa.types.is_string(plain.type) else pc.cast(plain, pa.string())


def to_numbers(values: pa.Array) -> pa.Array:
    """Converts values to float64; null for times and for texts that are not numbers.

    A single comma in a text is the decimal point: 1,234 is 1.234. Unambiguous thousands separators are removed, as in
    1,234.50, 1.234,50 and 1,234,567.
    """
    if pa.types.is_string(values.type):
        texts = pc.utf8_ltrim(pc.utf8_trim_whitespace(values), "+")
        for separator, pattern in _THOUSANDS.items():
            has_thousands = pc.match_substring_regex(texts, pattern)
            texts = pc.if_else(has_thousands, pc.replace_substring(texts, separator, ""), texts)
        points = pc.replace_substring(texts, ",", ".")
        is_number = pc.match_substring_regex(points, r"^-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$")
        return pc.cast(pc.if_else(is_number, points, None), pa.float64())
    if pa.types.is_null(values.type) or pa.types.is_temporal(values.type):
        return pa.nulls(len(values), pa.float64())
    return pc.cast(values, pa.float64(), safe=False)


def is_list(kind: pa.DataType) -> bool:
    """Returns True if an Arrow type is a list."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_missing(values: pa.Array) -> np.ndarray:
    """Returns a mask [N] of the values that are null, NaN or an empty text."""
    missing = values.is_null(nan_is_null=True)
    if pa.types.is_string(values.type):
        missing = pc.or_(missing, pc.fill_null(pc.equal(values, ""), True))
    found: np.ndarray = missing.to_numpy(zero_copy_only=False)
    return found


def _to_plain_at(values: pa.Array, path: str) -> pa.Array:
    try:
        return to_plain(values)
    except pa.ArrowInvalid as error:
        raise ValueError(f"`{path}` has bytes that are not text in UTF-8; convert them to text") from error


def _follow(columns: dict[str, pa.Array], path: str) -> pa.Array:
    root = root_of(path, columns)
    if root not in columns:
        raise ValueError(f"there is no column `{root}`; use one of the columns {', '.join(columns)}")
    return _follow_fields(columns[root], path.removeprefix(root).removeprefix("."), path)


def _follow_fields(values: pa.Array, path: str, whole: str) -> pa.Array:
    for name in path.split(".") if path else ():
        if pa.types.is_null(values.type):
            return values
        if not pa.types.is_struct(values.type):
            is_in_list = is_list(values.type)
            advice = "write [] after the list to read its elements as events" if is_in_list else "correct the path"
            raise ValueError(
                f"`{whole}` does not exist: the value before `.{name}` has type {values.type}, which has no fields; "
                f"{advice}"
            )
        fields = [field.name for field in values.type]
        if name not in fields:
            return pa.nulls(len(values), pa.string())
        # `field` would ignore which structs are null
        values = pc.struct_field(values, name)
    return values


def _unquote(text: str) -> str:
    constant = constant_of(text)
    return text if constant is None else constant


def _parse_number(text: str) -> float | None:
    """Parses a number, with an optional decimal comma. Returns None for other texts."""
    number: float | None = to_numbers(pa.array([text], pa.string()))[0].as_py()
    return number
