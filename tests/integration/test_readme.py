"""Runs README's commands and Python code, and the complete commands in sentences of all documents, on a tiny shop.

All run in one process, because importing TensorFlow takes longer than each command.
"""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

import cartwheel.cli
from tests.documents import DOCUMENTS, blocks, commands, named_commands
from trainer.demo.server import DemoServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]

README = "README.md"
TYPED = [
    command
    for block in blocks(README)
    if block.language == "bash"
    for command in commands(block)
    if command.startswith("cartwheel ")
]
MORE = (
    "cartwheel report --data dataset",
    "cartwheel report --workdir runs/auto",
    "cartwheel prepare --events events.csv --item-properties 'item_properties*.csv' --category-tree category_tree.csv "
    "--output dataset-2 --split time --validation-from 2015-08-10 --test-from 2015-08-25 --baseline dataset "
    "--set items.min_count=1 expectations.presence.fail=none --runner=DirectRunner",
    "cartwheel train --preset mf --data dataset-2 --workdir runs/auto-2 --warm-start runs/auto/parts/mf "
    "--set epochs=1 steps_per_execution=1",
    "cartwheel recommend --workdir runs/auto --output few --k 3 --visitors visitors.txt --format jsonl",
    "cartwheel doctor runs/auto",
)
"""The verbs and flags that README only mentions."""
PLACEHOLDERS = {"DATASET": "dataset", "RUN": "runs/auto"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that README names."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "visitors.txt").write_text("1\n2\n3\n")
    assert cartwheel.cli.main(["synthesize", "--visitors", "1000", "--output", str(folder / "shop")]) == 0
    for path in (folder / "shop").glob("*.csv"):
        shutil.copy(path, folder)
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(DemoServer, "serve_forever", interrupt)


def interrupt(_: DemoServer) -> None:
    """Raises KeyboardInterrupt as soon as the page is served."""
    raise KeyboardInterrupt


def run(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Runs a command and returns its result."""
    words = shlex.split(command)[1:]
    port = ["--port", "0"] if words[0] == "demo" else []
    capsys.readouterr()
    assert cartwheel.cli.main([*words, *port, "--json"]) == 0, command
    return json.loads(capsys.readouterr().out)


def test_every_command_of_the_readme_works(capsys) -> None:
    results = {command: run(command, capsys) for command in [*TYPED, *MORE]}

    found = {command.split()[1] for command in TYPED}
    assert found == {"inspect", "prepare", "train", "evaluate", "recommend", "export", "demo"}
    by_verb = {command.split()[1]: result for command, result in results.items() if command in TYPED}
    assert "trending" in by_verb["evaluate"]["protocols"]["returning_visitors"]["rankings"]["seen_hidden"]
    assert Path("export/saved_model.pb").exists()
    assert list(Path("recommendations").glob("*.parquet"))
    assert by_verb["demo"]["models"] == ["auto"]

    of_dataset, of_run, compared, _, few, doctor = (results[command] for command in MORE)
    assert Path(of_dataset["report"]).samefile("dataset/report.html")
    assert Path(of_run["report"]).samefile("runs/auto/report.html")
    assert "fail" not in compared["compared"].values()
    assert few["visitors"] == 3
    assert doctor["is_healthy"]


COMPLETE = [
    command
    for document in DOCUMENTS
    for command in named_commands(document)
    # tests/trainer/doctor rehearses the check of GPUs; without a GPU, the command itself fails
    if " --" in command and command.startswith("cartwheel ") and "doctor --gpu" not in command
]


@pytest.mark.parametrize("command", COMPLETE)
def test_a_complete_command_in_a_sentence_works(command, capsys) -> None:
    for placeholder, name in PLACEHOLDERS.items():
        command = command.replace(placeholder, name)
    assert re.findall(r"\b[A-Z]{2,}\b", command) == [], "a placeholder is left"
    run(command, capsys)


def test_the_readmes_python_answers_as_its_comment_says(capsys) -> None:
    signature, recommender = [block for block in blocks(README) if block.language == "python"]
    names: dict = {}
    exec(signature.text, names)
    assert re.search(r"# item_id \[1, 5\], score \[1, 5\]$", signature.text, re.MULTILINE)
    assert {name: list(names["answer"][name].shape) for name in ("item_id", "score")} == {
        "item_id": [1, 5],
        "score": [1, 5],
    }
    exec(recommender.text, {})
    assert len(capsys.readouterr().out.splitlines()) == 5
