"""README's commands, from its synopsis, those that sentences of the documents name whole, and README's Python.

They run over one tiny shop, in one process, for starting TensorFlow takes longer than each of them. What is a
placeholder in the document is a name here; all that may be given is given.
"""

import json
import re
import shlex
from pathlib import Path

import pytest

import preprocessing.cli
import trainer.cli
from tests.documents import DOCUMENTS, as_typed, blocks, commands, named_commands
from trainer.demo.server import DemoServer

pytestmark = pytest.mark.integration

README = "README.md"
MAIN = {"preprocessing": preprocessing.cli.main, "trainer": trainer.cli.main}
PLACEHOLDERS = {
    "synthesize": {"--visitors N": "--visitors 1000", "DIR": "shop"},
    "prepare": {
        "--events 'GLOB'": "--events shop/events.csv",
        "--item-properties 'GLOB'": "--item-properties 'shop/item_properties_part*.csv'",
        "FILE": "shop/category_tree.csv",
        "DATASET": "dataset",
        "--validation-from WHEN --test-from WHEN": "--validation-from 2015-08-10 --test-from 2015-08-25",
        "EARLIER": "yesterday",
        "key=value": "items.min_count=1",
        "[Beam options]": "--runner=DirectRunner",
    },
    "train": {
        "DATASET": "dataset",
        "--workdir RUN": "--workdir run",
        "--warm-start RUN": "--warm-start earlier",
        "key=value": "epochs=1 model.dim=4 steps_per_execution=1",
    },
    "evaluate": {"RUN": "run", "key=value": "neighbours.num_neighbours=20"},
    "export": {"RUN": "run", "URI": "demo/export"},
    "recommend": {"RUN": "run", "URI": "recommendations", "FILE": "visitors.txt"},
    "report": {"RUN": "run", "DATASET": "dataset"},
    "demo": {"EXPORT [EXPORT …]": "demo/export", "DATASET": "dataset", "8000": "0"},
    "doctor": {"URI": "run"},
}
BEGUN_WITH = {"preprocessing prepare": ("--baseline", "dataset"), "trainer train": ("--warm-start", "run")}
"""What another run of the same command has made before, without that option, and the name of what this one makes."""
NOT_RUN = {"preprocessing download": "needs a Kaggle account; tests/preprocessing/test_download.py"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands work in: a list of visitors, and what they make."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "visitors.txt").write_text("1\n2\n3\n")
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def synopsis() -> dict[str, str]:
    """README's commands by program and name, in its order."""
    lines = [line for block in blocks(README) if block.language == "bash" for line in commands(block)]
    return {" ".join(line.split()[2:4]): line for line in lines if line.startswith("python ")}


def typed(command: str) -> tuple[str, list[str]]:
    """The program and the arguments of a command, with names in the place of its placeholders."""
    for placeholder, name in PLACEHOLDERS[command.split()[3]].items():
        command = command.replace(placeholder, name)
    _, _, program, *arguments = shlex.split(as_typed(command))
    assert [word for word in arguments if re.search(r"\b[A-Z]{2,}\b", word)] == [], "a placeholder is left"
    return program, arguments


def run(program: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    """The result that a command prints."""
    status = MAIN[program]([*arguments, "--json"])
    assert status == 0, f"{program} {shlex.join(arguments)}"
    return json.loads(capsys.readouterr().out)


def test_every_command_of_the_readme_does_what_it_is_there_for(capsys, monkeypatch) -> None:
    monkeypatch.setattr(DemoServer, "serve_forever", interrupt)
    results = {}
    for name, command in synopsis().items():
        if name in NOT_RUN:
            continue
        program, arguments = typed(command)
        if name in BEGUN_WITH:
            option, made = BEGUN_WITH[name]
            place = arguments.index(option)
            earlier = [*arguments[:place], *arguments[place + 2 :]]
            run(program, [arguments[place + 1] if word == made else word for word in earlier], capsys)
        results[name] = run(program, arguments, capsys)

    assert set(results["preprocessing prepare"]["compared"].values()) == {"ok"}
    assert Path(results["preprocessing report"]["report"]).samefile("dataset/report.html")
    assert Path(results["trainer report"]["report"]).samefile("run/report.html")
    assert "recently_popular" in results["trainer evaluate"]["protocols"]["returning_visitors"]["ranking"]
    assert Path("demo/export/saved_model.pb").exists()
    assert results["trainer recommend"]["visitors"] == 3
    assert results["trainer demo"]["models"] == ["export"]
    assert results["trainer doctor"]["is_healthy"]


def interrupt(_: DemoServer) -> None:
    """Ctrl-C as soon as the page is served."""
    raise KeyboardInterrupt


WHOLE = [
    command
    for document in DOCUMENTS
    for command in named_commands(document)
    if " --" in command and re.match("python -m (preprocessing|trainer) ", command)
]


@pytest.mark.parametrize("command", WHOLE)
def test_a_command_that_a_sentence_names_whole_runs(command, capsys) -> None:
    run(*typed(command), capsys)


def test_the_readmes_python_answers_as_its_comment_says() -> None:
    (block,) = [block for block in blocks(README) if block.language == "python"]
    names: dict = {}
    exec(block.text, names)
    assert re.search(r"# item_id \[1, 5\], score \[1, 5\]$", block.text, re.MULTILINE)
    assert {name: list(names["answer"][name].shape) for name in ("item_id", "score")} == {
        "item_id": [1, 5],
        "score": [1, 5],
    }
