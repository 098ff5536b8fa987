"""Progress bars with rate and remaining time appear on a terminal and nowhere else."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

import preprocessing.cli
import trainer.cli
from tests.preprocessing.shop import small_shop
from tests.warm_python import start_python

pytestmark = [pytest.mark.integration, pytest.mark.slow]

# ranking:  45%|####     | 9.00/20.0 [00:02<00:03, 4.11 cases/s], or 1.62s/ cases below one per second
BAR = re.compile(
    r"(?:(?P<title>[a-z ]+): +)?\d+%\|[^|]*\| \S+/\S+ \[[\d:]+<[\d:]+, +[\d.]+[kM]? ?(?:s/ ?)?(?P<unit>\w+)(?:/s)?\]"
)

DRAWING = """
import functools, runpy, sys
from tqdm import tqdm

tqdm.__init__ = functools.partialmethod(tqdm.__init__, mininterval=0)
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""A program that runs a module and draws its bars at every step, however fast."""


def on_terminal(package: str, *arguments: object) -> str:
    """Runs a command of a package with a terminal as standard error and returns the output."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = start_python(
        ["-c", DRAWING, package, *map(str, arguments)],
        package=package,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=its,
    )
    os.close(its)
    text = _read_all(ours).decode()
    assert process.wait(timeout=600) == 0, text
    return text


def _read_all(terminal: int) -> bytes:
    written = b""
    with os.fdopen(terminal, "rb", buffering=0) as file:
        try:
            while read := file.read(65_536):
                written += read
        except OSError:  # Linux: the other end is closed
            pass
    return written


def bars(text: str) -> dict[str | None, set[str]]:
    """Returns the units of the bars by title."""
    found: dict[str | None, set[str]] = {}
    for bar in BAR.finditer(text):
        found.setdefault(bar["title"], set()).add(bar["unit"])
    return found


def prepare(shop: Path, output: str) -> list[object]:
    inputs = ["--events", shop / "events.csv", "--item-properties", shop / "properties.csv"]
    return ["prepare", *inputs, "--category-tree", shop / "tree.csv", "--output", shop / output]


def synthesize(output: Path) -> list[object]:
    return ["synthesize", "--visitors", 50, "--output", output]


def train(shop: Path, name: str) -> list[object]:
    settings = ["epochs=2", "input.batch_size=8", "model.dim=4", "loss.num_negatives=2"]
    return ["train", "--preset", "mf", "--data", shop / "dataset", "--workdir", shop / name, "--set", *settings]


def evaluate(shop: Path) -> list[object]:
    return ["evaluate", "--workdir", shop / "run"]


def recommend(shop: Path, name: str) -> list[object]:
    return ["recommend", "--workdir", shop / "run", "--k", 2, "--output", shop / name]


def without_terminal(main: Callable[[list[str]], int], arguments: list[object]) -> None:
    """Runs a command in this process and checks that it draws no bar."""
    with contextlib.redirect_stderr(io.StringIO()) as logged:
        assert main([*map(str, arguments)]) == 0
    assert "%|" not in logged.getvalue()
    assert "\r" not in logged.getvalue()


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """Creates a shop with its dataset and a run, without a terminal."""
    root = tmp_path_factory.mktemp("shop")
    small_shop(root)
    without_terminal(preprocessing.cli.main, prepare(root, "dataset"))
    without_terminal(trainer.cli.main, train(root, "run"))
    return root


def test_prepare_shows_bytes_read_and_partitions_made(shop):
    text = on_terminal("preprocessing", *prepare(shop, "shown"))
    shown = bars(text)
    assert {title for title, units in shown.items() if units == {"B"}} == {"events", "item properties"}
    made = {"timelines", "counts", "timeline shards", "properties by item", "items", "transform", "catalogue shards"}
    assert {title for title, units in shown.items() if units == {"partitions"}} == made
    # followed by a summary
    assert "kept 32 of 32 events: 0 rejected, 0 filtered, 0 duplicates, 0 robot events" in text
    assert "events per split: 26 train, 3 validation, 3 test" in text
    assert "shown: 3 visitors, 6 items, 3 categories, 0 property values" in text


def test_synthesize_shows_items(tmp_path):
    text = on_terminal("preprocessing", *synthesize(tmp_path / "made"))
    assert bars(text) == {"properties": {"items"}}
    assert "wrote a shop with 50 visitors, " in text


def test_train_shows_examples(shop):
    assert bars(on_terminal("trainer", *train(shop, "shown-run"))) == {None: {"examples"}}


def test_evaluate_shows_cases(shop):
    assert bars(on_terminal("trainer", *evaluate(shop))) == {"ranking": {"cases"}}


def test_recommend_shows_visitors(shop):
    text = on_terminal("trainer", *recommend(shop, "shown-lists"))
    assert bars(text) == {None: {"visitors"}}
    assert "wrote up to 2 items for each of 4 visitors (0 unknown) in 1 shards of jsonl and parquet" in text


def test_without_a_terminal_there_is_no_bar(shop, tmp_path):
    without_terminal(preprocessing.cli.main, synthesize(tmp_path / "quiet"))
    without_terminal(trainer.cli.main, evaluate(shop))
    without_terminal(trainer.cli.main, recommend(shop, "quiet-lists"))
