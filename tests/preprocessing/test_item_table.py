"""Reads a table with one row per item as item properties, and joins it with the events."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.columns import encode_columns
from preprocessing.config import ItemTableConfig, PrepareConfig, PropertyConfig
from preprocessing.item_table import ItemTableMapping, parse_item_table, resolve_types
from preprocessing.pipeline import prepare
from preprocessing.reading import check_join, check_property_names, warn_of_repeated_items
from preprocessing.sources.formats import open_files
from preprocessing.sources.source import read_batches
from tests.preprocessing.shop import plain_events, write_events

TABLE = """id,name,group,type,cost,stock,colour,weight,text
007,"Strap top, 0",Clothing,Tops,"9,99",in stock,Dark Blue,120,"soft cotton
with narrow straps"
8,Mug,Kitchen,,4.5,out of stock,,95,a mug that keeps the coffee hot
9,Pan,Kitchen,Pans > Small,,maybe,Red,,steel
,Nameless,Kitchen,,1,1,Red,1,nothing
"""

CONFIG = ItemTableConfig(
    files="items.csv",
    id="id",
    title="name",
    category=("group", "type"),
    price="cost",
    availability="stock",
    attributes=("colour", "weight", "text"),
)


def parse(tmp_path, content: str, config: ItemTableConfig = CONFIG):
    (tmp_path / "items.csv").write_text(content)
    mapping = ItemTableMapping(config, PropertyConfig(price="price"))
    parts, _ = open_files(str(tmp_path / "items.csv"), config.format, mapping.paths, has_line_breaks=True)
    (batch,) = read_batches(parts)
    table, summary, rejects = parse_item_table(batch, resolve_types(mapping, batch.columns))
    found: dict[str, dict[str, str]] = {}
    for row in table.to_pylist():
        found.setdefault(row["item"], {})[row["property"]] = row["value"]
    return found, summary, rejects


def test_each_column_becomes_a_property(tmp_path):
    found, summary, rejects = parse(tmp_path, TABLE)
    assert found["007"] == {
        "title": "Strap top, 0",
        "categoryid": "Clothing > Tops",
        "price": "9.9900",
        "available": "1",
        "colour": "dark_blue",  # one value
        "weight": "e10",  # log10(120) × 5 is 10.4
        "text": "soft cotton with narrow straps",  # words
    }
    # an empty price, colour or type is unknown, and so is an availability that is neither
    assert found["8"] == {
        "title": "Mug",
        "categoryid": "Kitchen",
        "price": "4.5000",
        "available": "0",
        "weight": "e10",
        "text": "a mug that keeps the coffee hot",
    }
    assert found["9"]["categoryid"] == "Kitchen > Pans > Small"
    assert "available" not in found["9"]
    assert (summary.rows, rejects.reasons) == (4, ["empty id"])


def test_a_row_with_a_wrong_number_of_fields_is_rejected(tmp_path):
    found, _, rejects = parse(tmp_path, "id,name\n1,Mug\n2,Pan,9\n", ItemTableConfig(id="id", title="name"))
    assert found == {"1": {"title": "Mug"}}
    assert (rejects.reasons, rejects.texts) == (["wrong number of fields"], ["2,Pan,9"])


def test_a_table_without_a_row_with_the_right_number_of_fields_is_rejected(tmp_path):
    found, _, rejects = parse(tmp_path, "id,name\n2,Pan,9\n", ItemTableConfig(id="id", title="name"))
    assert (found, rejects.reasons) == ({}, ["wrong number of fields"])


@pytest.mark.parametrize(
    ("separator", "path"),
    [
        ("/", "Home / T-Shirts/Mugs"),
        ("/", "/Home/T-Shirts/Mugs/"),
        ("->", "Home -> T-Shirts -> Mugs"),
        ("::", "Home::T-Shirts::Mugs"),
        ("^", "Home^T-Shirts^Mugs"),
        (" > ", "Home>T-Shirts > Mugs"),
    ],
)
def test_one_column_may_have_the_whole_path(separator, path, tmp_path):
    config = ItemTableConfig(id="id", category=("path",), separator=separator)
    found, _, _ = parse(tmp_path, f"id,path\n1,{path}\n", config)
    assert found["1"]["categoryid"] == "Home > T-Shirts > Mugs"


def test_a_missing_category_ends_the_path(tmp_path):
    config = ItemTableConfig(id="id", category=("a", "b", "c"))
    found, _, _ = parse(tmp_path, "id,a,b,c\n1,Home,,Mugs\n2,,Kitchen,Mugs\n3,Home,Kitchen,\n", config)
    paths = {item: row.get("categoryid") for item, row in found.items()}
    assert paths == {"1": "Home", "3": "Home > Kitchen"}


def test_numbers_that_are_not_finite_are_unknown(tmp_path):
    config = ItemTableConfig(id="id", price="p", attributes=("n",))
    found, _, _ = parse(tmp_path, "id,p,n\n1,1e999,1e999\n2,3,4\n", config)
    assert found == {"2": {"price": "3.0000", "n": "e3"}}


def test_a_column_of_lists_is_an_error(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"id": 1, "tags": ["a", "b"]}\n')
    mapping = ItemTableMapping(ItemTableConfig(id="id", attributes=("tags",)), PropertyConfig())
    parts, _ = open_files(str(tmp_path / "items.jsonl"), CONFIG.format, mapping.paths)
    (batch,) = read_batches(parts)
    with pytest.raises(ValueError, match=r"`tags` has values of type list.*, not single values"):
        resolve_types(mapping, batch.columns)


def test_a_damaged_table_is_an_error_with_its_path(tmp_path):
    rows = "".join(f"{n},{n * 7919 % 10007}\n" for n in range(50_000))
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(f"id,name\n{rows}".encode())[:-5000])
    parts, _ = open_files(str(tmp_path / "items.csv.gz"), CONFIG.format, ["id"], has_line_breaks=True)
    with pytest.raises(ValueError, match=r"items.csv.gz cannot be read after row 0: Compressed file ended"):
        list(read_batches(parts))


def test_a_row_has_a_limit(tmp_path):
    """An unpaired quote makes the rest of the file one field."""
    (tmp_path / "items.csv").write_bytes(b'id,name\n1,Cup\n2,"' + b"x" * (17 << 20))
    parts, _ = open_files(str(tmp_path / "items.csv"), CONFIG.format, ["id"], has_line_breaks=True)
    with pytest.raises(ValueError, match=r"items.csv has a row of more than 8 MiB after row \d; add the missing quote"):
        list(read_batches(parts))


@pytest.mark.parametrize("row", [b"2,M\xfcg", b"2\xfc"])
def test_a_table_that_is_not_utf8_is_an_error_that_asks_for_its_encoding(tmp_path, row):
    (tmp_path / "items.csv").write_bytes(b"id,name\n1,Cup\n" + row + b"\n")
    parts, _ = open_files(str(tmp_path / "items.csv"), CONFIG.format, ["id"], has_line_breaks=True)
    with pytest.raises(ValueError, match=r"items.csv is not valid utf-8 after row 0; .*format\.encoding=cp1252"):
        list(read_batches(parts))


def test_the_last_row_of_an_item_wins(tmp_path):
    found, _, _ = parse(tmp_path, "id,name\n1,Mug\n1,Cup\n", ItemTableConfig(id="id", title="name"))
    assert found["1"]["title"] == "Cup"


def test_the_catalogue_has_titles_paths_prices_and_features(tmp_path, caplog):
    events = write_events(tmp_path / "events.csv", *plain_events(60))
    rows = "".join(f"i{n},Item {n},Shop,Shelf {n % 2},{n + 1}.5,yes,red wine\n" for n in range(4))
    repeated = "i1,Item 1,,,,,\n"
    (tmp_path / "items.csv").write_text(f"id,name,a,b,cost,stock,colour\n{rows}{repeated}")
    table = ItemTableConfig(
        files=str(tmp_path / "items.csv"),
        id="id",
        title="name",
        category=("a", "b"),
        price="cost",
        availability="stock",
        attributes=("colour",),
    )
    prepare(PrepareConfig(events=events, item_table=table), str(tmp_path / "dataset"))
    assert "the item table has 5 rows, but describes 4 items; the other rows repeat an id" in caplog.text
    (file,) = (tmp_path / "dataset" / "catalogue").iterdir()
    catalogue = {row["item_id"]: row for row in pq.read_table(file).to_pylist()}
    assert catalogue["i1"]["title"] == "Item 1"
    assert catalogue["i1"]["is_available"]
    vocabulary = (tmp_path / "dataset" / "vocabulary" / "categories.txt").read_text().split("\n")
    assert [vocabulary[index] for index in catalogue["i1"]["category_path"]] == ["Shop", "Shop > Shelf 1"]
    manifest = json.loads((tmp_path / "dataset" / "manifest.json").read_text())
    assert manifest["config"]["item_table"]["title"] == "name"


def test_a_table_with_one_row_per_item_is_no_warning(caplog):
    warn_of_repeated_items(2, counts(a=0, b=0))
    assert not caplog.text


def test_a_table_and_properties_together_are_refused():
    with pytest.raises(ValueError, match=r"give either item_table\.files, or item_properties with a category_tree"):
        PrepareConfig(events="e.csv", item_properties="p.csv", item_table=ItemTableConfig(files="i.csv"))


def counts(**of: int) -> bytes:
    return encode_columns(pa.table({"id": list(of), "count": list(of.values())}))


def test_events_of_other_items_are_a_warning_and_of_no_item_an_error(caplog):
    items = counts(a=0, b=0)
    check_join(counts(a=5, c=5), items)
    assert not caplog.text
    check_join(counts(a=4, c=6), items)
    assert "contain the items of only 40.0% of the training events" in caplog.text
    assert "have item ids such as `c`, but the properties or the table have ids such as `a`, `b`" in caplog.text
    with pytest.raises(
        ValueError, match=r"no item of the training events.*use the same ids in all files, or leave out"
    ):
        check_join(counts(c=1), items)


def test_a_property_that_no_item_has_is_refused_if_the_settings_name_it(caplog):
    found = encode_columns(pa.table({"id": ["cost", "categoryid", "colour"], "count": [7, 9, 7]}))
    check_property_names(found, PropertyConfig(price="cost"))
    assert caplog.messages == [
        "no item property gives the availability (`available`), so all items lack it; if the shop uses another name "
        "for the property, set properties.availability"
    ]
    message = (
        "properties.availability is `stock` and properties.price is `prise`, but no item has such a property; use "
        "one of the properties found: `categoryid`, `colour`, `cost`"
    )
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_property_names(found, PropertyConfig(price="prise", availability="stock"))
