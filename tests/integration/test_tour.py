"""The cells of docs/tour.ipynb run in order and produce the outputs that the notebook shows.

Outputs about the seeded shop are compared exactly. Results of training differ between processors, so their numbers are
ignored. Plots are not compared.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.tables import README

NOTEBOOK = README.parent / "docs/tour.ipynb"

# runs the cells on standard input as a kernel does, and prints the value of each cell's last expression; null if there
# is none or a semicolon hides it
KERNEL = """
import ast, json, sys
import pandas
pandas.set_option("display.max_columns", 20)  # the default of pandas in a kernel
names, shown = {}, []
for source in json.load(sys.stdin):
    cell = ast.parse(source)
    is_shown = isinstance(cell.body[-1], ast.Expr) and not source.rstrip().endswith(";")
    last = cell.body.pop() if is_shown else None
    exec(compile(cell, source, "exec"), names)
    value = eval(compile(ast.Expression(last.value), source, "eval"), names) if last else None
    shown.append(None if value is None else repr(value))
print(json.dumps(shown))
"""


def code_cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_executed_in_order_and_shows_no_error() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"execute_result", "display_data"}


def test_the_outputs_are_small_and_contain_no_absolute_path() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    shown = json.dumps([[output.get("data", output) for output in cell["outputs"]] for cell in code_cells()])
    text = re.sub(r'"image/png": "[^"]*"', "", shown)
    assert re.findall(r"/(?:tmp|home|root|work|Users|var)/[^\s\"']*", text) == []


@pytest.mark.integration
@pytest.mark.slow
def test_the_cells_produce_the_outputs_of_the_notebook(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KERNEL],
        input=json.dumps(["".join(cell["source"]) for cell in code_cells()]),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(README.parent), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    saved = [text_of(cell) for cell in code_cells()]
    shown = json.loads(done.stdout.splitlines()[-1])
    assert [without_numbers(text) for text in shown] == [without_numbers(text) for text in saved]
    assert (shown[1], shown[2]) == (saved[1], saved[2]), "the shop"
    assert sorted(os.listdir(tmp_path / "tour")) == ["dataset", "model", "run", "shop"]


def text_of(cell: dict) -> str | None:
    """Returns the saved value of a cell's last expression."""
    values = [output for output in cell["outputs"] if output["output_type"] == "execute_result"]
    return "".join(values[0]["data"]["text/plain"]) if values else None


def without_numbers(text: str | None) -> str | None:
    return None if text is None else " ".join(re.sub(r"-?\d[\d.]*", "#", text).split())
