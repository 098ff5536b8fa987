"""Runs all stages on a shop of Retailrocket's size; records the seconds and the peak memory of each stage.

Also records the sizes of the reports.

usage: python -m benchmarks.full_size [DIRECTORY that keeps the results]
"""

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.harness import report, run_command
from benchmarks.preprocessing import FULL_VISITORS

DIM = 64
ASKING = 100_000  # visitors for whom `recommend` is run


def main() -> None:
    """Measures the commands synthesize, prepare, train (one epoch of `mf`), evaluate, export and recommend."""
    if len(sys.argv) > 1:
        _measure(Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        _measure(Path(scratch) / "full")


def _measure(root: Path) -> None:
    shop, dataset, run = root / "shop", root / "dataset", root / "run"
    stages: dict[str, dict[str, Any]] = {}
    results: dict[str, Any] = {}

    def stage(name: str, *arguments: object) -> None:
        timing = run_command([sys.executable, "-m", *map(str, arguments), "--json"])
        stages[name] = {"seconds": round(timing.seconds, 1), "peak_gib": round(timing.peak_mib / 1024, 2)}
        results[name] = json.loads(timing.stdout)

    if not shop.exists():
        stage("synthesize", "preprocessing", "synthesize", "--visitors", FULL_VISITORS, "--output", shop)
    inputs = ["--events", shop / "events.csv", "--item-properties", shop / "item_properties_part*.csv"]
    inputs += ["--category-tree", shop / "category_tree.csv"]
    stage("prepare", "preprocessing", "prepare", *inputs, "--output", dataset)
    settings = ["--set", "epochs=1", f"model.dim={DIM}"]
    stage("train", "trainer", "train", "--preset", "mf", "--data", dataset, "--workdir", run, *settings)
    stage("evaluate", "trainer", "evaluate", "--workdir", run)
    stage("export", "trainer", "export", "--workdir", run, "--output", root / "export")
    asking = root / "visitors.txt"
    asking.write_text("".join(islice((dataset / "vocabulary" / "visitors.txt").open(), ASKING)))
    lists = ["--visitors", asking, "--output", root / "recommendations"]
    stage("recommend", "trainer", "recommend", "--workdir", run, *lists)
    evaluation = results["evaluate"]["protocols"]["returning_visitors"]
    ranking = {name: metrics["ndcg@20"]["value"] for name, metrics in evaluation["rankings"]["seen_hidden"].items()}
    report(
        "full_size",
        {
            "stages": stages,
            "training": {"epochs": 1, "dim": DIM, "rows_per_second": results["train"]["examples_per_second"]},
            "recommended_visitors": ASKING,
            "report_bytes": {path.name: (path / "report.html").stat().st_size for path in (dataset, run)},
            "evaluation": {"visitors": evaluation["cases"]["visitors"], "ndcg@20": ranking},
        },
    )


if __name__ == "__main__":
    main()
