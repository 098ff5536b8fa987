"""Trains the runs of `quality`, each once, by the command that users type. Also builds rows of the table of targets."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness import run_command
from trainer.data.dataset import open_dataset
from trainer.models.build import build_inference_model
from trainer.models.interface import ServedModel
from trainer.models.trained_run import open_trained_run
from trainer.runs.checkpoint import read_weights
from trainer.runs.record import read_record


def train(
    preset: str,
    data: Path,
    folder: Path,
    *settings: str,
    name: str = "",
    which: Literal["best", "last"] = "best",
    flags: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains a preset unless its run is complete; returns the run's `scorer` and `seconds`.

    Args:
      preset: name of the preset.
      data: prepared dataset.
      folder: parent folder; the run is in its subfolder `runs/NAME`.
      settings: changes to the preset, as `KEY=VALUE`.
      name: name of the run; empty: the name of the preset.
      which: the checkpoint of the scorer.
      flags: further flags of the command `train`.
    """
    workdir = folder / "runs" / (name or preset)
    result = workdir / "result.json"
    if not result.exists():
        command = [sys.executable, "-m", "trainer", "train", "--preset", preset, "--data", str(data)]
        command += ["--workdir", str(workdir), *flags, *(["--set", *settings] if settings else [])]
        run_command(command)  # writes the result last
    return {"scorer": _load(workdir, data, which), "seconds": json.loads(result.read_text())["seconds"]}


def time_evaluation(preset: str, data: Path, folder: Path) -> float:
    """Returns the seconds that the command `evaluate` takes for the run of a preset. They are measured only once.

    Args:
      preset: name of the preset.
      data: prepared dataset.
      folder: folder that contains the run as `runs/PRESET`.
    """
    workdir = folder / "runs" / preset
    result = workdir / "evaluation_seconds.json"
    if not result.exists():
        command = [sys.executable, "-m", "trainer", "evaluate", "--data", str(data), "--workdir", str(workdir)]
        result.write_text(json.dumps(run_command(command).seconds))
    seconds: float = json.loads(result.read_text())
    return seconds


def _load(workdir: Path, data: Path, which: Literal["best", "last"]) -> ServedModel:
    if which == "best":
        return open_trained_run(str(workdir), str(data)).model
    model = build_inference_model(read_record(str(workdir)).config, open_dataset(str(data)))
    model.fill(read_weights(str(workdir), which))
    return model


def epochs_to_reach(workdir: Path, value: float) -> int | None:
    """Returns the first epoch with a validation NDCG@20 of at least `value`; None if there is none."""
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
      reached: measured value; None: never reached.
      compared_with: name of the other system, for readers.
      is_least: whether `bound` is a lower bound.
    """
    is_met = reached is not None and bool(reached >= bound if is_least else reached <= bound)
    sign = "≥" if is_least else "≤"
    wanted = f"{sign} {bound:g}"
    return {"what": what, "target": wanted, "reached": reached, "compared_with": compared_with, "is_met": is_met}
