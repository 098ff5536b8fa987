"""Builds catalogue rows from item properties and the category tree, as known at a time."""

import numpy as np
import pyarrow as pa
import pytest

from preprocessing import catalogue
from preprocessing.catalogue import (
    assemble_items,
    build_tree,
    category_paths,
    choose_properties,
    count_category_events,
    describe_partition,
    merge_properties,
    parse_properties,
)
from preprocessing.columns import encode_columns
from preprocessing.config import FormatConfig, PropertyConfig
from preprocessing.sources.formats import open_files
from preprocessing.sources.source import read_batches
from preprocessing.vocabularies import count_no_events, kind_columns
from tests.preprocessing.shop import write_lines

T = 1_440_000_000_000
CUT = T + 1000


def as_of_cut(tmp_path, *lines: str) -> dict[tuple[str, str], str]:
    """Returns the value of each (item, property) before CUT; the lines are written alternately to two files."""
    for number in range(2):
        write_lines(tmp_path / f"p{number}.csv", "timestamp,itemid,property,value", *lines[number::2])
    files, _ = open_files(str(tmp_path / "p*.csv"), FormatConfig(), catalogue.PROPERTY_COLUMNS)
    parts = [parse_properties(batch, CUT)[0] for batch in read_batches(files)]
    rows = merge_properties(pa.concat_tables(parts)).to_pylist()
    found = {(row["item"], row["property"]): row["value"] for row in rows}
    assert len(found) == len(rows), "one row per item and property"
    return found


def test_a_property_has_its_latest_value_before_the_cut(tmp_path):
    found = as_of_cut(
        tmp_path,
        f"{T + 500},i,price,2",
        f"{T},i,price,1",
        f"{CUT},i,price,3",  # the cut itself is too late
        f"{CUT + 1},i,price,4",
        f"{CUT + 1},j,price,9",  # not known before the cut
        f"{T},i,colour,red",
    )
    assert found == {("i", "price"): "2", ("i", "colour"): "red"}


def test_the_later_row_of_two_values_with_the_same_time_is_used(tmp_path):
    assert as_of_cut(tmp_path, f"{T},i,p,first file", f"{T},i,p,second file", f"{T},i,p,first file again") == {
        ("i", "p"): "second file"
    }


def test_a_title_with_commas_quotes_and_spaces_is_read_unchanged(tmp_path):
    found = as_of_cut(
        tmp_path,
        f'{T},i,title,"Sneakers, blue  canvas, size 40"',
        f'{T},j,title,"Tablet, 10"" screen"',
        f"{T},k,title, Kids' boots ",
        f"{T},l,title,n552.000",
    )
    assert found == {
        ("i", "title"): "Sneakers, blue  canvas, size 40",
        ("j", "title"): 'Tablet, 10" screen',
        ("k", "title"): " Kids' boots ",
        ("l", "title"): "n552.000",
    }


def test_properties_with_a_role_are_not_kept_as_values():
    counts = pa.table({"id": ["title", "888", "name", "790", "6"], "count": [9, 8, 7, 6, 5]})
    encoded = encode_columns(counts)
    assert choose_properties(encoded, PropertyConfig()) == ("888", "name", "6")
    assert choose_properties(encoded, PropertyConfig(title="name")) == ("title", "888", "6")


def test_paths_start_at_the_root_despite_cycles_and_orphans():
    tree = build_tree(["1", "2", "3", "7", "8", "9", "5"], ["", "1", "2", "8", "9", "7", "404"])
    assert tree.paths["3"] == ("1", "2", "3")
    assert tree.paths["5"] == ("5",), "its parent 404 is not in the tree"
    # 7 → 8 → 9 → 7: each path ends before it repeats
    assert tree.paths["7"] == ("9", "8", "7")
    assert (tree.num_cycles, tree.num_orphans) == (3, 1)


@pytest.mark.parametrize("order", [1, -1], ids=["parents first", "children first"])
def test_a_tree_has_at_most_100_levels(order):
    chain = [str(n) for n in range(100)]
    parents = ["", *chain]
    assert build_tree(chain[::order], parents[:-1][::order]).paths["99"] == tuple(chain)
    deep = [*chain, "100"]
    with pytest.raises(ValueError, match="category 100 is more than 100 levels deep in the category tree"):
        build_tree(deep[::order], parents[::order])
    with pytest.raises(ValueError, match="more than 100 levels"):  # a cycle
        build_tree(deep[::order], ["100", *chain][::order])


def test_a_path_in_the_id_of_a_category_has_at_most_100_levels():
    (path,) = category_paths(pa.array([" > ".join("a" * 1000)]), build_tree([], [])).to_pylist()
    assert (len(path), path[:2], len(path[-1])) == (100, ["a", "a > a"], len(" > ".join("a" * 1000)))


def test_a_path_into_a_cycle_ends_there():
    # b and c are each other's parents; a is below b
    tree = build_tree(["a", "b", "c"], ["b", "c", "b"])
    assert tree.paths == {"a": ("c", "b", "a"), "b": ("c", "b"), "c": ("b", "c")}
    assert tree.num_cycles == 2


def test_the_last_row_of_a_category_is_used():
    tree = build_tree(["1", "2", "2"], ["", "", "1"])
    assert (tree.paths["2"], tree.num_repeated) == (("1", "2"), 1)


def items(*ids: str) -> pa.Table:
    size = len(ids)
    columns = {name: pa.array([5] * size, pa.int64()) for name in kind_columns(2)}
    seen = {name: pa.array([T] * size, pa.int64()) for name in ("first_seen_ms", "last_seen_ms")}
    return pa.table({"id": pa.array(ids), "index": pa.array(np.arange(size)), **columns, **seen})


def without_vocabulary(*ids: str) -> pa.Table:
    rows = count_no_events(pa.chunked_array([pa.array(ids)]), 2).drop_columns("count")
    return rows.add_column(1, "index", pa.array([-1] * len(rows), pa.int64()))


def properties(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.table(dict(zip(("item", "property", "value"), map(list, zip(*rows, strict=True)), strict=True)))


def test_items_get_typed_properties_and_words_and_items_without_properties_are_kept():
    rows = assemble_items(
        properties(
            ("a", "categoryid", "20"),
            ("a", "available", "1"),
            ("a", "790", "n1500.250"),
            ("a", "888", "red  n5.000 red"),
            ("b", "888", ""),
            ("b", "categoryid", ""),
            ("a", "6", "x"),
            ("a", "7", "not kept"),
            ("z", "categoryid", "99"),
            ("z", "available", "maybe"),
            ("z", "790", "cheap"),
            ("a", "title", 'Blue "canvas"  sneakers, size 40'),
            ("b", "title", ""),
            ("z", "title", "n552.000"),
        ),
        pa.concat_tables([items("a", "b"), without_vocabulary("z")]),
        PropertyConfig(),
        ("888", "6"),
        build_tree(["10", "20"], ["", "10"]),
    ).to_pylist()
    by_id = {row["item_id"]: row for row in rows}
    assert list(by_id) == ["a", "b", "z"]
    a, b, z = by_id.values()
    assert (a["item_index"], a["category_path"], a["is_available"], a["price"]) == (0, ["10", "20"], True, 1500.25)
    assert sorted(a["property_values"]) == ["6=x", "888=n5.000", "888=red"]
    assert (b["item_index"], b["category_id"], b["category_path"], b["price"], b["property_values"]) == (
        1,
        None,
        [],
        None,
        [],
    )
    assert b["event_counts"] == [5, 5]
    # a title is text, whatever it looks like; an empty one is unknown
    assert [row["title"] for row in (a, b, z)] == ['Blue "canvas"  sneakers, size 40', None, "n552.000"]
    # z is known from its properties only; its category is not in the tree, its availability and price are invalid
    assert (z["item_index"], z["category_path"], z["is_available"], z["price"]) == (-1, ["99"], None, None)
    assert (z["event_counts"], z["first_seen_ms"]) == ([0, 0], None)


def test_only_a_tree_can_lack_a_category():
    rows = pa.chunked_array([["10", None, "99", "10"]])
    columns = {"category_id": rows, "item_index": [0, 1, 2, -1], "title": ["a", None, None, None]}
    columns |= {"price": [1.0, None, None, None], "is_available": [True, None, False, None]}
    catalogued = pa.table(columns | {"first_seen_ms": pa.array([T, None, T, None])})
    for tree, outside in ((build_tree([], []), 0), (build_tree(["10"], [""]), 1)):
        found = describe_partition(catalogued, None, PropertyConfig(), tree)
        assert (found["with_category"], found["with_category_outside_tree"]) == (3, outside)


def test_all_events_of_the_items_of_a_category_are_counted():
    rows = pa.table(
        {"category_id": ["10", None, "20", "10"], "event_counts": pa.array([[1, 2], [9, 9], [0, 4], [3, 0]])}
    )
    counted = count_category_events(rows).to_pylist()
    # 1 + 2 + 3 + 0; the item without a category counts nowhere
    assert counted == [{"id": "10", "count": 6}, {"id": "20", "count": 4}]


def test_a_shop_without_properties_has_items_without_values():
    rows = assemble_items(None, items("a"), PropertyConfig(), (), build_tree([], [])).to_pylist()
    assert [(row["item_id"], row["title"], row["category_path"], row["price"]) for row in rows] == [
        ("a", None, [], None)
    ]
