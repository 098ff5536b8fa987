"""The runs behind `quality`: prepared and trained once, by the commands that a user types; and what a target is."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness import run_command
from trainer.data.dataset import open_dataset
from trainer.models.build import build_inference_model
from trainer.runs.checkpoint import read_weights
from trainer.runs.record import read_record


def prepare(source: Path, folder: Path) -> Path:
    """The dataset in `folder`, prepared from the events of `source` unless it is there."""
    data, tree = folder / "dataset", source / "category_tree.csv"
    if not data.exists():
        command = [sys.executable, "-m", "preprocessing", "prepare", "--events", str(source / "events.csv*")]
        command += ["--category-tree", str(tree)] if tree.exists() else []
        run_command([*command, "--output", str(data)])
    return data


def keep(file: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives, JSON values; made once and kept in the file."""
    if not file.exists():
        made = json.dumps(make(), indent=2)
        file.write_text(f"{made}\n")
    return json.loads(file.read_text())


def train(
    preset: str, data: Path, folder: Path, *settings: str, name: str = "", which: Literal["best", "last"] = "best"
) -> dict[str, Any]:
    """A preset's model, its `scorer`, and the `seconds` of its training; trained unless that was done.

    Args:
      which: of its checkpoints.
    """
    workdir = folder / "runs" / (name or preset)
    result = workdir / "result.json"
    if not result.exists():
        command = [sys.executable, "-m", "trainer", "train", "--preset", preset, "--data", str(data)]
        command += ["--workdir", str(workdir), *(["--set", *settings] if settings else [])]
        run_command(command)  # writes the result last
    scorer = build_inference_model(read_record(str(workdir)).config, open_dataset(str(data)))
    scorer.fill(read_weights(str(workdir), which))
    return {"scorer": scorer, "seconds": json.loads(result.read_text())["seconds"]}


def epochs_to_reach(workdir: Path, value: float) -> int | None:
    """Epochs of a run up to its first validation NDCG@20 of at least `value`; None: it never gets there."""
    for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        if line.get("validation_ndcg@20", -1.0) >= value:
            return int(line["epoch"])
    return None


def target(what: str, bound: float, reached: float | None, beside: str, *, is_least: bool = True) -> dict[str, Any]:
    """A line of the table of targets: what was `reached` beside the bound it must not fall short of, or exceed.

    What has no figure (`reached` None) does not meet it.
    """
    is_met = reached is not None and bool(reached >= bound if is_least else reached <= bound)
    sign = "≥" if is_least else "≤"
    return {"what": what, "target": f"{sign} {bound:g}", "reached": reached, "beside": beside, "is_met": is_met}
