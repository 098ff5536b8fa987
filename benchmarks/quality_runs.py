"""The datasets and runs of `quality`, made once by the commands that users type; and its targets."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness import run_command
from trainer.data.dataset import open_dataset
from trainer.runs.checkpoint import choose_step
from trainer.runs.record import read_record
from trainer.trained_run import load_inference_model


def prepare(source: Path, folder: Path) -> Path:
    """Prepares the dataset in `folder` from the events of `source` unless it exists."""
    data, tree = folder / "dataset", source / "category_tree.csv"
    if not data.exists():
        command = [sys.executable, "-m", "preprocessing", "prepare", "--events", str(source / "events.csv*")]
        command += ["--category-tree", str(tree)] if tree.exists() else []
        run_command([*command, "--output", str(data)])
    return data


def keep(file: Path, make: Callable[[], Any]) -> Any:
    """Returns the JSON values of `make`; they are computed once and stored in the file."""
    if not file.exists():
        made = json.dumps(make(), indent=2)
        file.write_text(f"{made}\n")
    return json.loads(file.read_text())


def train(
    preset: str, data: Path, folder: Path, *settings: str, name: str = "", which: Literal["best", "last"] = "best"
) -> dict[str, Any]:
    """Trains a preset unless its run is complete; returns the `scorer` of the run and the `seconds` of the training.

    Args:
      preset: name of the preset.
      data: prepared dataset.
      folder: folder of all runs.
      settings: changes to the preset.
      name: name of the run; by default the name of the preset.
      which: checkpoint to load.
    """
    workdir = folder / "runs" / (name or preset)
    result = workdir / "result.json"
    if not result.exists():
        command = [sys.executable, "-m", "trainer", "train", "--preset", preset, "--data", str(data)]
        command += ["--workdir", str(workdir), *(["--set", *settings] if settings else [])]
        run_command(command)  # writes the result last
    step = choose_step(str(workdir), which)
    scorer = load_inference_model(str(workdir), read_record(str(workdir)), step, open_dataset(str(data)))
    return {"scorer": scorer, "seconds": json.loads(result.read_text())["seconds"]}


def epochs_to_reach(workdir: Path, value: float) -> int | None:
    """Returns the epochs until a run's validation NDCG@20 first reaches `value`; None if it never does."""
    for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        if line.get("validation_ndcg@20", -1.0) >= value:
            return int(line["epoch"])
    return None


def target(
    what: str, bound: float, reached: float | None, compared_with: str, *, is_least: bool = True
) -> dict[str, Any]:
    """Builds a row of the table of targets.

    Args:
      what: the measured quantity.
      bound: lower bound if `is_least`, else upper bound.
      reached: measured value; None does not meet the target.
      compared_with: the other system, or a remark.
      is_least: which side the bound is on.
    """
    is_met = reached is not None and bool(reached >= bound if is_least else reached <= bound)
    sign = "≥" if is_least else "≤"
    return {
        "what": what,
        "target": f"{sign} {bound:g}",
        "reached": reached,
        "compared_with": compared_with,
        "is_met": is_met,
    }
