"""Tests which items are on offer, by availability, denied ids and categories."""

import pyarrow as pa
import pytest

from contract.item_facts import ITEM_FACTS_SCHEMA
from tests.trainer.dataset_builder import build_dataset
from trainer.data.id_files import read_ids
from trainer.data.offer import (
    OfferRules,
    available_items,
    dataset_offer,
    find_offer,
    make_rules,
    read_item_facts,
)

ITEMS = ["mug", "pan", "shirt", "sock", "card"]
CATEGORIES = {"mug": ["kitchen"], "pan": ["kitchen", "pans"], "shirt": ["clothing"], "sock": ["clothing"]}


@pytest.fixture
def dataset(tmp_path):
    return build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "mug")],
        visitors=["anna"],
        items=ITEMS,
        categories=CATEGORIES,
        available={"mug": True, "sock": False},
    )


def offered(dataset, **rules):
    offer = dataset_offer(dataset, OfferRules(**rules))
    return [item for item, is_offered in zip(ITEMS, offer.is_offered, strict=True) if is_offered]


def test_items_are_on_offer_unless_they_are_known_to_be_unavailable(dataset):
    assert offered(dataset) == ["mug", "pan", "shirt", "card"]
    assert offered(dataset, include_unavailable=True) == ITEMS


def test_denied_items_are_not_on_offer(dataset):
    assert offered(dataset, denied=["shirt", "mug"]) == ["pan", "card"]


def test_a_category_includes_those_below_it(dataset):
    assert offered(dataset, only_categories=["kitchen"]) == ["mug", "pan"]
    assert offered(dataset, without_categories=["kitchen"]) == ["shirt", "card"]
    # an item without a category is in none
    assert offered(dataset, only_categories=["pans", "clothing"]) == ["pan", "shirt"]
    assert offered(dataset, only_categories=["kitchen"], without_categories=["pans"]) == ["mug"]


def test_excluded_items_are_counted_by_their_first_reason(dataset):
    offer = dataset_offer(dataset, OfferRules(denied=["sock", "mug"], without_categories=["kitchen", "clothing"]))
    # sock is unavailable and denied; mug is denied and in a kitchen; pan and shirt are only in these categories
    assert offer.to_json() == {"offered": 1, "excluded": {"unavailable": 1, "denied": 1, "category": 2}}


def test_the_facts_are_those_of_the_catalogue(dataset):
    facts = read_item_facts(dataset)
    assert facts.schema == ITEM_FACTS_SCHEMA
    assert facts.to_pylist()[1] == {
        "item_id": "pan",
        "is_available": None,
        "category_id": "pans",
        "category_path": ["kitchen", "pans"],
    }


def test_only_some_datasets_have_unavailable_items(dataset, tmp_path):
    assert available_items(dataset).tolist() == [True, True, True, False, True]
    other = build_dataset(
        str(tmp_path / "other"), train=[("anna", "mug")], visitors=["anna"], items=["mug"], available={"mug": True}
    )
    assert available_items(other) is None


def facts_of(*rows):
    columns = zip(*rows, strict=True)
    return pa.table([*columns, [[]] * len(rows)], schema=ITEM_FACTS_SCHEMA)


def test_an_item_without_facts_counts_as_available_with_a_warning(caplog):
    facts = facts_of(("b", False, None), ("c", None, None), ("z", False, None))
    assert find_offer(["a", "b", "c"], facts, OfferRules()).is_offered.tolist() == [True, False, True]
    assert (
        "1 of the 3 items of the model are not in the table of 3 items; ids of the model: 'a'; ids of the table: 'b', "
        "'c', 'z'; the missing items are treated as available"
    ) in caplog.text


def test_a_table_of_other_ids_is_refused_with_examples_of_both():
    with pytest.raises(
        ValueError,
        match=r"ids of the model: '0108', '0109'; ids of the table: '108'; "
        "the ids in the table must be those that the model was trained with",
    ):
        find_offer(["0108", "0109"], facts_of(("108", True, None)), OfferRules())


def test_unknown_denied_ids_cause_a_warning_with_examples(dataset, caplog):
    assert offered(dataset, denied=["mug", "w", "x", "y", "z"]) == ["pan", "shirt", "card"]
    assert "4 of the 5 denied ids are not items of the model and have no effect, such as 'w', 'x', 'y'" in caplog.text


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"only_categories": ["Kitchen"]},
            r"--only-category: no item is in the category 'Kitchen'; use a category with items, such as 'kitchen'$",
        ),
        (
            {"without_categories": ["pans", "garden"]},
            r"--without-category: no item is in the category 'garden'; use a category with items, such as ",
        ),
        (
            {"only_categories": ["kitchen"], "denied": ["mug", "pan"]},
            r"no item is left to recommend \(excluded: unavailable: 1, denied: 2, category: 2\); correct the "
            r"availability .*; shorten --deny; ",
        ),
    ],
)
def test_unknown_categories_and_rules_that_exclude_all_items_are_refused(dataset, rules, message):
    with pytest.raises(ValueError, match=message):
        offered(dataset, **rules)


def test_a_catalogue_without_categories_has_none_to_choose():
    with pytest.raises(ValueError, match="'shoes'; remove the flag, because no item has a category"):
        find_offer(["a"], facts_of(("a", True, None)), OfferRules(only_categories=["shoes"]))


def test_a_file_of_ids_has_one_per_line_and_repeats_are_skipped(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_bytes("bob\r\nänna b\n\nbob\nlast\u2028one".encode("utf-8-sig"))
    assert read_ids(str(path), "--visitors") == ["bob", "änna b", "last\u2028one"]
    assert make_rules(deny=str(path)).denied == ("bob", "änna b", "last\u2028one")


def test_a_file_of_ids_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--deny .*gone.txt does not exist; give a file of ids, one per line"):
        read_ids(str(tmp_path / "gone.txt"), "--deny")
    (tmp_path / "latin.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"--deny .*latin.txt is not text in UTF-8 .*; save it as UTF-8"):
        read_ids(str(tmp_path / "latin.txt"), "--deny")
