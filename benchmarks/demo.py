"""The main job from CSV to recommendations, stage by stage, as one would type it.

With --record its JSON fills the README's table; without, a demo leaves the checkout as it was.

Every stage is a command of its own, so the seconds include starting Python and importing TensorFlow.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import report, run_command

PRESETS = ("notebook-mf", "notebook-nn", "mf", "nn")
SERVED = "mf"
VISITORS = 20_000
_READING = """
Intervals that overlap are no difference; each run's report.html has paired tests, and the table of next items, which
is what nn is trained for."""
METRICS = ("ndcg@20", "recall@20", "mrr@20", "hit_rate@20", "coverage@20")


def main() -> None:
    """Runs the stages that are not done yet and ends with the recommendations and the paths of what was made."""
    given = _parse_arguments()
    root = Path(given.output)
    if given.record and root.exists():
        sys.exit(f"{root}/ exists: a record is of all stages; give --output a new directory")
    _check_inputs(root, given)
    stages: dict[str, float] = {}
    events, properties, tree = _find_input(root, given, stages)
    dataset = root / "dataset"
    prepare = ["preprocessing", "prepare", "--events", events, "--output", str(dataset)]
    prepare += ["--item-properties", properties] if properties else []
    prepare += ["--category-tree", tree] if tree else []
    _run("prepare", prepare, dataset, stages)
    served = _train_and_evaluate(SERVED, root, dataset, stages)
    export, recommendations = root / "export", root / "recommendations"
    run = ["--workdir", str(root / "runs" / SERVED)]
    _run("export", ["trainer", "export", *run, "--output", str(export)], export, stages)
    _run("recommend", ["trainer", "recommend", *run, "--output", str(recommendations)], recommendations, stages)

    shown = run_command([sys.executable, "-m", "benchmarks.show_recommendations", str(export), str(dataset)])
    print(f"\n{shown.stdout}\nthe other models, to set beside it:", flush=True)
    others = {name: _train_and_evaluate(name, root, dataset, stages) for name in PRESETS if name != SERVED}
    evaluations = {name: served if name == SERVED else others[name] for name in PRESETS}
    print(f"\n{_table(evaluations)}\n{_READING}\n")
    if given.record:
        report("demo", {"visitors": VISITORS, "seconds": stages, "table": _figures(evaluations)}, quiet=True)
    _print_paths(root)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--output", default="demo", help="directory for all that is made (default: demo)")
    parser.add_argument("--events", default="", help="your events instead of a synthetic shop")
    parser.add_argument("--item-properties", default="", help="your item properties")
    parser.add_argument("--category-tree", default="", help="your category tree")
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/demo.json")
    given = parser.parse_args()
    if given.record and given.events:
        parser.error("--record is of the synthetic shop, without EVENTS")
    if not given.events and (given.item_properties or given.category_tree):
        parser.error(
            "ITEM_PROPERTIES and CATEGORY_TREE go with EVENTS; without EVENTS the demo makes a shop of its own"
        )
    return given


def _check_inputs(root: Path, given: argparse.Namespace) -> None:
    """Refuses to go on in a directory that was made from other files."""
    inputs = {name: getattr(given, name) for name in ("events", "item_properties", "category_tree")}
    record = root / "inputs.json"
    if record.exists() and json.loads(record.read_text()) != inputs:
        sys.exit(
            f"{root}/ holds a demo of other files, {record.read_text().strip()}; `make clean`, or DEMO=another-folder"
        )
    root.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(inputs) + "\n")


def _find_input(root: Path, given: argparse.Namespace, stages: dict[str, float]) -> tuple[str, str, str]:
    """Globs of events, item properties and category tree; a shop is made where none are given."""
    if given.events:
        return given.events, given.item_properties, given.category_tree
    shop = root / "shop"
    synthesize = ["preprocessing", "synthesize", "--visitors", str(VISITORS), "--seed", "0", "--output", str(shop)]
    _run("synthesize", synthesize, shop, stages)
    return str(shop / "events.csv"), str(shop / "item_properties_part*.csv"), str(shop / "category_tree.csv")


def _train_and_evaluate(preset: str, root: Path, dataset: Path, stages: dict[str, float]) -> dict[str, Any]:
    workdir = root / "runs" / preset
    evaluation = workdir / "evaluation-test.json"
    train = ["trainer", "train", "--preset", preset, "--data", str(dataset), "--workdir", str(workdir)]
    # an evaluated run is a finished one; an interrupted one is resumed by train itself
    _run(f"train {preset}", train, evaluation, stages)
    _run(f"evaluate {preset}", ["trainer", "evaluate", "--workdir", str(workdir)], evaluation, stages)
    result: dict[str, Any] = json.loads(evaluation.read_text())
    return result


def _run(stage: str, arguments: Sequence[str], made: Path, stages: dict[str, float]) -> None:
    """Runs `python -m arguments` unless what it makes is there; notes the seconds."""
    command = shlex.join(["python", "-m", *arguments])
    if made.exists():
        print(f"\n# {stage}: {made} is there already", flush=True)
        return
    print(f"\n$ {command}", flush=True)
    begin = time.perf_counter()
    try:
        run_command([sys.executable, "-m", *arguments])
    except RuntimeError:
        sys.exit(f"\nthe demo stopped at: {command}\nThe reason stands above. What was made before it is kept.")
    stages[stage] = round(time.perf_counter() - begin, 1)


def _figures(evaluations: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Systems to metrics: each preset's model, then the baselines, which are the same in every evaluation."""
    systems: dict[str, dict[str, Any]] = {}
    baselines: dict[str, dict[str, Any]] = {}
    for preset, evaluation in evaluations.items():
        ranking = dict(evaluation["protocols"]["returning_visitors"]["ranking"] or {})
        model = next(iter(ranking), None)
        systems[preset] = dict(ranking.pop(model)) if model else {}
        systems[preset]["ratings"] = evaluation["ratings"]
        baselines = ranking
    return systems | baselines


def _table(evaluations: dict[str, dict[str, Any]]) -> str:
    lines = ["| system | " + " | ".join(METRICS) + " | MSE (skill) |", "| --- |" + " --- |" * (len(METRICS) + 1)]
    for name, figures in _figures(evaluations).items():
        cells = [_cell(figures.get(metric)) for metric in METRICS]
        ratings = figures.get("ratings")
        cells.append(f"{ratings['mse']:.4f} ({ratings['skill']:+.2f})" if ratings else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    cases = next(iter(evaluations.values()))["protocols"]["returning_visitors"]["cases"]
    caption = f"{cases['visitors']} returning visitors, {cases['catalogue_items']} items, test window"
    return "\n".join([f"{caption}, 95% intervals:", "", *lines])


def _cell(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    value = f"{estimate['value']:.4f}"
    return f"{value} [{estimate['low']:.4f}, {estimate['high']:.4f}]" if "low" in estimate else value


def _print_paths(root: Path) -> None:
    print("made:")
    for name, what in (
        (
            "dataset",
            "prepared dataset: vocabularies, timelines, catalogue, graph; report.html: its statistics",
        ),
        ("runs", "run directories: checkpoints, metrics, evaluation; report.html: data, training and evaluation"),
        ("export", "SavedModel that takes raw ids"),
        ("recommendations", "20 items for every visitor, Parquet and JSON Lines"),
    ):
        print(f"  {os.path.relpath(root / name):24} {what}")
    python, here = os.path.relpath(sys.executable), os.path.relpath(root)
    print("\nlook, in a browser, at the pages of the data, the training and the evaluation; and at the model's card:")
    for preset in PRESETS:
        print(f"  {os.path.join(here, 'runs', preset, 'report.html')}")
    print(f"  {os.path.join(here, 'export', 'assets.extra', 'model_card.md')}")
    print("try it, on a page for this machine:")
    print(f"  {python} -m trainer demo --model {shlex.quote(f'{here}/export')} --data {shlex.quote(f'{here}/dataset')}")


if __name__ == "__main__":
    main()
