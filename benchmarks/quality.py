"""Compares the presets with tuned peers on several datasets. All systems use the same split, cases and evaluator.

Peers are tuned on the validation window over the search spaces of `peers.families`: first alone, then with the trend of
the items added to their scores. The test window is used only once. Trials, measures and runs that are already in
`--output` are not repeated.

    python -m benchmarks.quality --retailrocket FOLDER --output FOLDER
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import format_reached, read_commit, report
from benchmarks.peers.families import FAMILIES
from benchmarks.peers.interface import PeerData
from benchmarks.quality_als import als_figures
from benchmarks.quality_data import (
    DATASETS,
    MAX_CASES,
    MAX_SCORES,
    TUNING_CASES,
    TUNING_SCORES,
    QualityData,
)
from benchmarks.quality_measures import (
    BASELINE,
    BY_IDS,
    ByCase,
    ByIds,
    MeasureFiles,
    best_peers,
    compare,
    difference,
    measure_peers,
    measure_scorers,
    rankings_of,
)
from benchmarks.quality_ranking import ranked_blocks, task_cases
from benchmarks.quality_runs import time_evaluation, train
from benchmarks.quality_shop import shop_figures
from benchmarks.quality_targets import dataset_targets
from benchmarks.quality_tuning import TUNED_BY, TrialFile, restore_trials, summarize, tune_family
from benchmarks.tuning import best_of
from contract.schema import Split
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.trend import ItemEvents, read_item_events
from trainer.evaluation.baselines import build_baselines
from trainer.evaluation.cases import Cases
from trainer.evaluation.tables import markdown_table
from trainer.models.interface import Scorer

log = logging.getLogger(__name__)

PARTS = (*DATASETS, "als", "cold")
_SEED = 0
_YES_NO = {True: "yes", False: "NO"}


def main() -> None:
    """Measures the requested parts of the benchmark, unless measured earlier; records the figures of all parts."""
    given = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    root, source = Path(given.output), Path(given.retailrocket)
    finished = {part: root / part / "figures.json" for part in PARTS}
    for part in given.only or PARTS:
        if not finished[part].exists():
            log.info("measuring %s", part)
            (root / part).mkdir(parents=True, exist_ok=True)
            found = {"commit": read_commit()} | _measure(part, source, root, given.trials)
            finished[part].write_text(json.dumps(found, indent=1) + "\n")
    figures = {part: json.loads(path.read_text()) for part, path in finished.items() if path.exists()}
    if missing := sorted(set(PARTS) - set(figures)):
        log.warning("the record lacks these parts, which are not measured yet: %s", ", ".join(missing))
    targets = [target for found in figures.values() for target in found["targets"]]
    report("quality", {"targets": targets, **figures}, quiet=True)
    for name, found in figures.items():
        print(f"{_format_figures(name, found)}\n")
    print(target_table(targets))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--retailrocket",
        required=True,
        help="folder with retailrocket_matrix, retailrocket_sessions and retailrocket_buyers",
    )
    parser.add_argument("--output", required=True, help="folder for datasets, runs and finished parts")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        help="parts to measure (default: all); the record also contains all parts that were measured before",
    )
    parser.add_argument(
        "--trials",
        type=Path,
        metavar="RECORD",
        help="an earlier record of this benchmark; its tuning trials of peers are not repeated",
    )
    return parser.parse_args()


def _measure(part: str, source: Path, root: Path, trials: Path | None) -> dict[str, Any]:
    special: Mapping[str, Callable[[], dict[str, Any]]] = {
        "als": lambda: als_figures(root / "matrix"),
        "cold": lambda: shop_figures(root / "cold"),
    }
    return special[part]() if part in special else dataset_figures(part, DATASETS[part], source, root / part, trials)


def dataset_figures(
    name: str, quality_data: QualityData, source: Path, folder: Path, trials: Path | None = None
) -> dict[str, Any]:
    """Tunes the peers, trains the presets and measures all systems on the test window.

    Args:
      name: name of the dataset.
      quality_data: how to prepare the dataset, and the presets to train.
      source: folder of the Retailrocket data.
      folder: folder for the dataset and all other files.
      trials: an earlier record, whose tuning trials are not repeated; None: all peers are tuned.

    Returns:
      `dataset_checksum`: checksum of the dataset.
      `seconds`: training time of each preset.
      `evaluation_seconds`: time of the command `evaluate` for a run of `auto`; None if it is not timed.
      `items`: number of items.
      `tasks`: by task, the result of `_compare_task`.
      `tuned`: by peer and task, the result of `summarize`.
      `grids`: by peer and task, the result of `tune_family`.
      `targets`: rows of the table of targets.
    """
    path = quality_data.prepare(source, folder)
    dataset = open_dataset(str(path))
    if trials is not None:
        restore_trials(trials, name, dataset.checksum, folder / "peers")
    data = PeerData(dataset)
    runs = {run.preset: train(run.preset, path, folder, flags=run.flags) for run in quality_data.runs}
    grids: dict[str, dict[str, Any]] = {}
    tasks: dict[str, Any] = {}
    for protocol in quality_data.protocols:
        tuned = tune_peers(dataset, data, protocol, folder / "peers")
        cases = task_cases(dataset, Split.TEST, protocol, max_cases=MAX_CASES, max_scores=MAX_SCORES)
        files = MeasureFiles(folder / "measures", dataset.checksum)
        measure_peers(tuned, data, partial(ranked_blocks, cases, data.events), files)
        scorers = {preset: run["scorer"] for preset, run in runs.items()}
        names = _measure_own(scorers, dataset, cases, files)
        for task, of_task in cases.items():
            measures = {name: _found(files, task, name) for name in names} | {
                ranking.system: _found(files, task, ranking.system, ranking.key)
                for family, by_task in tuned.items()
                for ranking in (rankings_of(family, by_task[task]) if task in by_task else ())
            }
            tasks[task] = _compare_task(measures, of_task)
        for family, results in tuned.items():
            grids.setdefault(family, {}).update(results)
    timed = quality_data.timed_evaluation
    figures = {
        "dataset_checksum": dataset.checksum,
        "seconds": {preset: run["seconds"] for preset, run in runs.items()},
        "evaluation_seconds": timed and time_evaluation(timed, path, folder),
        "items": dataset.num_items,
        "tasks": tasks,
        "tuned": {
            family: {task: summarize(result) for task, result in found.items()} for family, found in grids.items()
        },
        "grids": grids,
    }
    return figures | {"targets": dataset_targets(name, figures)}


def tune_peers(dataset: Dataset, data: PeerData, protocol: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Tunes each kind of peer in `FAMILIES` for an evaluation protocol; returns the trials by kind and task."""
    cases = task_cases(dataset, Split.VALIDATION, protocol, max_cases=TUNING_CASES, max_scores=TUNING_SCORES)
    (block,) = ranked_blocks(cases, data.events)
    return {
        name: tune_family(name, family, data, block, TrialFile(folder / f"{name}.json", dataset.checksum))
        for name, family in FAMILIES.items()
        if set(family.tasks) & set(cases)
    }


def _measure_own(
    models: Mapping[str, Scorer], dataset: Dataset, cases: Mapping[str, Cases], files: MeasureFiles
) -> list[str]:
    """Measures trained models and baselines; returns the names of all measured systems.

    Each model is also measured without the kinds and times of events, which `recommend` of an export does not receive.
    The keys of `models` are presets, those of `cases` are tasks.
    """
    events = read_item_events(dataset)
    scorers = {**models, **{f"{name}{BY_IDS}": ByIds(model) for name, model in models.items()}}
    measure_scorers(lambda: scorers, list(scorers), cases, files, events)
    baselines = _Baselines(dataset, events)
    measure_scorers(baselines.build, baselines.names, cases, files, events)
    return [*scorers, *baselines.names]


class _Baselines:
    def __init__(self, dataset: Dataset, events: ItemEvents) -> None:
        self._dataset, self._events = dataset, events
        self.names = [f"{BASELINE}{name}" for name in ("popular", "trending", "item_walk", "session_knn")]

    def build(self) -> dict[str, Scorer]:
        built = build_baselines(self._dataset, self._events, seed=_SEED)
        return {f"{BASELINE}{name}": scorer for name, scorer in built.items()}


def _found(files: MeasureFiles, task: str, system: str, settings: str = "") -> ByCase:
    by_case = files.find(task, system, settings)
    if by_case is None:
        raise ValueError(f"no measure of {system} is stored for the task {task}; run the benchmark again")
    return by_case


def _compare_task(measures: Mapping[str, ByCase], cases: Cases) -> dict[str, Any]:
    best = best_peers(measures)
    baseline = max(
        (name for name in measures if name.startswith(BASELINE)), key=lambda name: measures[name][TUNED_BY].mean()
    )
    return {
        "cases": len(cases),
        "visitors": cases.num_visitors,
        "best_peers": best,
        "best_baseline": baseline,
        "ranking": compare(measures, cases, reference=best[TUNED_BY]["any"]),
        "difference_from_baseline": {
            name: difference(by_case, measures[baseline], cases) for name, by_case in measures.items()
        },
    }


def _format_figures(name: str, figures: Mapping[str, Any]) -> str:
    """Formats the tuning trials and training times in `figures` as Markdown."""
    parts = [f"## {name}"]
    for family, by_task in figures.get("grids", {}).items():
        for task, result in by_task.items():
            trials = [*result["grid"], *result["trend_grid"]]
            best = best_of(result["grid"]), best_of(result["trend_grid"]) if result["trend_grid"] else None
            rows = [
                [
                    ", ".join(f"{key} {value}" for key, value in trial["settings"].items()),
                    f"**{trial['validation']:.4f}**" if trial in best else f"{trial['validation']:.4f}",
                    f"{trial['seconds']:.1f}",
                ]
                for trial in trials
            ]
            parts.append(markdown_table([f"{family}, {task}", "validation NDCG@20", "seconds"], rows))
    seconds = [[run, f"{value:.0f}"] for run, value in figures["seconds"].items()]
    return "\n\n".join([*parts, markdown_table(["trained", "seconds"], seconds)])


def target_table(targets: Sequence[Mapping[str, Any]]) -> str:
    """Formats the rows of targets as a Markdown table."""
    rows = [
        [row["what"], row["target"], format_reached(row["reached"]), row["compared_with"], _YES_NO[row["is_met"]]]
        for row in targets
    ]
    return markdown_table(["what", "target", "reached", "compared with", "met"], rows)


if __name__ == "__main__":
    main()
