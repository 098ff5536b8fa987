"""Converts an item table, which has one row per item, to item properties. The catalogue is built from properties.

Shapes: N rows of a batch, P property rows.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.item_facts import ITEM_FACTS_SCHEMA
from preprocessing import validation
from preprocessing.catalogue import CATEGORY_SEPARATOR, CategoryTree, category_paths, find_latest_rows
from preprocessing.config import ItemTableConfig, PropertyConfig
from preprocessing.mapping import check_single, select_elements, to_ids, to_numbers, to_text
from preprocessing.sources.rejects import Rejects
from preprocessing.sources.source import Batch, reject_rows
from preprocessing.statistics.summaries import ReadingSummary, summarize_reading
from preprocessing.validation import Flaws

_AVAILABLE = pa.array(["1", "true", "yes", "y", "in stock", "instock", "available"])
_UNAVAILABLE = pa.array(["0", "false", "no", "n", "out of stock", "outofstock", "unavailable", "sold out"])
_BUCKETS_PER_DECADE = 5


@dataclass(frozen=True)
class ItemTableMapping:
    """How to convert the columns of an item table to properties.

    An attribute is a column without a role, such as the brand.
    """

    config: ItemTableConfig
    """The columns of the item table."""
    properties: PropertyConfig
    """Names of the properties that have a special role, such as the price."""
    numbers: frozenset[str] = frozenset()
    """Attributes that are numbers."""
    texts: frozenset[str] = frozenset()
    """Attributes that are texts. Each word of a text becomes a value."""

    @property
    def paths(self) -> list[str]:
        """The paths of all columns to read."""
        config = self.config
        named = [config.id, config.title, *config.category, config.price, config.availability, *config.attributes]
        return list(dict.fromkeys(path for path in named if path is not None))

    def describe(self, attribute: str) -> str:
        """Returns the name and the type of an attribute, for a log message."""
        kind = "number" if attribute in self.numbers else "text" if attribute in self.texts else "value"
        return f"{attribute} ({kind})"


class ParsedFacts(NamedTuple):
    """The availability and the category of items in a batch."""

    facts: pa.Table
    """The valid rows, with the schema `ITEM_FACTS_SCHEMA`. Item ids may repeat."""
    unclear: pa.Array
    """Unknown words in the availability column."""
    rejects: Rejects
    """The invalid rows."""


def resolve_types(mapping: ItemTableMapping, sample: pa.Table) -> ItemTableMapping:
    """Detects from a sample which attributes (columns without a role) are numbers and which are texts.

    An attribute is a number if all its known values are numbers. It is a text if a value has more than `max_words`
    words.
    """
    values = _select(sample, mapping)
    numbers, texts = set(), set()
    for name in mapping.config.attributes:
        column = values[name].filter(pc.not_equal(to_text(values[name]), ""))
        if len(column) and to_numbers(column).null_count == 0:
            numbers.add(name)
        elif len(column) and pc.max(_count_words(to_text(column))).as_py() > mapping.config.max_words:
            texts.add(name)
    return ItemTableMapping(mapping.config, mapping.properties, frozenset(numbers), frozenset(texts))


def parse_item_table(batch: Batch, mapping: ItemTableMapping) -> tuple[pa.Table, ReadingSummary, Rejects]:
    """Converts a batch to property rows: one per (item, property), with its last known value.

    Returns the columns timestamp_ms (always 0), item, property and value; the counts of rows; and the invalid rows.
    """
    values = _select(batch.columns, mapping)
    item = to_ids(values[mapping.config.id])
    flaws = Flaws.none(len(item))
    validation.check_ids(item, flaws)
    rejects = reject_rows(batch, flaws)
    named = {name: column for name, column in _properties(values, mapping).items() if len(column)}
    # all rows of the first property, then all rows of the next
    table = pa.table(
        {
            "timestamp_ms": np.zeros(len(item) * len(named), np.int64),
            "item": pa.concat_arrays([item] * len(named)) if named else pa.array([], pa.string()),
            "property": pa.array(np.repeat(np.array(list(named), object), len(item)), pa.string()),
            "value": pa.concat_arrays(list(named.values())) if named else pa.array([], pa.string()),
        }
    )
    is_valid = np.tile(flaws.is_valid, len(named))
    is_known = pc.not_equal(table["value"], "").to_numpy()
    latest = find_latest_rows(table, np.flatnonzero(is_valid & is_known))
    return table.take(latest), summarize_reading(int(flaws.is_valid.sum()), batch.num_blank, rejects), rejects


def parse_item_facts(batch: Batch, mapping: ItemTableMapping) -> ParsedFacts:
    """Parses the availability and the category of each row. Either is null if the table has no column for it."""
    values, config = _select(batch.columns, mapping), mapping.config
    item = to_ids(values[config.id])
    flaws = Flaws.none(len(item))
    validation.check_ids(item, flaws)
    unknown = pa.nulls(len(item), pa.string())
    available, unclear = unknown, unknown
    if config.availability is not None:
        available = _read_availability(values[config.availability])
        word = _clean(values[config.availability])
        unclear = word.filter(pc.and_(pc.equal(available, ""), pc.not_equal(word, "")))
    category = unknown
    if config.category:
        category = _join_path([_clean(values[path]) for path in config.category], config.separator)
    facts = pa.table(
        [
            item,
            pc.if_else(pc.equal(available, ""), None, pc.equal(available, "1")),
            pc.if_else(pc.equal(category, ""), None, category),
            category_paths(category, CategoryTree({}, 0, 0, 0)),
        ],
        schema=ITEM_FACTS_SCHEMA,
    )
    return ParsedFacts(facts.filter(pa.array(flaws.is_valid)), unclear.drop_null(), reject_rows(batch, flaws))


def _select(table: pa.Table, mapping: ItemTableMapping) -> dict[str, pa.Array]:
    """Returns the columns that the mapping names, keyed by path.

    Raises:
      ValueError: a path has no values, or its values are lists or objects.
    """
    values = select_elements(table, mapping.paths).columns
    for path, column in values.items():
        check_single(column, path)
    return values


def _properties(values: dict[str, pa.Array], mapping: ItemTableMapping) -> dict[str, pa.Array]:
    """Returns the values of each property as texts, by property name; '' if unknown. `values`: the columns by path."""
    config, names = mapping.config, mapping.properties
    found = {}
    if config.title is not None:
        found[names.title] = _clean(values[config.title])
    if config.category:
        found[names.category] = _join_path([_clean(values[path]) for path in config.category], config.separator)
    if config.price is not None:
        found[names.price] = _format_prices(to_numbers(values[config.price]))
    if config.availability is not None:
        found[names.availability] = _read_availability(values[config.availability])
    for path in config.attributes:
        found[path] = _attribute(values[path], path, mapping)
    return found


def _attribute(values: pa.Array, path: str, mapping: ItemTableMapping) -> pa.Array:
    if path in mapping.numbers:
        return _bucket(to_numbers(values))
    text = pc.utf8_lower(_clean(values))
    if path in mapping.texts:
        return pc.replace_substring_regex(text, r"[^\p{L}\p{N}]+", " ")
    return pc.replace_substring(text, " ", "_")  # one word: one value


def _bucket(numbers: pa.Array) -> pa.Array:
    """Returns the name of each number's logarithmic bucket; '' if the number is missing."""
    values = numbers.to_numpy(zero_copy_only=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.round(np.log10(np.abs(values)) * _BUCKETS_PER_DECADE)
    words = [
        "" if not math.isfinite(value) else "0" if value == 0 else f"{'-' if value < 0 else ''}e{int(step)}"
        for value, step in zip(values, steps, strict=True)
    ]
    return pa.array(words, pa.string())


def _join_path(parts: list[pa.Array], separator: str) -> pa.Array:
    """Returns each item's category path, root first, such as `Clothing > Shoes`.

    `parts` are the category columns, root first; a path ends before the first empty category. A single column contains
    whole paths, with `separator` between the categories.
    """
    if len(parts) == 1 and separator.strip():
        names = pc.split_pattern(parts[0], separator.strip())
        paths = [[name.strip() for name in path if name.strip()] for path in names.to_pylist()]
        return pa.array([CATEGORY_SEPARATOR.join(path) for path in paths], pa.string())
    path, is_open = parts[0], pc.not_equal(parts[0], "")
    for part in parts[1:]:
        is_open = pc.and_(is_open, pc.not_equal(part, ""))
        path = pc.if_else(is_open, pc.binary_join_element_wise(path, part, CATEGORY_SEPARATOR), path)
    return path


def _format_prices(numbers: pa.Array) -> pa.Array:
    values = numbers.to_numpy(zero_copy_only=False)
    return pa.array(["" if not math.isfinite(value) else f"{value:.4f}" for value in values], pa.string())


def _read_availability(values: pa.Array) -> pa.Array:
    words = pc.replace_substring(pc.utf8_lower(_clean(values)), "_", " ")
    return pc.if_else(pc.is_in(words, _AVAILABLE), "1", pc.if_else(pc.is_in(words, _UNAVAILABLE), "0", ""))


def _clean(values: pa.Array) -> pa.Array:
    """Converts each value to a text of one line; '' for a missing value."""
    text = to_ids(values) if not pa.types.is_boolean(values.type) else to_text(values).fill_null("")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(text, r"\s+", " "))


def _count_words(texts: pa.Array) -> pa.Array:
    return pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)))
