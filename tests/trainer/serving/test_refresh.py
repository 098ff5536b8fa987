"""A refresh changes the lists of an export, and nothing else."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from common import storage
from contract.item_facts import ITEM_FACTS_SCHEMA
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from tests.trainer.test_export import ITEMS, trained_models
from trainer.data.offer import OfferRules, read_item_facts
from trainer.export import export_model
from trainer.serving import layout
from trainer.serving.refresh import refresh


def build(root, available):
    return build_dataset(
        str(root),
        train=[("anna", "item-0"), ("bob", "item-1")],
        visitors=["anna", "bob"],
        items=ITEMS,
        available=available,
    )


@pytest.fixture
def dataset(tmp_path):
    return build(tmp_path / "dataset", {"item-6": False})


@pytest.fixture
def model():
    """Ranks the items in reverse order for all visitors."""
    return DotModel(np.zeros((2, 2)), np.ones((8, 2)), np.arange(8))


def facts_of(available):
    rows = [(item, is_available, None, []) for item, is_available in available.items()]
    return pa.table(list(zip(*rows, strict=True)), schema=ITEM_FACTS_SCHEMA)


def answers(export, k=8):
    """Returns all answers of an export, for a known and an unknown visitor."""
    signatures = tf.saved_model.load(str(export)).signatures
    both_k = tf.constant([k, k])
    query = {
        "visitor_id": tf.constant(["bob", "zoe"]),
        "history": tf.constant([["item-1"], ["item-2"]]),
        "k": both_k,
        "exclude_seen": tf.constant([True, True]),
    }
    events = {"history_event": tf.constant([["view"]] * 2), "history_age_ms": tf.constant([[5], [6]], tf.int64)}
    return {
        "serving_default": signatures["serving_default"](**query),
        "recommend": signatures["recommend"](**query),
        "recommend_events": signatures["recommend_events"](**query, **events),
        "similar_items": signatures["similar_items"](item_id=tf.constant(["item-3", "?"]), k=both_k),
        "score": signatures["score"](visitor_id=tf.constant(["bob"] * 8), item_id=tf.constant(ITEMS)),
    }


def lists(answer):
    return [[name.decode() for name in row] for row in answer["item_id"].numpy()]


def export(model, dataset, tmp_path, **rules):
    export_model(model, dataset, str(tmp_path / "export"), name="dot", card="# Card", rules=OfferRules(**rules))
    return str(tmp_path / "export")


def files(folder):
    return {name: storage.read_bytes(f"{folder}/{name}") for name in storage.list_files(folder)}


def test_no_answer_of_an_export_contains_an_unavailable_item(dataset, model, tmp_path):
    for name, answer in answers(export(model, dataset, tmp_path)).items():
        assert name == "score" or b"item-6" not in answer["item_id"].numpy()


def test_a_refresh_changes_the_lists_and_leaves_the_export(dataset, model, tmp_path):
    first = export(model, dataset, tmp_path)
    before = files(first)
    assert lists(answers(first, k=3)["recommend"])[0] == [ITEMS[7], "item-5", "item-4"]
    facts = facts_of({"item-5": False, "item-6": True, **dict.fromkeys(ITEMS[:5] + ITEMS[7:])})
    summary = refresh(export=first, output=str(tmp_path / "new"), facts=facts, rules=OfferRules(denied=[ITEMS[7]]))
    # item-6 came; item-5 and item-7 went
    assert lists(answers(tmp_path / "new", k=3)["recommend"])[0] == ["item-6", "item-4", "item-3"]
    assert (summary["items"], summary["added"], summary["removed"]) == (8, 1, 2)
    assert files(first) == before
    # six of eight items are on offer, and item-1 was seen
    assert lists(answers(tmp_path / "new")["recommend"])[0] == [
        *("item-6", "item-4", "item-3", "item-2", "item-0"),
        *("", "", ""),
    ]
    offer = {"offered": 6, "excluded": {"unavailable": 1, "denied": 1, "category": 0}}
    info = layout.read_info(str(tmp_path / "new"))
    assert (info["name"], info["offer"], info["half_lives_days"]) == ("dot", offer, [])
    layout.check_files(str(tmp_path / "new"), info["files"], "new")
    assert summary["offer"] == offer
    assert (tmp_path / "new" / layout.CARD).read_text() == "# Card"


FAST_MODELS = ("matrix_factorization", "towers")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, id=model.name, marks=() if model.name in FAST_MODELS else pytest.mark.slow)
        for model in trained_models()
    ],
)
def test_a_refreshed_export_answers_as_one_that_was_exported_with_this_offer(model, tmp_path):
    """The answers of all models are compared bit for bit, also after two refreshes."""
    newer = build(tmp_path / "newer", {"item-2": False, "item-6": True})
    older = export(model, build(tmp_path / "dataset", {"item-6": False}), tmp_path)
    export_model(model, newer, str(tmp_path / "expected"), name="dot")
    refresh(
        export=older, output=str(tmp_path / "once"), facts=read_item_facts(newer), rules=OfferRules(denied=ITEMS[:1])
    )
    refresh(export=str(tmp_path / "once"), output=str(tmp_path / "twice"), facts=read_item_facts(newer))
    expected, found = answers(tmp_path / "expected"), answers(tmp_path / "twice")
    for name, answer in expected.items():
        for key, values in answer.items():
            np.testing.assert_array_equal(found[name][key], values, err_msg=f"{name} {key}")
    assert not np.array_equal(answers(older)["recommend"]["item_id"], expected["recommend"]["item_id"])


def test_an_export_in_a_store_is_refreshed_there(dataset, model, tmp_path):
    export_model(model, dataset, "memory://exports/old", name="dot")
    refresh(export="memory://exports/old", output="memory://exports/new", facts=facts_of(dict.fromkeys(ITEMS)))
    for name, content in files("memory://exports/new").items():
        storage.write_bytes(f"{tmp_path}/fetched/{name}", content)
    storage.remove("memory://exports")
    assert lists(answers(tmp_path / "fetched", k=2)["recommend"])[0] == [ITEMS[7], "item-6"]


def test_nothing_is_published_if_writing_fails(dataset, model, tmp_path, monkeypatch):
    first = export(model, dataset, tmp_path)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("trainer.serving.refresh.layout.write_info", fail)
    with pytest.raises(OSError, match="disk full"):
        refresh(export=first, output=str(tmp_path / "out" / "new"), facts=facts_of(dict.fromkeys(ITEMS)))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_refresh_replaces_nothing(dataset, model, tmp_path):
    first = export(model, dataset, tmp_path)
    with pytest.raises(FileExistsError, match="already exists"):
        refresh(export=first, output=first, facts=facts_of(dict.fromkeys(ITEMS)))


@pytest.mark.parametrize("name", ["saved_model.pb", "assets/visitors.txt", layout.WARM_UP, layout.INFO])
@pytest.mark.parametrize("change", ["flipped", "missing"])
def test_a_damaged_export_is_refused(dataset, model, tmp_path, name, change):
    first = export(model, dataset, tmp_path)
    file = Path(first, name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    if change == "flipped":
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged|has no |is missing, damaged or from another|is not a SavedModel"):
        refresh(export=first, output=str(tmp_path / "new"), facts=facts_of(dict.fromkeys(ITEMS)))
    assert not (tmp_path / "new").exists()


def test_a_directory_that_is_no_export_is_refused(dataset, tmp_path):
    facts = facts_of(dict.fromkeys(ITEMS))
    with pytest.raises(ValueError, match="is not a SavedModel; give the directory that `cartwheel export"):
        refresh(export=dataset.root, output=str(tmp_path / "new"), facts=facts)
    tf.saved_model.save(tf.Module(), str(tmp_path / "foreign"))
    for write in (lambda: None, lambda: layout.write_info(str(tmp_path / "foreign"), {"name": "old"})):
        write()
        with pytest.raises(
            ValueError, match=r"assets.extra/model.json in .* is missing, damaged or from another version"
        ):
            refresh(export=str(tmp_path / "foreign"), output=str(tmp_path / "new"), facts=facts)
    layout.write_info(str(tmp_path / "foreign"), {"name": "old", "offer": {}, "half_lives_days": []})
    storage.write_bytes(str(tmp_path / "foreign" / layout.ITEMS), "".join(f"{item}\n" for item in ITEMS).encode())
    with pytest.raises(ValueError, match="foreign lacks the mask of items on offer; export the run again"):
        refresh(export=str(tmp_path / "foreign"), output=str(tmp_path / "new"), facts=facts)
    assert not (tmp_path / "new").exists()
