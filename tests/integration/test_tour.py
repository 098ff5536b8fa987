"""docs/tour.ipynb: its cells run, one after the other, and the outputs that it shows are those of such a run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.readme import README

NOTEBOOK = README.parent / "docs/tour.ipynb"


def code_cells() -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_was_executed_in_order_and_shows_no_error() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"execute_result", "display_data"}


def test_the_outputs_are_small_and_name_no_folder_of_the_machine_they_were_made_on() -> None:
    assert NOTEBOOK.stat().st_size < 200_000
    shown = json.dumps([[output.get("data", output) for output in cell["outputs"]] for cell in code_cells()])
    text = re.sub(r'"image/png": "[^"]*"', "", shown)
    assert re.findall(r"/(?:tmp|home|root|work|Users|var)/[^\s\"']*", text) == []


@pytest.mark.integration
def test_the_cells_run_and_recommend(tmp_path: Path) -> None:
    program = "\n".join("".join(cell["source"]) for cell in code_cells())
    program += "\nprint(json.dumps([list(shown.index), len(answer['item_id'][0]), sorted(os.listdir('tour'))]))\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(README.parent), "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    systems, length, made = json.loads(done.stdout.splitlines()[-1])
    assert {"matrix_factorization", "session_knn", "popular", "random"} <= set(systems)
    assert length == 5
    assert made == ["dataset", "model", "run", "shop"]
