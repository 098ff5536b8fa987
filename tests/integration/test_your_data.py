"""Each recipe of docs/your-data.md prepares its log, and a model trained on the dataset recommends."""

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import cartwheel
from common.settings import from_json
from preprocessing.config import PrepareConfig
from preprocessing.shop import read_shop

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ROOT.parent / "shared" / "data" / "formats"
PAGE = (ROOT / "docs" / "your-data.md").read_text()
RECIPES = dict(re.findall(r"<!-- recipe (\S+) -->\n```toml\n(.*?)```", PAGE, re.DOTALL))
ITEMS = dict(re.findall(r"<!-- items (\S+) -->\n```toml\n(.*?)```", PAGE, re.DOTALL))
# dropped kinds are no events of the dataset
DROPPED = {"own_kinds.tsv": {"events": 329, "kinds": {"purchase": 40, "View": 212, "wishlist": 39, "cart": 38}}}
# words that a recipe keeps as kinds, by the kinds of expected.json
OWN_WORDS = {
    "ga4_events.jsonl.gz": {"view": "view_item", "addtocart": "add_to_cart", "transaction": "purchase"},
    "otto.jsonl": {"view": "clicks", "addtocart": "carts", "transaction": "orders"},
}

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(not FORMATS.exists(), reason="needs ../shared/data/formats next to the checkout"),
]


def test_there_is_a_recipe_for_every_format() -> None:
    logs = json.loads((FORMATS / "expected.json").read_text())
    same_recipe = {"shop_de_utf16.csv"}
    assert set(RECIPES) | set(ITEMS) == set(logs) - same_recipe


def test_an_item_table_describes_the_items_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("transactions_train.csv", "articles.csv"):
        shutil.copy(FORMATS / name, tmp_path)
    (tmp_path / "shop.toml").write_text(RECIPES["transactions_train.csv"] + ITEMS["articles.csv"])
    cartwheel.prepare(shop="shop.toml", output="dataset")
    statistics = json.loads((tmp_path / "dataset" / "statistics.json").read_text())["catalogue"]
    expected = json.loads((FORMATS / "expected.json").read_text())["articles.csv"]
    assert statistics["items"] == statistics["with_title"] == statistics["with_category"] == expected["items"]
    assert set(statistics["kept_properties"]) == {"colour_group_name", "department_name", "detail_desc"}
    files = (tmp_path / "dataset" / "catalogue").iterdir()
    items = {row["item_id"]: row for file in files for row in pq.read_table(file).to_pylist()}
    assert items["0108775000"]["title"] == "Strap top 0"
    categories = (tmp_path / "dataset" / "vocabulary" / "categories.txt").read_text().split("\n")
    path = [categories[index] for index in items["0108775000"]["category_path"]]
    assert path == ["Garment Upper body", "Garment Upper body > Vest top"]


@pytest.mark.parametrize("name", [*RECIPES, "shop_de_utf16.csv"])
def test_a_recipe_leads_to_recommendations(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(FORMATS / name, tmp_path)
    recipe = RECIPES.get(name, RECIPES["shop_de.csv"].replace("shop_de.csv", name))
    (tmp_path / "shop.toml").write_text(recipe)
    prepared = cartwheel.prepare(shop="shop.toml", output="dataset")
    expected = json.loads((FORMATS / "expected.json").read_text())[name] | DROPPED.get(name, {})
    statistics = json.loads((tmp_path / "dataset" / "statistics.json").read_text())
    assert prepared["events"] == expected["events"]
    assert prepared["duplicates"] == prepared["robot_events"] == 0
    assert statistics["events"]["visitors"] == expected["visitors"]
    if expected["kinds"] is not None:
        words = dict(entry.rsplit("=", 1) for entry in from_json(PrepareConfig, read_shop("shop.toml")).kinds.words)
        words |= OWN_WORDS.get(name, {})
        kinds = {words.get(kind, kind): count for kind, count in expected["kinds"].items()}
        assert {kind: count for kind, count in statistics["events"]["by_kind"].items() if count} == kinds
    cartwheel.train("dataset", "run", preset="mf", settings={"epochs": 1, "model.dim": 8, "blend": False})
    cartwheel.recommend("run", "recommendations")
    assert list((tmp_path / "recommendations").iterdir())
