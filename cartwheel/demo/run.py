"""The stages of the demo, in order: write a shop, prepare, train, evaluate, export, recommend, show."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cartwheel.demo.stages import Stages
from cartwheel.demo.tables import results_table
from common.cli import print_text
from contract.manifest import read_manifest

NOTEBOOK_PRESETS = ("notebook-mf", "notebook-nn")
"""Presets that predict event weights; they learn nothing from a log with one event kind."""
SERVED = "auto"
"""Preset of the model to export and to recommend with: it trains `mf`, `nn` and others, and blends them."""
PRESETS = (*NOTEBOOK_PRESETS, SERVED)
VISITORS = 20_000
GROCER = "grocer"
BUDGET, GROCER_BUDGET = "2m", "6m"
"""Time budgets of the preset `auto`."""
MAX_CASES, GROCER_CASES = 5000, 2500
"""Maximum numbers of evaluated cases per protocol, for the synthetic shop and the grocer. The synthetic shop has fewer
cases; the grocer has 2,066 returning visitors, but 146,036 next items."""


class Inputs(NamedTuple):
    """The input of a demo. If all fields are empty, the demo synthesizes a shop."""

    data: str = ""
    """`grocer`: the data of a real grocer, see `preprocessing.grocer`; '': use the other fields."""
    shop: str = ""
    """Path of a shop.toml."""
    events: str = ""
    """Path or glob of the event log."""
    item_properties: str = ""
    """Path or glob of the item properties of `events`."""
    category_tree: str = ""
    """Path of the category tree of `events`."""


class Outcome(NamedTuple):
    """Seconds of the stages of a demo, and metrics of its models."""

    seconds: dict[str, float]
    """Seconds by stage, without skipped stages."""
    evaluations: dict[str, dict[str, Any]]
    """Evaluation on the test window, by preset."""


def run_demo(root: Path, inputs: Inputs) -> Outcome:
    """Runs the unfinished stages in the directory `root`, then prints the results."""
    stages = Stages(root)
    print_text(f"Cartwheel demo: {_describe(inputs)}. Results are in {root}/, logs in {stages.logs}/\n")
    dataset = root / "dataset"
    stages.run("prepare", *find_input(stages, inputs), "--output", dataset, creates=dataset)

    kinds = read_manifest(str(dataset)).event_kinds
    only_kind = kinds[0] if len(kinds) == 1 else None
    budget, max_cases = (GROCER_BUDGET, GROCER_CASES) if inputs.data else (BUDGET, MAX_CASES)
    evaluations = {
        preset: _train_and_evaluate(stages, preset, budget, max_cases) for preset in choose_presets(only_kind)
    }
    served = root / "runs" / SERVED
    export, lists = root / "export", root / "recommendations"
    stages.run("export", "--workdir", served, "--output", export, creates=export)
    stages.run("recommend", "--workdir", served, "--output", lists, creates=lists)

    # a log of one kind other than views is about purchases, which people repeat
    shown = _recommendations(export, dataset, with_repeats=only_kind not in (None, "view"))
    print_text(f"\n{results_table(evaluations)}\n\n{shown}\n\n{_paths(root)}")
    return Outcome(stages.seconds, evaluations)


def choose_presets(only_kind: str | None) -> Sequence[str]:
    """Returns the presets that can learn from a log.

    `only_kind` is the event kind of the log; None if there are several.
    """
    return PRESETS if only_kind is None else [preset for preset in PRESETS if preset not in NOTEBOOK_PRESETS]


def _describe(inputs: Inputs) -> str:
    if inputs.data:
        return "a year of purchases at a real grocer"
    return inputs.shop or inputs.events or f"a synthetic shop of {VISITORS:,} visitors"


def find_input(stages: Stages, inputs: Inputs) -> Sequence[str]:
    """Returns the flags of `prepare` for the input files; downloads or synthesizes the files if needed."""
    shop = stages.root / "shop"
    if inputs.data:
        stages.run("download", inputs.data, "--output", shop, creates=shop)
        return "--shop", str(shop / "shop.toml")
    if inputs.shop:
        return "--shop", inputs.shop
    if not inputs.events:
        stages.run("synthesize", "--visitors", VISITORS, "--seed", 0, "--output", shop, creates=shop)
        inputs = Inputs(
            events=str(shop / "events.csv"),
            item_properties=str(shop / "item_properties_part*.csv"),
            category_tree=str(shop / "category_tree.csv"),
        )
    flags = {
        "--events": inputs.events,
        "--item-properties": inputs.item_properties,
        "--category-tree": inputs.category_tree,
    }
    return [word for flag, value in flags.items() if value for word in (flag, value)]


def _train_and_evaluate(stages: Stages, preset: str, budget: str, max_cases: int) -> dict[str, Any]:
    workdir = stages.root / "runs" / preset
    evaluation = workdir / "evaluation-test.json"
    changed = ("--budget", budget) if preset == SERVED else ()
    flags = ("--preset", preset, "--data", stages.root / "dataset", "--workdir", workdir, *changed)
    # an evaluated run is finished; `train` resumes an interrupted one
    stages.run("train", *flags, creates=evaluation, label=preset)
    limit = ("--set", f"max_cases={max_cases}")
    stages.run("evaluate", "--workdir", workdir, *limit, creates=evaluation, label=preset)
    result: dict[str, Any] = json.loads(evaluation.read_text())
    return result


def _recommendations(export: Path, dataset: Path, *, with_repeats: bool) -> str:
    from common.logs import import_tensorflow

    import_tensorflow(verbose=False)  # first, because the next import would import it with all its notices
    from cartwheel.demo.lists import show_recommendations

    lists = show_recommendations(str(export), str(dataset), with_repeats=with_repeats)
    return f"Recommendations of {SERVED} to five returning visitors:\n{lists}"


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
