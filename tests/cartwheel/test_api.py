"""Tests the Python API, from a synthetic shop to recommendations."""

import json
import os
from pathlib import Path

import pytest

import cartwheel
from cartwheel.api import _format_assignments
from cartwheel.demo.lists import show_recommendations
from cartwheel.demo.tables import results_table
from contract.catalogue import read_catalogue
from contract.manifest import read_manifest


def test_settings_become_assignments_of_the_command_line():
    settings = {"epochs": 3, "model.dim": 8, "patience": None, "compress": True, "loss.event_weights": (1.0, 2.0, 3.0)}
    assert _format_assignments(settings) == [
        "epochs=3",
        "model.dim=8",
        "patience=none",
        "compress=true",
        "loss.event_weights=1.0,2.0,3.0",
    ]
    assert _format_assignments(None) == []


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'best'; choose one of auto, notebook-mf, notebook-nn, mf, nn"):
        cartwheel.train("dataset", "run", preset="best")


def test_a_report_needs_a_run_or_a_dataset():
    with pytest.raises(ValueError, match="pass workdir=… for the report of a run"):
        cartwheel.report()


def test_gpus_and_directories_are_checked_separately() -> None:
    with pytest.raises(ValueError, match="gpu=True checks GPUs alone"):
        cartwheel.doctor("dataset", gpu=True)


@pytest.mark.integration
def test_the_verbs_lead_from_a_shop_to_recommendations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shop = cartwheel.synthesize("shop", visitors=1000)
    files = {name: shop[name] for name in ("item_properties", "category_tree")}
    cartwheel.prepare(shop["events"], "dataset", **files)
    small = {"epochs": 1, "model.dim": 8, "loss.num_negatives": 8, "blend": False}
    trained = cartwheel.train("dataset", "run", preset="mf", settings=small)
    assert Path(trained["report"]).exists()
    evaluation = cartwheel.evaluate("run")
    exported = cartwheel.export("run", "export")
    assert cartwheel.refresh("export", "again", data="dataset")["offer"] == exported["offer"]
    assert cartwheel.recommend("run", "lists", k=3, formats=["jsonl"])["k"] == 3
    catalogue = read_catalogue([f"dataset/{name}" for name in read_manifest("dataset").catalogue_files]).to_pylist()
    unavailable = {row["item_id"] for row in catalogue if row["is_available"] is False}
    (lists,) = Path("lists").glob("*.jsonl")
    rows = [json.loads(line) for line in lists.read_text().splitlines()]
    assert len(unavailable) > 100
    assert not unavailable & {item["item_id"] for row in rows for item in row["items"]}
    titles = {row["item_id"]: row["title"] for row in catalogue}
    assert all(item["title"] == titles[item["item_id"]] for row in rows for item in row["items"])
    assert Path(cartwheel.report(data="dataset")).exists()
    assert Path(cartwheel.report(workdir="run")).exists()
    assert isinstance(cartwheel.doctor()["findings"], list)

    model = cartwheel.load("export")
    found = model.recommend(history=["no such item"], k=5)
    assert len(found) == 5
    everything = model.recommend(k=exported["items"])
    assert len(everything) == exported["offer"]["offered"] < exported["items"]
    assert not unavailable & {item for item, _ in everything}
    seen = [found[0].item_id, found[1].item_id]
    again = model.recommend(history=seen, k=5)
    assert not {item for item, _ in again} & set(seen)
    scores = [score for _, score in again]
    assert scores == sorted(scores, reverse=True)
    assert model.recommend(history=seen, k=exported["items"], exclude_seen=False)[0].item_id
    assert seen[0] not in {item for item, _ in model.similar_items(seen[0], k=3)}
    assert len(model.score("1", seen)) == 2
    assert model.score("1", []) == []
    with pytest.raises(ValueError, match=r"^k must be from 1 to \d+, the number of items in the catalogue; got 0$"):
        model.recommend(k=0)
    with pytest.raises(ValueError, match="run is the directory of a run; export it with `cartwheel export --workdir "):
        cartwheel.load("run")
    check_ids_that_are_not_text(model)

    # what `make demo` prints of the same files
    lines = show_recommendations("export", "dataset").splitlines()
    assert [line.split()[0] for line in lines] == ["visitor", "history:", "recommended:"] * 5
    assert max(map(len, lines)) <= 100
    table = results_table({"mf": evaluation}).splitlines()
    assert {line.split()[0] for line in table if line.startswith("  ")} >= {"mf", "popular", "random"}
    assert max(map(len, table)) <= 100
    assert os.path.exists("export/saved_model.pb")


def check_ids_that_are_not_text(model: cartwheel.Recommender) -> None:
    """Checks the messages for ids that would otherwise end in an error of TensorFlow, or in a wrong list."""
    with pytest.raises(TypeError, match=r"history: ids are text, got 50 \(int\); pass '50', as in the event log"):
        model.recommend(history=[50, 181])
    with pytest.raises(TypeError, match=r"history must be a list of ids, got the text '50'; pass \['50'\]"):
        model.recommend(history="50")
    with pytest.raises(TypeError, match="visitor_id: ids are text, got 1 "):
        model.score(1, ["50"])
    with pytest.raises(TypeError, match="item_ids must be a list of ids, got the text '50'"):
        model.score("1", "50")
    with pytest.raises(TypeError, match="item_id: ids are text, got 50 "):
        model.similar_items(50)
