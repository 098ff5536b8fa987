"""Repeats the comparison of the original notebook on a random split.

Compares the squared errors of two models and of constant predictions.

usage: python -m benchmarks.notebook EVENTS
"""

import json
import sys
import tempfile
from typing import Any

from benchmarks.harness import report, run_command

PRESETS = ("notebook-mf", "notebook-nn")
# errors that the notebook prints for the whole Retailrocket data; the errors of constants follow from its event counts
ORIGINAL = {"notebook-mf": 0.964, "notebook-nn": 0.057, "training mean": 0.0560, "constant 1": 0.0577}


def main() -> None:
    """Trains the notebook's two presets, and records their squared errors."""
    (events,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        dataset = f"{scratch}/dataset"
        _run("preprocessing", "prepare", "--events", events, "--output", dataset, "--split", "random")
        ratings = {preset: _ratings(preset, dataset, f"{scratch}/{preset}") for preset in PRESETS}
    any_ratings = next(iter(ratings.values()))
    figures = {
        "mse": {preset: ratings[preset]["mse"] for preset in PRESETS}
        | {"training mean": any_ratings["mse_of_training_mean"], "constant 1": any_ratings["mse_of_one"]},
        "skill": {preset: ratings[preset]["skill"] for preset in PRESETS},
        "test_rows": any_ratings["rows"],
        "split": "random: later events leak into training",
        "original_mse": ORIGINAL,
    }
    report("notebook", figures)


def _ratings(preset: str, dataset: str, workdir: str) -> dict[str, Any]:
    _run("trainer", "train", "--preset", preset, "--data", dataset, "--workdir", workdir)
    ratings: dict[str, Any] = _run("trainer", "evaluate", "--workdir", workdir)["ratings"]
    return ratings


def _run(*arguments: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(run_command([sys.executable, "-m", *arguments, "--json"]).stdout)
    return result


if __name__ == "__main__":
    main()
