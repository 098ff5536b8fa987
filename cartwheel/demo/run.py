"""The stages of the demo, in order: synthesize, prepare, train, evaluate, export, recommend, show."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from cartwheel.demo.stages import Stages
from cartwheel.demo.tables import results_table

PRESETS = ("notebook-mf", "notebook-nn", "mf", "nn")
SERVED = "mf"
"""Preset of the model to export and to recommend with."""
VISITORS = 20_000


class Inputs(NamedTuple):
    """Paths or globs of the user's files; if all are empty, the demo uses a synthetic shop."""

    events: str = ""
    item_properties: str = ""
    category_tree: str = ""


class Outcome(NamedTuple):
    """Measurements of a demo."""

    seconds: dict[str, float]
    """Seconds of each stage that ran."""
    evaluations: dict[str, dict[str, Any]]
    """The evaluation of each preset on the test window."""


def run_demo(root: Path, inputs: Inputs) -> Outcome:
    """Runs the unfinished stages, then prints results, recommendations and paths."""
    stages = Stages(root)
    what = f"{inputs.events}" if inputs.events else f"a synthetic shop of {VISITORS:,} visitors"
    print(f"Cartwheel demo: {what}. Results are in {root}/, logs in {stages.logs}/\n")
    files = inputs if inputs.events else _synthesize(stages)

    dataset = root / "dataset"
    flags = {"--item-properties": files.item_properties, "--category-tree": files.category_tree}
    optional = [word for flag, value in flags.items() if value for word in (flag, value)]
    stages.run("prepare", "--events", files.events, *optional, "--output", dataset, creates=dataset)

    evaluations = {preset: _train_and_evaluate(stages, preset) for preset in PRESETS}
    served = root / "runs" / SERVED
    export, lists = root / "export", root / "recommendations"
    stages.run("export", "--workdir", served, "--output", export, creates=export)
    stages.run("recommend", "--workdir", served, "--output", lists, creates=lists)

    print(f"\n{results_table(evaluations)}\n\n{_recommendations(export, dataset)}\n\n{_paths(root)}")
    return Outcome(stages.seconds, evaluations)


def _synthesize(stages: Stages) -> Inputs:
    shop = stages.root / "shop"
    stages.run("synthesize", "--visitors", VISITORS, "--seed", 0, "--output", shop, creates=shop)
    return Inputs(str(shop / "events.csv"), str(shop / "item_properties_part*.csv"), str(shop / "category_tree.csv"))


def _train_and_evaluate(stages: Stages, preset: str) -> dict[str, Any]:
    workdir = stages.root / "runs" / preset
    evaluation = workdir / "evaluation-test.json"
    flags = ("--preset", preset, "--data", stages.root / "dataset", "--workdir", workdir)
    # an evaluated run is finished; `train` resumes an interrupted one
    stages.run("train", *flags, creates=evaluation, label=preset)
    stages.run("evaluate", "--workdir", workdir, creates=evaluation, label=preset)
    result: dict[str, Any] = json.loads(evaluation.read_text())
    return result


def _recommendations(export: Path, dataset: Path) -> str:
    from common.logs import import_tensorflow

    import_tensorflow(verbose=False)  # first, because the next import would import it with all its notices
    from cartwheel.demo.lists import show_recommendations

    return f"Recommendations of {SERVED} to five returning visitors:\n" + show_recommendations(
        str(export), str(dataset)
    )


def _paths(root: Path) -> str:
    here = os.path.relpath(root)
    program = os.path.join(os.path.relpath(Path(sys.executable).parent), "cartwheel")
    page = shlex.join([program, "demo", "--model", f"{here}/export", "--data", f"{here}/dataset"])
    return "\n".join(
        [
            "Look at:",
            f"  {here}/runs/{SERVED}/report.html  (data, training, evaluation; one per model in {here}/runs/)",
            f"  {here}/export/assets.extra/model_card.md",
            f"  {here}/recommendations/  (20 items per visitor, Parquet and JSON Lines)",
            "Try it in a browser:",
            f"  {page}",
        ]
    )
