"""The synthetic shop: its files, its figures, and what can be learnt from it."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from benchmarks.synthesize import TABLE, measure_shop
from preprocessing.synthetic import SynthesisConfig, files, synthesize
from preprocessing.synthetic.draws import (
    apportion,
    draw_weighted,
    group_starts,
    place_in_group,
    power_law_counts,
    stratified,
    tail_quantiles,
)

FILES = ["category_tree.csv", "events.csv", "item_properties_part1.csv", "item_properties_part2.csv"]
BEGIN_MS = 1_430_622_004_384  # 2015-05-03 03:00:04.384 UTC
END_MS = 1_442_545_187_788  # 2015-09-18 02:59:47.788 UTC
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


# files


def digest(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        synthesize(SynthesisConfig(visitors=500, seed=seed), str(tmp_path / name))
    first, again, other = (digest(tmp_path / name) for name in "abc")
    assert sorted(first) == FILES
    assert first == again
    assert all(first[name] != other[name] for name in FILES)


@pytest.mark.parametrize("visitors", [1, 49])
def test_a_shop_of_a_few_visitors_is_refused_with_the_least_number(visitors):
    with pytest.raises(ValueError, match=f"at least 50 visitors.*got {visitors}"):
        SynthesisConfig(visitors=visitors)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        SynthesisConfig(visitors=50, seed=-1)


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_shop_has_every_kind_of_event_and_every_file(tmp_path, seed):
    summary = synthesize(SynthesisConfig(visitors=50, seed=seed), str(tmp_path / "shop"))
    log = pd.read_csv(summary["events"])
    assert log.visitorid.nunique() == 50
    assert set(log.event) == {"view", "addtocart", "transaction"}
    assert [log.timestamp.min(), log.timestamp.max()] == [BEGIN_MS, END_MS]
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == FILES


def test_the_summary_counts_what_the_files_hold(tmp_path):
    summary = synthesize(SynthesisConfig(visitors=300), str(tmp_path / "shop"))
    log = pd.read_csv(summary["events"])
    told = pd.concat(pd.read_csv(path) for path in (tmp_path / "shop").glob("item_properties_part*.csv"))
    assert summary["event_rows"] == log.event.value_counts().to_dict()
    assert summary["items_in_events"] == log.itemid.nunique()
    assert summary["items_with_properties"] == told.itemid.nunique()
    assert summary["property_rows"] == len(told)
    assert summary["categories"] == len(pd.read_csv(summary["category_tree"]))


def test_an_output_that_holds_something_is_left_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty"):
        synthesize(SynthesisConfig(visitors=50), str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_shop_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files, "_write_properties", fail)
    with pytest.raises(OSError, match="disk full"):
        synthesize(SynthesisConfig(visitors=50), str(tmp_path / "shop"))
    assert list(tmp_path.iterdir()) == []


def test_the_headers_and_rows_read_as_retailrockets(shop):
    row = {
        "events.csv": r"\d{13},\d+,(view|addtocart),\d+,|\d{13},\d+,transaction,\d+,\d+",
        "category_tree.csv": r"\d+,\d*",
        "item_properties_part1.csv": r"\d{13},\d+,(\d+|available|categoryid),(n?\d+(\.000)?)( n?\d+(\.000)?)*",
    }
    row["item_properties_part2.csv"] = row["item_properties_part1.csv"]
    header = {
        "events.csv": "timestamp,visitorid,event,itemid,transactionid",
        "category_tree.csv": "categoryid,parentid",
        "item_properties_part1.csv": "timestamp,itemid,property,value",
        "item_properties_part2.csv": "timestamp,itemid,property,value",
    }
    for name in FILES:
        lines = (shop / name).read_text().split("\n")
        assert lines[0] == header[name]
        assert lines[-1] == ""
        assert all(re.fullmatch(row[name], line) for line in lines[1:-1])


# the event log


def test_the_log_is_not_in_order_of_time_and_its_item_ids_have_gaps(events):
    assert not events.timestamp.is_monotonic_increasing
    # 235,061 of 466,868 ids are in Retailrocket's log
    assert events.itemid.nunique() / (events.itemid.max() + 1) == pytest.approx(0.503, abs=0.03)
    assert sorted(events.visitorid.unique()) == list(range(VISITORS))


def test_figures_that_do_not_depend_on_the_size_hold_in_a_small_shop(shop):
    # of the full size's benchmark: means and shares a visitor, item or session; extremes and kinds of things shrink,
    # and a buyer soon knows all of a small shelf
    names = [
        name
        for name in TABLE
        if name.startswith(("browser", "cart only", "buyer", "gap on", "events a visitor: m", "events an item: p"))
        or name.endswith(("mean", "share", "one event: share", "median, s", "hour (UTC)", "weekend day"))
    ]
    names = [
        name
        for name in names
        if not name.startswith("top 1") and name not in ("events a visitor: max", "buyer: distinct items")
    ]
    figures = measure_shop(shop)
    for name in names:
        low, high = TABLE[name] if isinstance(TABLE[name], tuple) else (TABLE[name], TABLE[name])
        assert 0.8 * low <= figures[name] <= 1.2 * high, name
    assert len(names) > 25


def test_counts_shrink_with_the_visitors(shop):
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
    # 1,669 categories shrink with the power 0.4: 1,669 * 0.0142 ** 0.4 = 304
    assert figures["categories"] == pytest.approx(304, abs=2)
    # 460 duplicates: 460 * 0.0142 = 6.5
    assert figures["exact duplicates"] in (6, 7)


def test_a_robot_has_more_than_200_events_on_a_day_and_nobody_else_has_as_many_in_all(events):
    by_day = events.groupby(["visitorid", events.timestamp // DAY_MS]).size()
    robots = by_day[by_day > 200].index.unique("visitorid")
    # 41,287 robot events shrink to 587: one robot
    assert len(robots) == 1
    counts = events.groupby("visitorid").size()
    assert counts[robots].sum() == pytest.approx(587, abs=3)
    assert counts.drop(robots).max() <= 200


def test_the_lines_of_a_transaction_are_one_visitors_within_a_second_and_of_different_items(events):
    lines = events[events.event == "transaction"].drop_duplicates().groupby("transactionid")
    assert (lines.visitorid.nunique() == 1).all()
    assert (lines.timestamp.max() - lines.timestamp.min() < 1000).all()
    # an item comes twice in an order only where no other could be found for the visitor
    assert (lines.itemid.nunique() == lines.size()).mean() > 0.95


# items, categories and properties


def path_to_root(node: int, parents: dict[int, int | None]) -> list[int]:
    path = [node]
    while (parent := parents[path[-1]]) is not None:
        assert len(path) < 10, "a cycle"
        path.append(parent)
    return path


def test_the_tree_has_no_cycle_no_orphan_and_at_most_six_levels(parents):
    assert {len(path_to_root(node, parents)) for node in parents} == {1, 2, 3, 4, 5, 6}


def test_every_category_of_an_item_is_a_node_of_the_tree(properties, parents):
    told = properties[properties.property == "categoryid"].value.astype(int)
    assert set(told) <= set(parents)


def test_a_property_has_a_row_when_it_is_first_told_and_then_only_when_its_value_changes(properties):
    assert properties.timestamp.nunique() == 18
    assert not properties.duplicated(["timestamp", "itemid", "property"]).any()
    before = properties.groupby(["itemid", "property"]).value.shift()
    assert not (properties.value == before).any()


@pytest.mark.parametrize("name", ["790", "available", "categoryid"])
def test_prices_availability_and_categories_change_after_they_are_first_told(properties, name):
    rows = properties[properties.property == name].groupby("itemid").size()
    assert (rows > 1).mean() > 0.3
    if name != "790":
        assert (rows == 1).mean() > 0.1  # and some never do


def test_items_first_seen_late_are_listed_with_a_category_before(events, properties):
    first_seen = events.groupby("itemid").timestamp.min()
    listed = properties[properties.property == "categoryid"].groupby("itemid").timestamp.min()
    late = first_seen[first_seen > events.timestamp.quantile(0.9)].to_frame("seen").join(listed.rename("listed"))
    assert len(late) > 100
    # 21% of the items in the log have no properties at all, among rare ones more
    told = late.dropna()
    assert len(told) / len(late) > 0.5
    assert (told.listed < told.seen).all()


def test_items_that_share_the_word_for_their_style_are_seen_by_the_same_visitors(events, properties):
    words = properties[properties.property == "283"].drop_duplicates("itemid").set_index("itemid").value.str.split()
    shelf, style = words.str[0], words.str[1]
    seen = events.drop_duplicates(["visitorid", "itemid"]).sort_values(["visitorid", "timestamp"], kind="stable")
    seen = seen.assign(shelf=seen.itemid.map(shelf), style=seen.itemid.map(style)).dropna(subset=["style"])
    follows = (seen.visitorid == seen.visitorid.shift()) & (seen["shelf"] == seen["shelf"].shift())
    together = (seen["style"] == seen["style"].shift())[follows].mean()
    shuffled = seen.groupby("shelf")["style"].transform(lambda part: part.sample(frac=1, random_state=0).to_numpy())
    by_chance = (shuffled == shuffled.shift())[follows].mean()
    assert together > 1.25 * by_chance


# what can be learnt


def split_at_last_tenth(events: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Distinct pairs before the cut, and the new pairs after it of visitors seen before; robots are left out."""
    counts = events.groupby("visitorid").size()
    events = events[events.visitorid.map(counts) <= 200]
    is_late = events.timestamp >= events.timestamp.quantile(0.9)
    pairs = ["visitorid", "itemid"]
    before, after = (events[rows][pairs].drop_duplicates() for rows in (~is_late, is_late))
    after = after[after.visitorid.isin(before.visitorid)]
    new = after.merge(before, how="left", indicator="side")
    return before, new[new.side == "left_only"][pairs]


def ndcg_at_20(scores: np.ndarray, seen: sparse.csr_matrix, relevant: list[set[int]]) -> float:
    """Mean over visitors; scores [B, I], items seen before are hidden."""
    discount = 1 / np.log2(np.arange(20) + 2)
    scores = np.where(seen.toarray() > 0, -np.inf, scores)
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    hits = np.array([np.isin(row, list(items)) for row, items in zip(top, relevant, strict=True)])
    ideal = np.array([discount[: len(items)].sum() for items in relevant])
    return float(((hits * discount).sum(axis=1) / ideal).mean())


def test_a_recommender_that_knows_tastes_beats_popularity_by_far(events, properties):
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


def test_a_new_item_is_wanted_by_visitors_of_its_category(events, properties):
    before, after = split_at_last_tenth(events)
    cold = after[~after.itemid.isin(before.itemid)]
    category = properties[properties.property == "categoryid"].drop_duplicates("itemid", keep="last")
    category = category.set_index("itemid").value
    known = before.assign(category=before.itemid.map(category)).dropna()
    liked = known.groupby("visitorid").category.agg(set)
    cold = cold.assign(category=cold.itemid.map(category)).dropna()
    cold = cold[cold.visitorid.isin(liked.index)]
    hits = [row.category in liked[row.visitorid] for row in cold.itertuples()]
    # the share of all items that lie in a category a visitor knows
    by_chance = known.category.value_counts(normalize=True)
    chance = np.mean([by_chance.reindex(list(liked[visitor])).sum() for visitor in cold.visitorid])
    assert len(cold) > 10
    assert np.mean(hits) > 5 * chance


# draws


def test_apportion_gives_each_group_its_total_in_proportion():
    # group 0 gives 10 in the proportions 1:3:1 (2, 6, 2); group 1 gives 3 to the only one with weight
    counts = apportion(np.array([1.0, 3.0, 1.0, 0.0, 5.0]), np.array([0, 0, 0, 1, 1]), np.array([10, 3]))
    assert counts.tolist() == [2, 6, 2, 0, 3]


def test_apportion_keeps_within_one_of_the_exact_share_and_ends_each_group_on_its_total():
    random = np.random.default_rng(3)
    group = np.sort(random.integers(0, 40, 5000))
    weights, totals = random.lognormal(size=5000), random.integers(0, 900, 40)
    counts = apportion(weights, group, totals)
    exact = weights / np.bincount(group, weights)[group] * totals[group]
    assert np.bincount(group, counts).tolist() == totals.tolist()
    assert np.abs(counts - exact).max() < 1


def test_power_law_counts_have_the_tail_they_promise():
    counts = power_law_counts((np.arange(10_000) + 0.5) / 10_000, 2.0, largest=50)
    # P(count > n) = (n + 1) ** -2: 2,500 of 10,000 above 1, and 1,111 above 2
    assert [(counts > 1).sum(), (counts > 2).sum()] == [2500, 1111]
    assert [counts.min(), counts.max()] == [1, 50]


def test_tail_quantiles_meet_their_knots_and_follow_a_power_law_between():
    knots = ((1, 0.5), (4, 0.125))
    # P(X > 2) halfway in the logarithm between 0.5 and 0.125: 0.25
    assert tail_quantiles(np.array([0.1, 0.5, 0.75, 0.875, 0.99]), knots) == pytest.approx([1, 1, 2, 4, 4])


def test_stratified_numbers_fall_one_into_each_interval():
    numbers = stratified(8, np.random.default_rng(0))
    assert sorted(numbers * 8 - 0.5) == pytest.approx(range(8))


def test_draw_weighted_follows_the_weights_and_skips_what_has_none():
    # cumulative 1, 1, 4: the first quarter goes to place 0, the rest to place 2
    assert draw_weighted(np.array([1, 0, 3]), np.array([0, 0.24, 0.25, 0.99])).tolist() == [0, 0, 2, 2]


def test_groups_are_laid_end_to_end():
    assert group_starts(np.array([2, 0, 3])).tolist() == [0, 2, 2]
    assert place_in_group(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]
