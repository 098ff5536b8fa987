"""Item properties and the category tree to one row an item, as known at the training cut and nothing later.

Shapes: N property rows, I items.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing import validation
from preprocessing.columns import by_count, codes, decode_columns, last_of_each
from preprocessing.config import PropertyConfig
from preprocessing.sources.csv_files import Chunk, Rejects, parse_chunk, reject_rows
from preprocessing.statistics.summaries import ReadingSummary, merge_readings, summarize_reading
from preprocessing.validation import Flaws

PROPERTY_COLUMNS = ("timestamp", "itemid", "property", "value")
TREE_COLUMNS = ("categoryid", "parentid")


@dataclass(frozen=True)
class CategoryTree:
    """Each category's path from its root down to itself, and what was odd.

    num_cycles     categories that are their own ancestors; paths into a cycle are cut before they would repeat
    num_orphans    categories whose parent is not in the tree: they are taken for roots
    num_repeated   rows for a category that has a later row
    """

    paths: Mapping[str, tuple[str, ...]]
    num_cycles: int
    num_orphans: int
    num_repeated: int


def build_tree(categories: list[str], parents: list[str]) -> CategoryTree:
    """The tree of (category, parent) rows; an empty parent marks a root; of two rows for a category the last counts."""
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
        for name in reversed(climbed):
            path = known[name] = (*path, name)
    return CategoryTree(known | circular, num_cycles, num_orphans, num_repeated=len(categories) - len(parent_of))


def _climb(category: str, parent_of: Mapping[str, str], known: Mapping[str, tuple[str, ...]]) -> tuple[list[str], str]:
    """Categories from `category` upwards, and what ended it: a known path, a category met before, no parent."""
    climbed, seen = [category], {category}
    while (above := parent_of[climbed[-1]]) in parent_of and above not in seen and above not in known:
        climbed.append(above)
        seen.add(above)
    return climbed, above


def read_tree(chunks: Iterable[Chunk]) -> tuple[CategoryTree, ReadingSummary, list[Rejects]]:
    """The tree of a file's rows, what came of reading it, and its bad rows: those with an empty category."""
    categories: list[str] = []
    parents: list[str] = []
    summaries, rejected = [], []
    for chunk in chunks:
        parsed = parse_chunk(chunk)
        flaws = Flaws.none(len(parsed.columns))
        validation.check_ids(parsed.columns["categoryid"], flaws)
        good = parsed.columns.filter(flaws.is_good)
        categories += good["categoryid"].to_pylist()
        parents += good["parentid"].to_pylist()
        rejected.append(reject_rows(parsed, flaws))
        summaries.append(summarize_reading(len(good), parsed.num_blank, rejected[-1]))
    return build_tree(categories, parents), merge_readings(summaries), rejected


def describe_tree(tree: CategoryTree) -> dict[str, int]:
    """Sizes and oddities, as JSON."""
    return {
        "categories": len(tree.paths),
        "roots": sum(len(path) == 1 for path in tree.paths.values()),
        "levels": max(map(len, tree.paths.values()), default=0),
        "cycles": tree.num_cycles,
        "orphans": tree.num_orphans,
        "repeated": tree.num_repeated,
    }


def parse_properties(chunk: Chunk, until_ms: float) -> tuple[pa.Table, ReadingSummary, Rejects]:
    """The last row before `until_ms` of each (item, property) of a chunk, what came of reading it, and the bad rows.

    The columns are timestamp_ms, item, property and value.
    """
    parsed = parse_chunk(chunk)
    columns = parsed.columns
    flaws = Flaws.none(len(columns))
    timestamps = validation.parse_timestamps(columns["timestamp"], flaws)
    validation.check_ids(columns["itemid"], flaws)
    validation.check_ids(columns["property"], flaws)
    table = pa.table(
        {
            "timestamp_ms": timestamps,
            "item": columns["itemid"],
            "property": columns["property"],
            "value": columns["value"],
        }
    )
    rejects = reject_rows(parsed, flaws)
    rows = latest_rows(table, np.flatnonzero(flaws.is_good & (timestamps < until_ms)))
    return table.take(rows), summarize_reading(int(flaws.is_good.sum()), parsed.num_blank, rejects), rejects


def latest_rows(table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Of `rows`, the last in time (then in the table) of each (item, property)."""
    by_time = rows[np.argsort(table["timestamp_ms"].to_numpy()[rows], kind="stable")]
    keys = [codes(table[name])[0][by_time] for name in ("item", "property")]
    return by_time[last_of_each(keys)]


def merge_properties(table: pa.Table) -> pa.Table:
    """The latest value of each (item, property) of a partition's rows: item, property, value."""
    return table.take(latest_rows(table, np.arange(len(table)))).select(["item", "property", "value"])


def no_properties() -> pa.Table:
    """What `merge_properties` gives for a partition without any."""
    return pa.table({name: pa.array([], pa.string()) for name in ("item", "property", "value")})


def count_properties(properties: pa.Table) -> pa.Table:
    """Items that have each property: id, count."""
    counted = pc.value_counts(properties["property"])
    return pa.table({"id": counted.field("values"), "count": counted.field("counts")})


def choose_properties(encoded_counts: bytes, config: PropertyConfig) -> tuple[str, ...]:
    """The properties without a role that most items have."""
    if not encoded_counts:
        return ()
    with_role = {config.category, config.availability, config.price, config.title}
    names = by_count(decode_columns(encoded_counts))["id"].to_pylist()
    return tuple(name for name in names if name not in with_role)[: config.most_frequent]


def assemble_items(
    properties: pa.Table | None, items: pa.Table, config: PropertyConfig, frequent: tuple[str, ...], tree: CategoryTree
) -> pa.Table:
    """One row an item of a partition, with its properties as text.

    Args:
      properties: of `merge_properties`; None where the shop has none.
      items: all of the partition, with their training counts (id, index, views, carts, transactions, first_seen_ms,
        last_seen_ms), those of the vocabulary by index, then those beyond its limits.
      config: the properties with a role.
      frequent: the other properties that are kept.
      tree: the category tree.

    Returns:
      item_id, item_index, title, category_id, category_path (list of ids, root first), is_available, price,
      property_values (list of `property=word`) and the counts.
    """
    if properties is None:
        properties = no_properties()
    ids = items["id"].combine_chunks()
    place = _item_places(properties["item"], ids)
    category = _values_of(properties, place, config.category, len(ids))
    available = _values_of(properties, place, config.availability, len(ids))
    return pa.table(
        {
            "item_id": ids,
            "item_index": items["index"],
            "title": _values_of(properties, place, config.title, len(ids)),
            "category_id": category,
            "category_path": _category_paths(category, tree),
            "is_available": pc.if_else(
                pc.is_in(available, value_set=pa.array(["0", "1"])), pc.equal(available, "1"), None
            ),
            "price": _prices(_values_of(properties, place, config.price, len(ids))),
            "property_values": _property_values(properties, place, frequent, len(ids)),
            **{name: items[name] for name in _COUNTS},
        }
    )


_COUNTS = ("views", "carts", "transactions", "first_seen_ms", "last_seen_ms")


def is_trained(catalogue: pa.Table) -> pa.ChunkedArray:
    """[I] bool: the item is in the vocabulary and has a training event."""
    return pc.and_(pc.greater_equal(catalogue["item_index"], 0), catalogue["first_seen_ms"].is_valid())


def trained_prices(catalogue: pa.Table) -> pa.Array:
    """float32 prices, null where unknown, of the items that `is_trained`."""
    return catalogue.filter(is_trained(catalogue))["price"].combine_chunks()


def describe_partition(
    catalogue: pa.Table, properties: pa.Table | None, config: PropertyConfig, tree: CategoryTree
) -> dict[str, int]:
    """Counts over a partition's catalogue rows and the property values that could not be read; partitions add up."""
    in_vocabulary = pc.greater_equal(catalogue["item_index"], 0)
    named = catalogue["category_id"].drop_null()
    in_tree = pc.is_in(named, value_set=pa.array(list(tree.paths), pa.string()))
    told = {
        name: 0 if properties is None else _count_told(properties, name) for name in (config.availability, config.price)
    }
    with_price = len(catalogue) - catalogue["price"].null_count
    with_availability = len(catalogue) - catalogue["is_available"].null_count
    return {
        "items": len(catalogue),
        "outside_vocabulary": len(catalogue) - _count(in_vocabulary),
        "with_title": len(catalogue) - catalogue["title"].null_count,
        "with_category": len(named),
        "with_category_outside_tree": len(named) - _count(in_tree),
        "with_price": with_price,
        "invalid_prices": told[config.price] - with_price,
        "without_training_events": catalogue["first_seen_ms"].null_count,
        "priced_trained_items": _count(pc.and_(is_trained(catalogue), catalogue["price"].is_valid())),
        "with_availability": with_availability,
        "invalid_availability": told[config.availability] - with_availability,
        "available": _count(catalogue["is_available"]),
    }


def count_category_views(catalogue: pa.Table) -> pa.Table:
    """Training views of the items of each category, as last told: id, count."""
    named = catalogue.filter(catalogue["category_id"].is_valid())
    summed = named.group_by("category_id", use_threads=False).aggregate([("views", "sum")])
    return pa.table({"id": summed["category_id"], "count": summed["views_sum"]})


def merge_descriptions(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sums of several partitions' counts."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)  # and not +, which drops zeros
    return dict(total)


def _count(is_true: pa.ChunkedArray) -> int:
    return int(pc.sum(is_true).as_py() or 0)


def _count_told(properties: pa.Table, name: str) -> int:
    """Items for which a property is told, with whatever value but the empty one."""
    values = properties["value"].combine_chunks().take(pa.array(_rows_of(properties, (name,))))
    return len(values) - _count(pc.equal(values, ""))


def _item_places(column: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    item_code, named = codes(column)
    return pc.index_in(named, value_set=ids).to_numpy(zero_copy_only=False)[item_code]


def _rows_of(properties: pa.Table, names: tuple[str, ...]) -> np.ndarray:
    """Rows whose property is one of `names`."""
    property_code, found = codes(properties["property"])
    wanted = pc.is_in(found, value_set=pa.array(names, pa.string())).to_numpy(zero_copy_only=False)
    return np.flatnonzero(wanted[property_code]) if len(found) else np.empty(0, np.int64)


def _values_of(properties: pa.Table, place: np.ndarray, name: str, num_items: int) -> pa.Array:
    """[I] strings: the value of one property, null where an item lacks it or it is empty."""
    rows = _rows_of(properties, (name,))
    source = np.full(num_items, -1)
    source[place[rows]] = rows
    values = properties["value"].combine_chunks().take(pa.array(source, mask=source < 0))
    return pc.if_else(pc.equal(values, ""), None, values)


def _category_paths(category: pa.Array, tree: CategoryTree) -> pa.Array:
    """[I] lists of category ids, root first; a category that the tree lacks is its own path; empty for null."""
    encoded = category.dictionary_encode()
    paths = [list(tree.paths.get(name, (name,))) for name in encoded.dictionary.to_pylist()]
    choices = pa.array([*paths, []], pa.list_(pa.string()))
    return choices.take(encoded.indices.fill_null(len(paths)))


def _prices(texts: pa.Array) -> pa.Array:
    """[I] float32 of `n15360.000` or `15360.0`; null where the text is neither, or is negative."""
    bare = pc.utf8_ltrim(texts, characters="n")
    is_number = pc.match_substring_regex(bare, r"^[0-9]{1,15}(\.[0-9]+)?$")
    return pc.cast(pc.if_else(is_number, bare, None), pa.float32())


def _property_values(properties: pa.Table, place: np.ndarray, frequent: tuple[str, ...], num_items: int) -> pa.Array:
    """[I] lists of distinct `property=word`: a value of several words counts as all of them."""
    rows = _rows_of(properties, frequent)
    rows = rows[np.argsort(place[rows], kind="stable")]
    chosen = properties.take(rows)
    words = pc.split_pattern(pc.utf8_trim_whitespace(chosen["value"]), " ").combine_chunks()
    parents = pc.list_parent_indices(words).to_numpy()
    names = chosen["property"].combine_chunks().take(pa.array(parents))
    # two spaces in a row give an empty word, which is none
    is_word = pc.greater(pc.binary_length(words.flatten()), 0)
    pairs = pc.binary_join_element_wise(names, words.flatten(), "=").filter(is_word).dictionary_encode()
    owner = place[rows][parents][is_word.to_numpy(zero_copy_only=False)]
    keep = last_of_each([owner, pairs.indices.to_numpy()]) if len(owner) else np.empty(0, np.int64)
    offsets = np.r_[0, np.cumsum(np.bincount(owner[keep], minlength=num_items))]
    values = pairs.dictionary.take(pairs.indices.take(pa.array(keep)))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
