"""Reads availability and categories from a newer table of items."""

import json

import pytest

from contract.item_facts import ITEM_FACTS_SCHEMA
from preprocessing.item_facts import read_item_facts

TABLE = """sku,dept,type,stock
007,Clothing,Tops,in stock
8,Kitchen,,out_of_stock
9,Kitchen,Pans,
8,Kitchen,Mugs,sold out
"""
COLUMNS = {"id": "sku", "availability": "stock", "category": "dept,type"}


@pytest.fixture
def table(tmp_path):
    (tmp_path / "items.csv").write_text(TABLE)
    return str(tmp_path / "items.csv")


def by_id(facts):
    assert facts.schema == ITEM_FACTS_SCHEMA
    return {row.pop("item_id"): tuple(row.values()) for row in facts.to_pylist()}


EXPECTED = {
    "007": (True, "Clothing > Tops", ["Clothing", "Clothing > Tops"]),
    "9": (None, "Kitchen > Pans", ["Kitchen", "Kitchen > Pans"]),
    "8": (False, "Kitchen > Mugs", ["Kitchen", "Kitchen > Mugs"]),  # the last row of the item
}


def test_a_table_has_availability_and_category_path_of_each_item(table):
    assert by_id(read_item_facts(table, columns=COLUMNS)) == EXPECTED


def test_the_columns_are_those_of_the_shop_unless_they_are_given(table, tmp_path):
    (tmp_path / "shop.toml").write_text(
        'events = "events.csv"\n[item_table]\nfiles = "items.csv"\nid = "sku"\ntitle = "name"\n'
        'category = ["dept", "type"]\navailability = "gone"\nattributes = ["colour"]\n'
    )
    shop = str(tmp_path / "shop.toml")
    assert by_id(read_item_facts(shop=shop, columns={"availability": "stock"})) == EXPECTED
    with pytest.raises(ValueError, match="gone"):
        read_item_facts(shop=shop)


def test_json_lines_with_true_and_false_are_read_too(tmp_path):
    rows = [{"id": 1, "offer": {"available": True}}, {"id": 2, "offer": {"available": False}}, {"id": 3}]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    facts = read_item_facts(str(tmp_path / "items.jsonl"), columns={"id": "id", "availability": "offer.available"})
    assert by_id(facts) == {"1": (True, None, []), "2": (False, None, []), "3": (None, None, [])}


def test_unknown_words_cause_a_warning_with_examples(tmp_path, caplog):
    (tmp_path / "items.csv").write_text("id,stock\n1,yes\n2,soon\n3,soon\n4,later\n")
    facts = read_item_facts(str(tmp_path / "items.csv"), columns={"id": "id", "availability": "stock"})
    assert [row[0] for row in by_id(facts).values()] == [True, None, None, None]
    assert "3 rows of" in caplog.text
    assert "have an unknown word in `stock`, such as 'soon', 'later' (known words: 1 or 0, " in caplog.text
    assert "these items are treated as available" in caplog.text


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        ("id,stock\n1,12\n2,40\n", {"id": "id", "availability": "stock"}, "such as '12', '40' .known words: 1 or 0"),
        ("id,stock\n1,1\n", {"id": "sku", "availability": "stock"}, "sku"),
        ("id,stock\n1,1\n", {"id": "id"}, "neither the availability nor the category .* --map availability=COLUMN"),
        ("id,stock\n,1\n", {"id": "id", "availability": "stock"}, "no usable row; check .* that `id` is the column"),
        (
            "id,stock\n1,1\n,1\n",
            {"id": "id", "availability": "stock"},
            r"1 of 2 rows .* invalid: empty id: 1 .*; correct these rows",
        ),
        (
            "id,stock\n1,1\n",
            {"name": "id"},
            "--map has the unknown names name; it must have the form NAME=COLUMN with one of the names id",
        ),
    ],
)
def test_a_table_with_wrong_columns_or_values_is_refused(tmp_path, content, columns, message):
    (tmp_path / "items.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_item_facts(str(tmp_path / "items.csv"), columns=columns)


def test_a_shop_without_a_table_of_items_is_refused(tmp_path):
    (tmp_path / "shop.toml").write_text('events = "events.csv"\nitem_properties = "properties.csv"\n')
    with pytest.raises(
        ValueError, match=r"shop.toml has no item_table.files; give the table with --items FILE, or prep"
    ):
        read_item_facts(shop=str(tmp_path / "shop.toml"))


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file matches .*gone.csv"):
        read_item_facts(str(tmp_path / "gone.csv"), columns=COLUMNS)
