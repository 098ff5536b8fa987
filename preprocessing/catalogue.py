"""Assembles the catalogue, one row per item, from the item properties and the category tree.

In a split by time, only the properties that were known at the start of validation are used.

Shapes: N property rows, I items.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contract.catalogue import total_events
from preprocessing import validation
from preprocessing.columns import EncodedTable, decode_columns, encode_strings, find_last_rows, sort_by_count
from preprocessing.config import PropertyConfig, TimeConfig
from preprocessing.mapping import to_ids
from preprocessing.sources.rejects import Rejects
from preprocessing.sources.source import Batch, reject_rows
from preprocessing.statistics.summaries import ReadingSummary, merge_readings, summarize_reading
from preprocessing.times import parse_times
from preprocessing.validation import Flaws
from preprocessing.vocabularies import stack_kinds

PROPERTY_COLUMNS = ("timestamp", "itemid", "property", "value")
TREE_COLUMNS = ("categoryid", "parentid")

MAX_LEVELS = 100
"""Maximum depth of a category tree. Each category stores its whole path, so a deep tree needs much memory."""

CATEGORY_SEPARATOR = " > "
"""Separator in the category ids of an item table, such as `Clothing > Shoes`."""


@dataclass(frozen=True)
class CategoryTree:
    """The path of each category, and counts of irregularities, such as cycles."""

    paths: Mapping[str, tuple[str, ...]]
    """Path of each category, from its root down to itself."""
    num_cycles: int
    """Number of categories that are their own ancestors. The path of such a category has each ancestor once."""
    num_orphans: int
    """Number of categories with a parent that is not in the tree. Such categories are treated as roots."""
    num_repeated: int
    """Number of ignored rows. A row is ignored if a later row has the same category."""


class TreeReading(NamedTuple):
    """The category tree, with a summary of its input rows."""

    tree: CategoryTree
    """The tree."""
    summary: ReadingSummary
    """Counts of rows and rejects."""
    rejects: list[Rejects]
    """The invalid rows of each chunk."""


def build_tree(categories: list[str], parents: list[str]) -> CategoryTree:
    """Builds the category tree from rows (category, parent).

    An empty parent marks a root. If a category has several rows, the last row is used.

    Raises:
      ValueError: the tree has more than MAX_LEVELS levels.
    """
    parent_of = dict(zip(categories, parents, strict=True))
    known: dict[str, tuple[str, ...]] = {}
    circular: dict[str, tuple[str, ...]] = {}
    num_cycles = num_orphans = 0
    for category, parent in parent_of.items():
        num_orphans += parent not in parent_of and parent != ""
        climbed, above = _climb(category, parent_of, known)
        num_cycles += above == category
        if above in climbed:
            circular[category] = tuple(reversed(climbed))
            continue
        path = known.get(above, ())
        if len(path) + len(climbed) > MAX_LEVELS:
            raise ValueError(_describe_depth(category))
        for name in reversed(climbed):
            path = known[name] = (*path, name)
    return CategoryTree(known | circular, num_cycles, num_orphans, num_repeated=len(categories) - len(parent_of))


def _climb(category: str, parent_of: Mapping[str, str], known: Mapping[str, tuple[str, ...]]) -> tuple[list[str], str]:
    """Climbs from a category to its root, or until an ancestor is in `known`, already visited, or not in the tree.

    Returns the visited categories and the ancestor at which the climb stopped ('' at a root).

    Raises:
      ValueError: more than MAX_LEVELS categories were visited.
    """
    climbed, seen = [category], {category}
    while (above := parent_of[climbed[-1]]) in parent_of and above not in seen and above not in known:
        climbed.append(above)
        seen.add(above)
        if len(climbed) > MAX_LEVELS:
            raise ValueError(_describe_depth(category))
    return climbed, above


def _describe_depth(category: str) -> str:
    return f"category {category} is more than {MAX_LEVELS} levels deep in the category tree; check the column parentid"


def read_tree(batches: Iterable[Batch]) -> TreeReading:
    """Builds the category tree from batches. Rows without a category are invalid."""
    categories: list[str] = []
    parents: list[str] = []
    summaries, rejects = [], []
    for batch in batches:
        ids = [to_ids(batch.columns[name].combine_chunks()) for name in TREE_COLUMNS]
        flaws = Flaws.none(len(batch.columns))
        validation.check_ids(ids[0], flaws)
        valid = pa.array(flaws.is_valid)
        categories += ids[0].filter(valid).to_pylist()
        parents += ids[1].filter(valid).to_pylist()
        rejects.append(reject_rows(batch, flaws))
        summaries.append(summarize_reading(int(flaws.is_valid.sum()), batch.num_blank, rejects[-1]))
    return TreeReading(build_tree(categories, parents), merge_readings(summaries), rejects)


def describe_tree(tree: CategoryTree) -> dict[str, int]:
    """Returns the size of the category tree and the counts of its irregularities, as JSON values."""
    return {
        "categories": len(tree.paths),
        "roots": sum(len(path) == 1 for path in tree.paths.values()),
        "levels": max(map(len, tree.paths.values()), default=0),
        "cycles": tree.num_cycles,
        "orphans": tree.num_orphans,
        "repeated": tree.num_repeated,
    }


def parse_properties(batch: Batch, until_ms: float) -> tuple[pa.Table, ReadingSummary, Rejects]:
    """Parses a batch of item properties. For each (item, property), keeps the latest row before `until_ms`.

    Returns the columns timestamp_ms, item, property and value; the counts of rows; and the invalid rows.
    """
    columns = {name: batch.columns[name].combine_chunks() for name in PROPERTY_COLUMNS}
    flaws = Flaws.none(len(batch.columns))
    timestamps = parse_times(columns["timestamp"], TimeConfig(unit="ms"), flaws)
    item, name, value = (to_ids(columns[column]) for column in ("itemid", "property", "value"))
    validation.check_ids(item, flaws)
    validation.check_ids(name, flaws)
    table = pa.table({"timestamp_ms": timestamps, "item": item, "property": name, "value": value})
    rejects = reject_rows(batch, flaws)
    latest = find_latest_rows(table, np.flatnonzero(flaws.is_valid & (timestamps < until_ms)))
    return table.take(latest), summarize_reading(int(flaws.is_valid.sum()), batch.num_blank, rejects), rejects


def find_latest_rows(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Returns the index of the latest row of each (item, property). At equal times, the last row is used.

    Args:
      table: the columns timestamp_ms, item and property.
      rows: indices of the rows to consider.
    """
    by_time = rows[np.argsort(table["timestamp_ms"].to_numpy()[rows], kind="stable")]
    keys = [encode_strings(table[name])[0][by_time] for name in ("item", "property")]
    return by_time[find_last_rows(keys)]


def merge_properties(table: pa.Table) -> pa.Table:
    """Selects the latest value of each (item, property).

    Reads the columns item, property, value and timestamp_ms; returns item, property and value.
    """
    return table.take(find_latest_rows(table, np.arange(len(table)))).select(["item", "property", "value"])


def empty_properties() -> pa.Table:
    """Returns an empty table with the columns of `merge_properties`."""
    return pa.table({name: pa.array([], pa.string()) for name in ("item", "property", "value")})


def count_properties(properties: pa.Table) -> pa.Table:
    """Counts the items that have each property. Returns the columns id and count."""
    counted = pc.value_counts(properties["property"])
    return pa.table({"id": counted.field("values"), "count": counted.field("counts")})


def choose_properties(encoded_counts: EncodedTable, config: PropertyConfig) -> tuple[str, ...]:
    """Returns the most frequent properties, at most `config.most_frequent`.

    Skips properties with a role, such as the price. `encoded_counts` has the columns id and count; it is b"" if there
    are no properties.
    """
    if not encoded_counts:
        return ()
    with_role = {config.category, config.availability, config.price, config.title}
    names = sort_by_count(decode_columns(encoded_counts))["id"].to_pylist()
    return tuple(name for name in names if name not in with_role)[: config.most_frequent]


def assemble_items(
    properties: pa.Table | None, items: pa.Table, config: PropertyConfig, frequent: tuple[str, ...], tree: CategoryTree
) -> pa.Table:
    """Assembles the catalogue rows of a partition, one per item. Categories and property values are texts.

    Args:
      properties: table from `merge_properties`; None if the shop has none.
      items: columns of `vocabularies.count_items`, and `index`: vocabulary items by index, then others with index -1.
      config: names of the properties with a role, such as the price.
      frequent: names of the other properties to keep.

    Returns:
      The columns item_id, item_index, title, category_id, category_path (list of ids, root first), is_available, price,
      property_values (list of `property=word`), event_counts (list of training events per kind), first_seen_ms and
      last_seen_ms (times of the first and last training event).
    """
    if properties is None:
        properties = empty_properties()
    ids = items["id"].combine_chunks()
    owner = _find_owners(properties["item"], ids)
    category = _select_values(properties, owner, config.category, len(ids))
    available = _select_values(properties, owner, config.availability, len(ids))
    return pa.table(
        {
            "item_id": ids,
            "item_index": items["index"],
            "title": _select_values(properties, owner, config.title, len(ids)),
            "category_id": category,
            "category_path": category_paths(category, tree),
            "is_available": pc.if_else(
                pc.is_in(available, value_set=pa.array(["0", "1"])), pc.equal(available, "1"), None
            ),
            "price": _parse_prices(_select_values(properties, owner, config.price, len(ids))),
            "property_values": _combine_values(properties, owner, frequent, len(ids)),
            "event_counts": _list_counts(items),
            "first_seen_ms": items["first_seen_ms"],
            "last_seen_ms": items["last_seen_ms"],
        }
    )


def is_trained(catalogue: pa.Table) -> pa.ChunkedArray:
    """Returns a mask [I] of the items that are in the vocabulary and have training events."""
    return pc.and_(pc.greater_equal(catalogue["item_index"], 0), catalogue["first_seen_ms"].is_valid())


def select_trained_prices(catalogue: pa.Table) -> np.ndarray:
    """Returns the known prices of the items that have training events, as float32."""
    return catalogue.filter(is_trained(catalogue))["price"].drop_null().to_numpy()


def describe_partition(
    catalogue: pa.Table, properties: pa.Table | None, config: PropertyConfig, tree: CategoryTree
) -> dict[str, int]:
    """Counts the items and the invalid property values of a partition. Returns counts by name, such as `with_price`."""
    in_vocabulary = pc.greater_equal(catalogue["item_index"], 0)
    categories = catalogue["category_id"].drop_null()
    # without a tree, the categories of an item table are their own paths
    in_tree = pc.is_in(categories, value_set=pa.array(list(tree.paths), pa.string()) if tree.paths else categories)
    num_values = {
        name: 0 if properties is None else _count_values(properties, name)
        for name in (config.availability, config.price)
    }
    with_price = len(catalogue) - catalogue["price"].null_count
    with_availability = len(catalogue) - catalogue["is_available"].null_count
    return {
        "items": len(catalogue),
        "outside_vocabulary": len(catalogue) - _count(in_vocabulary),
        "with_title": len(catalogue) - catalogue["title"].null_count,
        "with_category": len(categories),
        "with_category_outside_tree": len(categories) - _count(in_tree),
        "with_price": with_price,
        "invalid_prices": num_values[config.price] - with_price,
        "without_training_events": catalogue["first_seen_ms"].null_count,
        "priced_trained_items": _count(pc.and_(is_trained(catalogue), catalogue["price"].is_valid())),
        "with_availability": with_availability,
        "invalid_availability": num_values[config.availability] - with_availability,
        "available": _count(catalogue["is_available"]),
    }


def count_category_events(catalogue: pa.Table) -> pa.Table:
    """Counts the training events of each category. Returns the columns id and count."""
    events = pa.table({"id": catalogue["category_id"], "events": total_events(catalogue)})
    categorized = events.filter(events["id"].is_valid())
    summed = categorized.group_by("id", use_threads=False).aggregate([("events", "sum")])
    return pa.table({"id": summed["id"], "count": summed["events_sum"]})


def merge_descriptions(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Adds up the counts of several partitions from `describe_partition`."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)  # + would drop zeros
    return dict(total)


def _list_counts(items: pa.Table) -> pa.Array:
    """Returns, for each item, the list of its training event counts by kind, [I]."""
    counts = stack_kinds(items)
    offsets = np.arange(len(items) + 1) * counts.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(counts.ravel()))


def _count(is_true: pa.ChunkedArray) -> int:
    return int(pc.sum(is_true).as_py() or 0)


def _count_values(properties: pa.Table, name: str) -> int:
    values = properties["value"].combine_chunks().take(pa.array(_find_rows(properties, (name,))))
    return len(values) - _count(pc.equal(values, ""))


def _find_owners(column: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """Returns the index in `ids` of each id in `column`, [N]."""
    item_code, names = encode_strings(column)
    return pc.index_in(names, value_set=ids).to_numpy(zero_copy_only=False)[item_code]


def _find_rows(properties: pa.Table, names: tuple[str, ...]) -> np.ndarray:
    """Returns the indices of the rows whose property is one of `names`."""
    property_code, found = encode_strings(properties["property"])
    is_named = pc.is_in(found, value_set=pa.array(names, pa.string())).to_numpy(zero_copy_only=False)
    return np.flatnonzero(is_named[property_code]) if len(found) else np.empty(0, np.int64)


def _select_values(properties: pa.Table, owner: np.ndarray, name: str, num_items: int) -> pa.Array:
    """Returns each item's value of the property `name`, [I]; null if missing or empty.

    `owner` is the index of each row's item, in 0 … `num_items` - 1.
    """
    rows = _find_rows(properties, (name,))
    source = np.full(num_items, -1)
    source[owner[rows]] = rows
    values = properties["value"].combine_chunks().take(pa.array(source, mask=source < 0))
    return pc.if_else(pc.equal(values, ""), None, values)


def category_paths(category: pa.Array, tree: CategoryTree) -> pa.Array:
    """Returns category paths, [I]. A path is a list of category ids, root first; it is empty for a null.

    An id that is not in the tree is read as a path: `Clothing > Shoes` gives `Clothing` and `Clothing > Shoes`.
    """
    encoded = category.dictionary_encode()
    paths = [list(tree.paths.get(name) or _split_path(name)) for name in encoded.dictionary.to_pylist()]
    choices = pa.array([*paths, []], pa.list_(pa.string()))
    return choices.take(encoded.indices.fill_null(len(paths)))


def _split_path(category: str) -> tuple[str, ...]:
    names = category.split(CATEGORY_SEPARATOR, MAX_LEVELS - 1)
    return tuple(CATEGORY_SEPARATOR.join(names[:level]) for level in range(1, len(names) + 1))


def _parse_prices(texts: pa.Array) -> pa.Array:
    """Converts texts such as `5.99` or `n5.99` to prices, [I] float32. Other texts, such as `-5.99`, become null."""
    bare = pc.utf8_ltrim(texts, characters="n")
    is_number = pc.match_substring_regex(bare, r"^[0-9]{1,15}(\.[0-9]+)?$")
    return pc.cast(pc.if_else(is_number, bare, None), pa.float32())


def _combine_values(properties: pa.Table, owner: np.ndarray, names: tuple[str, ...], num_items: int) -> pa.Array:
    """Splits values of the properties `names` into words. Returns the distinct texts `property=word` per item, [I]."""
    rows = _find_rows(properties, names)
    rows = rows[np.argsort(owner[rows], kind="stable")]
    chosen = properties.take(rows)
    words = pc.split_pattern(pc.utf8_trim_whitespace(chosen["value"]), " ").combine_chunks()
    parents = pc.list_parent_indices(words).to_numpy()
    word_names = chosen["property"].combine_chunks().take(pa.array(parents))
    # two adjacent spaces leave an empty word
    is_word = pc.greater(pc.binary_length(words.flatten()), 0)
    pairs = pc.binary_join_element_wise(word_names, words.flatten(), "=").filter(is_word).dictionary_encode()
    word_owner = owner[rows][parents][is_word.to_numpy(zero_copy_only=False)]
    keep = find_last_rows([word_owner, pairs.indices.to_numpy()]) if len(word_owner) else np.empty(0, np.int64)
    offsets = np.r_[0, np.cumsum(np.bincount(word_owner[keep], minlength=num_items))]
    values = pairs.dictionary.take(pairs.indices.take(pa.array(keep)))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
