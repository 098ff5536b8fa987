"""`cartwheel refresh` with a newer table of items or a newer dataset changes the recommendations of an export."""

import json

import numpy as np
import pytest

import cartwheel
from cartwheel.refresh_cli import main
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer.export import export_model

ITEMS = ["mug", "pan", "shirt", "sock"]
TABLE = (
    "sku,dept,stock\nmug,Kitchen,out of stock\npan,Kitchen,in stock\nshirt,Clothing,in stock\nsock,Clothing,in stock\n"
)
MAP = ["--map", "id=sku", "availability=stock", "category=dept"]


def build(root, available):
    return build_dataset(str(root), train=[("anna", "mug")], visitors=["anna"], items=ITEMS, available=available)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A directory with a newer table of items and an export.

    The export ranks the items in vocabulary order. The item sock is not on offer.
    """
    monkeypatch.chdir(tmp_path)
    model = DotModel(np.zeros((1, 1)), np.ones((4, 1)), np.array([4, 3, 2, 1]))
    export_model(model, build(tmp_path / "dataset", {"sock": False}), "export", name="dot")
    (tmp_path / "items.csv").write_text(TABLE)
    return tmp_path


def recommended(export):
    return [item for item, _ in cartwheel.load(export).recommend(k=4)]


def test_a_newer_table_changes_what_is_recommended(folder, capsys):
    assert recommended("export") == ["mug", "pan", "shirt"]
    assert main(["refresh", "export", "--output", "new", "--items", "items.csv", *MAP]) == 0
    assert recommended("new") == ["pan", "shirt", "sock"]
    assert recommended("export") == ["mug", "pan", "shirt"]
    assert capsys.readouterr().out == (
        "Published dot to new: 1 items added to the offer, 1 removed\nItems on offer: 3 (excluded: unavailable: 1)\n"
    )


def test_denied_items_and_categories_are_excluded(folder, capsys, caplog):
    (folder / "deny.txt").write_text("pan\nbowl\n")
    rules = ["--deny", "deny.txt", "--without-category", "Clothing", "--include-unavailable"]
    assert main(["refresh", "export", "--output", "new", "--items", "items.csv", *MAP, *rules, "--json"]) == 0
    assert recommended("new") == ["mug"]
    assert json.loads(capsys.readouterr().out)["offer"] == {
        "offered": 1,
        "excluded": {"unavailable": 0, "denied": 1, "category": 2},
    }
    assert "1 of the 2 denied ids are not items of the model and have no effect, such as 'bowl'" in caplog.text


def test_a_newer_dataset_changes_what_is_recommended(folder):
    build(folder / "newer", {"shirt": False, "sock": True})
    assert main(["refresh", "export", "--output", "new", "--data", "newer"]) == 0
    assert recommended("new") == ["mug", "pan", "sock"]


def test_the_function_equals_the_command(folder):
    columns = {"id": "sku", "availability": "stock", "category": "dept"}
    summary = cartwheel.refresh("export", "new", items="items.csv", columns=columns, only_categories=["Clothing"])
    assert recommended("new") == ["shirt", "sock"]
    assert (summary["added"], summary["removed"]) == (1, 2)
    with pytest.raises(ValueError, match=r"pass either a newer table of items .* or a newer dataset"):
        cartwheel.refresh("export", "other")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give a newer table of items (--items or --shop) or a newer dataset (--data)"),
        (["--items", "items.csv", "--data", "dataset"], "give a newer table of items"),
        (["--data", "dataset", "--map", "id=sku"], "--map names the columns of a table of items"),
        (["--items", "items.csv", "--map", "sku"], "--map must have the form NAME=COLUMN, got 'sku'"),
        (["--data", "s3://KEY:SECRET@shop/dataset"], "may contain a credential"),
    ],
)
def test_wrong_flags_exit_with_2(folder, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        main(["refresh", "export", "--output", "new", *flags])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--only-category", "Kitchn"],
            "--only-category: no item is in the category 'Kitchn'; use a category with items, such as 'Kitc",
        ),
        (["--deny", "gone.txt"], "--deny gone.txt does not exist; give a file of ids, one per line"),
        (["--map", "id=dept", "availability=stock"], "4 of the 4 items of the model are not in the table of 2 items"),
    ],
)
def test_an_error_is_one_line_and_publishes_nothing(folder, caplog, flags, message):
    assert main(["refresh", "export", "--output", "new", "--items", "items.csv", *MAP, *flags]) == 1
    assert message in caplog.messages[-1]
    assert not (folder / "new").exists()
