"""Tests the rows and figures of the synthetic shop, and that recommenders can learn from it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

from benchmarks.synthesize import TABLE, measure_shop
from preprocessing.synthetic import SynthesisConfig, synthesize
from preprocessing.synthetic import properties as synthetic_properties
from preprocessing.synthetic.departments import DEPARTMENTS, NUM_LOOKS, NUM_MATERIALS, SERIES
from preprocessing.synthetic.values import PropertyRows
from tests.preprocessing.synthetic.test_files import FILES

DAY_MS = 86_400_000
VISITORS = 20_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("synthetic") / "shop"
    synthesize(SynthesisConfig(visitors=VISITORS), str(directory))
    return directory


@pytest.fixture(scope="module")
def events(shop) -> pd.DataFrame:
    return pd.read_csv(shop / "events.csv", dtype={"transactionid": "Int64"})


@pytest.fixture(scope="module")
def properties(shop) -> pd.DataFrame:
    parts = [pd.read_csv(shop / name, dtype={"property": str, "value": str}) for name in FILES[2:]]
    return pd.concat(parts).sort_values("timestamp", kind="stable", ignore_index=True)


@pytest.fixture(scope="module")
def parents(shop) -> dict[int, int | None]:
    tree = pd.read_csv(shop / "category_tree.csv", dtype="Int64")
    return {
        node: None if pd.isna(parent) else parent for node, parent in zip(tree.categoryid, tree.parentid, strict=True)
    }


def test_headers_and_rows_have_retailrockets_format_except_for_titles(shop):
    properties = (
        "timestamp,itemid,property,value",
        r"\d{13},\d+,(\d+|available|categoryid),(n?\d+(\.000)?)( n?\d+(\.000)?)*|\d{13},\d+,title,[A-Z][A-Za-z' -]+",
    )
    formats = {
        "events.csv": (
            "timestamp,visitorid,event,itemid,transactionid",
            r"\d{13},\d+,(view|addtocart),\d+,|\d{13},\d+,transaction,\d+,\d+",
        ),
        "category_tree.csv": ("categoryid,parentid", r"\d+,\d*"),
        "item_properties_part1.csv": properties,
        "item_properties_part2.csv": properties,
    }
    for name in FILES:
        header, row = formats[name]
        lines = (shop / name).read_text().split("\n")
        assert lines[0] == header
        assert lines[-1] == ""
        assert all(re.fullmatch(row, line) for line in lines[1:-1])


# the event log


def test_the_log_is_unsorted_and_its_item_ids_have_gaps(events):
    assert not events.timestamp.is_monotonic_increasing
    # 235,061 of 466,868 ids are in Retailrocket's log
    assert events.itemid.nunique() / (events.itemid.max() + 1) == pytest.approx(0.503, abs=0.03)
    assert sorted(events.visitorid.unique()) == list(range(VISITORS))


def is_independent_of_size(name: str) -> bool:
    """Returns True if a figure is the same in shops of all sizes, such as a mean per visitor, item or session."""
    # extremes and numbers of categories shrink, and a buyer soon knows all items of a small shelf
    if name.startswith("top 1") or name in ("events per visitor: max", "buyer: distinct items"):
        return False
    return name.startswith(
        ("browser", "cart only", "buyer", "gap on", "events per visitor: m", "events per item: p")
    ) or name.endswith(("mean", "share", "one event: share", "median, s", "hour (UTC)", "weekend day"))


def test_a_small_shop_has_the_figures_that_do_not_depend_on_the_size(shop):
    names = [name for name in TABLE if is_independent_of_size(name)]
    figures = measure_shop(shop)
    for name in names:
        low, high = TABLE[name] if isinstance(TABLE[name], tuple) else (TABLE[name], TABLE[name])
        assert 0.8 * low <= figures[name] <= 1.2 * high, name
    assert len(names) > 25


def test_counts_are_in_proportion_to_the_visitors(shop):
    figures = measure_shop(shop)
    # 20,000 of 1,407,580 visitors: 1.421%
    for name in (
        "events",
        "carts",
        "transaction lines",
        "transactions",
        "items in events",
        "sessions",
        "property rows",
    ):
        assert figures[name] == pytest.approx(TABLE[name] * VISITORS / TABLE["visitors"], rel=0.12), name
    # 1,669 categories shrink with an exponent of 0.4: 1,669 * 0.0142 ** 0.4 = 304
    assert figures["categories"] == pytest.approx(304, abs=2)
    # 460 duplicates: 460 * 0.0142 = 6.5
    assert figures["exact duplicates"] in (6, 7)


def test_only_robots_have_more_than_200_events_on_a_day_or_in_total(events):
    by_day = events.groupby(["visitorid", events.timestamp // DAY_MS]).size()
    robots = by_day[by_day > 200].index.unique("visitorid")
    # 41,287 robot events shrink to 587: one robot
    assert len(robots) == 1
    counts = events.groupby("visitorid").size()
    assert counts[robots].sum() == pytest.approx(587, abs=3)
    assert counts.drop(robots).max() <= 200


def test_a_transaction_has_one_visitor_one_second_and_different_items(events):
    lines = events[events.event == "transaction"].drop_duplicates().groupby("transactionid")
    assert (lines.visitorid.nunique() == 1).all()
    assert (lines.timestamp.max() - lines.timestamp.min() < 1000).all()
    # an item repeats in an order only if there was no other item to swap it with
    assert (lines.itemid.nunique() == lines.size()).mean() > 0.95


# items, categories and properties


def path_to_root(node: int, parents: dict[int, int | None]) -> list[int]:
    path = [node]
    while (parent := parents[path[-1]]) is not None:
        assert len(path) < 10, "a cycle"
        path.append(parent)
    return path


def test_the_tree_has_six_levels_without_cycles_or_orphans(parents):
    assert {len(path_to_root(node, parents)) for node in parents} == {1, 2, 3, 4, 5, 6}


def test_every_category_of_an_item_is_a_node_of_the_tree(properties, parents):
    categories = properties[properties.property == "categoryid"].value.astype(int)
    assert set(categories) <= set(parents)


def test_a_property_has_a_row_for_its_first_value_and_for_each_change(properties):
    assert properties.timestamp.nunique() == 18
    assert not properties.duplicated(["timestamp", "itemid", "property"]).any()
    before = properties.groupby(["itemid", "property"]).value.shift()
    assert not (properties.value == before).any()


@pytest.mark.parametrize("name", ["790", "available", "categoryid"])
def test_prices_availability_and_categories_change(properties, name):
    rows = properties[properties.property == name].groupby("itemid").size()
    assert (rows > 1).mean() > 0.3
    if name != "790":
        assert (rows == 1).mean() > 0.1  # and some never do


def test_items_that_appear_late_have_a_category_before_their_first_event(events, properties):
    first_seen = events.groupby("itemid").timestamp.min()
    listed = properties[properties.property == "categoryid"].groupby("itemid").timestamp.min()
    late = first_seen[first_seen > events.timestamp.quantile(0.9)].to_frame("seen").join(listed.rename("listed"))
    assert len(late) > 100
    # 21% of the items in the log have no properties, and more of the rare items
    with_category = late.dropna()
    assert len(with_category) / len(late) > 0.5
    assert (with_category.listed < with_category.seen).all()


def test_items_with_the_same_style_word_have_the_same_visitors(events, properties):
    words = properties[properties.property == "283"].drop_duplicates("itemid").set_index("itemid").value.str.split()
    shelf, style = words.str[0], words.str[1]
    seen = events.drop_duplicates(["visitorid", "itemid"]).sort_values(["visitorid", "timestamp"], kind="stable")
    seen = seen.assign(shelf=seen.itemid.map(shelf), style=seen.itemid.map(style)).dropna(subset=["style"])
    follows = (seen.visitorid == seen.visitorid.shift()) & (seen["shelf"] == seen["shelf"].shift())
    together = (seen["style"] == seen["style"].shift())[follows].mean()
    shuffled = seen.groupby("shelf")["style"].transform(lambda part: part.sample(frac=1, random_state=0).to_numpy())
    by_chance = (shuffled == shuffled.shift())[follows].mean()
    assert together > 1.25 * by_chance


# titles


@pytest.fixture(scope="module")
def titles(properties) -> pd.DataFrame:
    """Returns the title rows of all items, with the words of each item's shelf and style."""
    words = properties[properties.property == "283"].drop_duplicates("itemid").set_index("itemid").value.str.split()
    rows = properties[properties.property == "title"]
    return rows.assign(shelf=rows.itemid.map(words.str[0]), style=rows.itemid.map(words.str[1]))


def test_each_item_has_one_title_in_its_first_snapshot(properties, titles):
    first = properties.groupby("itemid").timestamp.min()
    assert titles.set_index("itemid").timestamp.sort_index().equals(first)


def test_titles_are_distinct(titles):
    assert titles.value.is_unique


def test_the_items_of_a_shelf_are_one_product_and_those_of_a_style_have_one_look(titles):
    products = [department.product(n) for department in DEPARTMENTS for n in range(department.num_products)]
    # the product follows the look and the material, which contain no spaces
    product = titles.value.str.split(" ", n=2).str[2].str.replace(r" [A-Z][a-z]+$", "", regex=True)
    assert set(product) <= set(products)
    assert (product.groupby(titles.shelf).nunique() == 1).all()
    look = titles.value.str.split(" ").str[0]
    assert (look.groupby([titles.shelf, titles["style"]]).nunique() == 1).all()
    assert (look.groupby(titles.shelf).nunique() > 1).mean() > 0.9


def test_the_categories_below_a_root_sell_products_of_one_department(properties, titles, parents):
    department_of = {
        department.product(n): index
        for index, department in enumerate(DEPARTMENTS)
        for n in range(department.num_products)
    }
    product = titles.value.str.split(" ", n=2).str[2].str.replace(r" [A-Z][a-z]+$", "", regex=True)
    # the last category is the item's own
    last = properties[properties.property == "categoryid"].drop_duplicates("itemid", keep="last").set_index("itemid")
    root = titles.itemid.map(last.value).map(lambda category: path_to_root(int(category), parents)[-1])
    assert (product.map(department_of).groupby(root).nunique() == 1).all()


def test_titles_leave_all_other_rows_as_they_are(tmp_path, monkeypatch):
    synthesize(SynthesisConfig(visitors=500), str(tmp_path / "titled"))
    no_rows, no_text = np.empty(0, np.int64), pa.array([], pa.string())
    monkeypatch.setattr(
        synthetic_properties, "_title_rows", lambda *_: PropertyRows(no_rows, no_rows, no_text, no_text)
    )
    synthesize(SynthesisConfig(visitors=500), str(tmp_path / "untitled"))
    for name in ("events.csv", "category_tree.csv"):
        assert (tmp_path / "titled" / name).read_bytes() == (tmp_path / "untitled" / name).read_bytes()
    titled, untitled = (
        [line for part in FILES[2:] for line in (tmp_path / shop / part).read_text().splitlines()[1:]]
        for shop in ("titled", "untitled")
    )
    others = [line for line in titled if ",title," not in line]
    assert others == untitled
    assert len(titled) > len(others) > 1000


def test_the_words_of_titles_combine_without_repeats():
    products = [department.product(n) for department in DEPARTMENTS for n in range(department.num_products)]
    assert len(set(products)) == len(products)
    assert len(set(SERIES)) == len(SERIES)
    for department in DEPARTMENTS:
        assert len(set(department.looks)) == len(department.looks) == NUM_LOOKS
        assert len(set(department.materials)) == len(department.materials) == NUM_MATERIALS


# learning from the shop


def split_at_last_tenth(events: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the distinct pairs before a cut, and the same visitors' new pairs after the cut; excludes robots."""
    counts = events.groupby("visitorid").size()
    events = events[events.visitorid.map(counts) <= 200]
    is_late = events.timestamp >= events.timestamp.quantile(0.9)
    pairs = ["visitorid", "itemid"]
    before, after = (events[rows][pairs].drop_duplicates() for rows in (~is_late, is_late))
    after = after[after.visitorid.isin(before.visitorid)]
    new = after.merge(before, how="left", indicator="side")
    return before, new[new.side == "left_only"][pairs]


def ndcg_at_20(scores: np.ndarray, seen: sparse.csr_matrix, relevant: list[set[int]]) -> float:
    """Returns the mean NDCG@20 of the visitors, given scores [B, I]. Seen items are hidden."""
    discount = 1 / np.log2(np.arange(20) + 2)
    scores = np.where(seen.toarray() > 0, -np.inf, scores)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    hits = np.array([np.isin(row, list(items)) for row, items in zip(top, relevant, strict=True)])
    ideal = np.array([discount[: len(items)].sum() for items in relevant])
    return float(((hits * discount).sum(axis=1) / ideal).mean())


def test_recommenders_that_use_tastes_are_far_better_than_popularity(events, properties):
    before, after = split_at_last_tenth(events)
    num_items = int(max(events.itemid.max(), properties.itemid.max())) + 1
    ones = np.ones(len(before))
    history = sparse.csr_matrix((ones, (before.visitorid, before.itemid)), (VISITORS, num_items))
    popularity = np.asarray(history.sum(axis=0)).ravel()
    relevant = after.groupby("visitorid").itemid.agg(set)
    seen = history[relevant.index]

    cosine = history @ sparse.diags(1 / np.sqrt(np.maximum(popularity, 1)))
    alike = (cosine.T @ cosine).tolil()
    alike.setdiag(0)
    category = properties[properties.property == "categoryid"].drop_duplicates("itemid", keep="last")
    shelf = pd.Series(-1, index=range(num_items))
    shelf[category.itemid] = category.value.astype(int).to_numpy()
    in_category = sparse.csr_matrix((np.ones(num_items), (np.arange(num_items), shelf + 1)))

    tie_break = 1e-6 * popularity
    popular = ndcg_at_20(np.tile(popularity, (len(relevant), 1)), seen, list(relevant))
    item_knn = ndcg_at_20((seen @ alike.tocsr()).toarray() + tie_break, seen, list(relevant))
    interest = (seen @ in_category @ in_category.T).toarray()
    by_category = ndcg_at_20(interest * (popularity + 0.1), seen, list(relevant))
    assert len(relevant) > 100
    assert item_knn > 5 * popular
    assert by_category > 8 * popular
    assert item_knn > 0.12


def test_visitors_of_a_category_want_its_new_items(events, properties):
    before, after = split_at_last_tenth(events)
    cold = after[~after.itemid.isin(before.itemid)]
    category = properties[properties.property == "categoryid"].drop_duplicates("itemid", keep="last")
    category = category.set_index("itemid").value
    known = before.assign(category=before.itemid.map(category)).dropna()
    liked = known.groupby("visitorid").category.agg(set)
    cold = cold.assign(category=cold.itemid.map(category)).dropna()
    cold = cold[cold.visitorid.isin(liked.index)]
    hits = [row.category in liked[row.visitorid] for row in cold.itertuples()]
    # share of all items in the categories that the visitor knows
    by_chance = known.category.value_counts(normalize=True)
    chance = np.mean([by_chance.reindex(list(liked[visitor])).sum() for visitor in cold.visitorid])
    assert len(cold) > 10
    assert np.mean(hits) > 5 * chance
