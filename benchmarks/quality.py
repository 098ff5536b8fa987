"""Quality of the presets compared with tuned peers and baselines: the same split, cases and evaluator for all.

Peers and baselines are tuned on the validation window over the `SEARCHES` of `peers` and `nearest`; the presets were
tuned on it by hand (docs/experiments.md). The test window is used once. Parts finished in `--output` are not repeated.

    python -m benchmarks.quality --retailrocket FOLDER --output FOLDER
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.harness import format_reached, report
from benchmarks.nearest import best_neighbours, tune_neighbours
from benchmarks.quality_runs import epochs_to_reach, keep, prepare, target, train
from benchmarks.quality_shop import shop_figures
from benchmarks.tuning import Settings, best_of, search
from contract.schema import Split
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.interactions import read_interactions
from trainer.evaluate import PROTOCOLS, measure_protocol
from trainer.evaluation.baselines import build_baselines
from trainer.evaluation.cases import build_cases
from trainer.evaluation.evaluator import evaluate_scorer
from trainer.evaluation.tables import markdown_table, primary_ranking
from trainer.training.validation import MAX_CASES

log = logging.getLogger(__name__)

PARTS = ("matrix", "time", "sessions", "buyers", "shop")
NEIGHBOURS = ("item_knn", "item_knn_tfidf", "session_knn")
QUICK_ALS = [
    "solver=als",
    "model.dim=384",
    "als.unobserved_weight=0.0062",
    "als.l2=0.00006",
    "epochs=8",
    "patience=none",
]
"""The fastest of the tried settings of the second solver (docs/experiments.md)."""
_YES_NO = {True: "yes", False: "NO"}


def main() -> None:
    """Measures each dataset that has not been measured yet, and records all."""
    given = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    root, source = Path(given.output), Path(given.retailrocket)
    measures: dict[str, Callable[[Path], dict[str, Any]]] = {
        "matrix": lambda folder: _matrix(source / "retailrocket_matrix", folder),
        "time": lambda folder: _time_to_quality(folder.parent / "matrix"),
        "sessions": lambda folder: _sessions(source / "retailrocket_sessions", folder),
        "buyers": lambda folder: _buyers(source / "retailrocket_buyers", folder),
        "shop": shop_figures,
    }
    figures = {}
    for name in given.only or measures:
        measure = measures[name]
        finished = root / name / "figures.json"
        if not finished.exists():
            log.info("measuring %s", name)
            (root / name).mkdir(parents=True, exist_ok=True)
            finished.write_text(json.dumps(measure(root / name), indent=2) + "\n")
        figures[name] = _without_detail(json.loads(finished.read_text()))
    targets = [target for found in figures.values() for target in found["targets"]]
    if set(figures) == set(measures):
        report("quality", {"targets": targets, **figures}, quiet=True)
    for name, found in figures.items():
        print(f"{_format_figures(name, found)}\n")
    print(target_table(targets))


def _without_detail(figures: dict[str, Any]) -> dict[str, Any]:
    """Reduces an evaluation to its primary ranking for the record; `figures.json` keeps everything."""
    measured = figures.get("measured")
    if measured is None:
        return figures
    return figures | {"measured": {"cases": measured["cases"], "ranking": _ranking(measured)}}


def _ranking(measured: dict[str, Any]) -> dict[str, Any]:
    return dict(primary_ranking(measured) or {})


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--retailrocket", required=True, help="folder with retailrocket_matrix, …_sessions, …_buyers")
    parser.add_argument("--output", required=True, help="folder for datasets, runs and finished parts")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="only these parts; the record needs all of them")
    return parser.parse_args()


def _matrix(source: Path, folder: Path) -> dict[str, Any]:
    """Compares `mf` on returning visitors with every system that can rank for them."""
    data = prepare(source, folder)
    dataset = open_dataset(str(data))
    grids = keep(folder / "peers.json", lambda: tune_peers(dataset))
    near = keep(folder / "neighbours.json", lambda: tune_neighbours(dataset, PROTOCOLS["returning_visitors"]))
    tuned = {family: best_of(grid) for family, grid in grids.items()}
    equal = equal_settings(tuned["implicit_als"]["settings"])
    runs = {
        "mf": train("mf", data, folder),
        # after a fixed number of sweeps, as `implicit` does; validation would choose the best of them
        "mf_als": train("mf", data, folder, *equal, name="mf_als", which="last"),
        "notebook_mf": train("notebook-mf", data, folder),
        "notebook_nn": train("notebook-nn", data, folder),
    }
    systems = {name: run["scorer"] for name, run in runs.items()} | build_baselines(dataset, seed=0)
    systems |= best_neighbours(dataset, near)
    matrix = read_interactions(dataset, (1.0, 1.0, 1.0))
    systems |= {family: peers.fit(family, best["settings"], matrix).scorer for family, best in tuned.items()}
    # the peer of the solver at equal settings: both compute visitor vectors from histories
    folding_in = {**tuned["implicit_als"]["settings"], "folds_in": True}
    systems["implicit_als_equal"] = peers.fit("implicit_als", folding_in, matrix).scorer
    measured = measure_protocol(systems, dataset, Split.TEST, "returning_visitors")
    values = {name: metrics["ndcg@20"]["value"] for name, metrics in _ranking(measured).items()}
    best = max(("implicit_als", "implicit_tfidf"), key=values.__getitem__)
    return {
        "seconds": {name: run["seconds"] for name, run in runs.items()},
        "peers": tuned,
        "grids": grids | near,
        "measured": measured,
        "targets": [
            target(
                "matrix, returning visitors: mf NDCG@20 / best tuned peer's", 1.12, values["mf"] / values[best], best
            ),
            target(
                "matrix, returning visitors: solver=als NDCG@20 / implicit's ALS at equal settings",
                0.98,
                values["mf_als"] / values["implicit_als_equal"],
                "last sweep of both; visitor vectors computed from their histories",
            ),
        ],
    }


def _time_to_quality(matrix: Path) -> dict[str, Any]:
    """Times both solvers until they reach the tuned ALS peer's validation NDCG@20; run it on an idle machine.

    Our time is that of the training loop, from the first step to the end of the epoch that reaches the value, with
    checkpoints and one validation. The peer's time is the shorter of two `fit`s, one before and one after our run.
    Reading the data is excluded from both.
    """
    als = json.loads((matrix / "figures.json").read_text())["peers"]["implicit_als"]
    interactions = read_interactions(open_dataset(str(matrix / "dataset")), (1.0, 1.0, 1.0))

    def peer_seconds() -> float:
        return peers.fit("implicit_als", als["settings"], interactions).seconds

    solvers: dict[str, list[str]] = {"mf": [], "mf_als_quick": QUICK_ALS}
    train("mf", matrix / "dataset", matrix, *QUICK_ALS, name="mf_als_quick")
    turns, ours = [peer_seconds()], {}
    for name, settings in solvers.items():
        ours[name] = _seconds_to_reach(matrix, name, settings, als["validation"])
        turns.append(peer_seconds())
    seconds = min(turns)
    words = {"mf": "mf", "mf_als_quick": f"mf with {' '.join(QUICK_ALS[:2])}"}
    return {
        "seconds": {**{name: spent for name, (spent, _) in ours.items()}, "implicit_als": seconds},
        "peer_turns": turns,
        "epochs": {name: epochs for name, (_, epochs) in ours.items()},
        "targets": [
            target(
                f"matrix: training seconds until {words[name]} reaches the validation NDCG@20 of the tuned ALS peer "
                "/ training seconds of that peer",
                2.0,
                spent and spent / seconds,
                f"{spent:.0f} s ({epochs} epochs and a validation) / {seconds:.0f} s" if spent else "",
                is_least=False,
            )
            for name, (spent, epochs) in ours.items()
        ],
    }


def _seconds_to_reach(
    matrix: Path, name: str, settings: Sequence[str], value: float
) -> tuple[float | None, int | None]:
    """Trains a run again up to the epoch that reaches an NDCG@20; returns the seconds and the epochs."""
    epochs = epochs_to_reach(matrix / "runs" / name, value)
    if epochs is None:
        return None, None
    timed = [*settings, f"epochs={epochs}", f"validate_every_epochs={epochs}"]
    seconds = train("mf", matrix / "dataset", matrix, *timed, name=f"{name}_timed")["seconds"]
    if epochs_to_reach(matrix / "runs" / f"{name}_timed", value) is None:
        raise ValueError(f"{name} reached {value:.4f} after {epochs} epochs at first, but not when trained again")
    return seconds, epochs


def _sessions(source: Path, folder: Path) -> dict[str, Any]:
    """Next items: `nn` compared with the nearest-neighbour baselines."""
    figures = _next_items(source, folder)
    ranking, seconds = _ranking(figures["measured"]), figures["seconds"]
    targets = [target("sessions: training of nn, minutes", 10, seconds["nn"] / 60, "", is_least=False)]
    for metric in ("recall@20", "mrr@20"):
        best = max(NEIGHBOURS, key=lambda name: ranking[name][metric]["value"])
        ours, theirs = ranking["nn"][metric], ranking[best][metric]
        apart = "intervals apart" if ours["low"] > theirs["high"] else "intervals overlap"
        ratio = ours["value"] / theirs["value"]
        targets.insert(-1, target(f"sessions, next item: nn {metric} / best kNN's", 1.05, ratio, f"{best}, {apart}"))
    return {**figures, "targets": targets}


def _buyers(source: Path, folder: Path) -> dict[str, Any]:
    """Next items of buyers: `nn` compared with the nearest-neighbour baselines, also for carts and purchases alone."""
    figures = _next_items(source, folder)
    measured = figures["measured"]
    rankings = {"all": _ranking(measured)}
    rankings |= {kind: measured["groups"][kind]["ranking"] for kind in ("addtocart events", "transaction events")}
    targets = []
    for kind, ranking in rankings.items():
        for metric in ("recall@20", "mrr@20"):
            best = max(NEIGHBOURS, key=lambda name: ranking[name][metric]["value"])
            ratio = ranking["nn"][metric]["value"] / ranking[best][metric]["value"]
            targets.append(target(f"buyers, next item ({kind}): nn {metric} / best kNN's", 1.0, ratio, best))
    return {**figures, "targets": targets}


def _next_items(source: Path, folder: Path) -> dict[str, Any]:
    data = prepare(source, folder)
    run = train("nn", data, folder)
    dataset = open_dataset(str(data))
    near = keep(folder / "neighbours.json", lambda: tune_neighbours(dataset, PROTOCOLS["next_item"]))
    systems = {"nn": run["scorer"]} | build_baselines(dataset, seed=0) | best_neighbours(dataset, near)
    measured = measure_protocol(systems, dataset, Split.TEST, "next_item")
    return {"seconds": {"nn": run["seconds"]}, "grids": near, "measured": measured}


def tune_peers(dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    """Tries the settings of each family; returns them with NDCG@20 of returning visitors in the validation window."""
    matrix = read_interactions(dataset, (1.0, 1.0, 1.0))
    cases = build_cases(dataset, Split.VALIDATION).sample(MAX_CASES, seed=0)

    def measured(family: str) -> Callable[[Settings], tuple[float, float]]:
        def measure(settings: Settings) -> tuple[float, float]:
            fitted = peers.fit(family, settings, matrix)
            value = evaluate_scorer(fitted.scorer, cases, (20,)).mean("ndcg@20")
            log.info("%s %s: validation NDCG@20 %.4f, fitted in %.1f s", family, settings, value, fitted.seconds)
            return value, fitted.seconds

        return measure

    return {family: search(what, measured(family)) for family, what in peers.SEARCHES.items()}


def equal_settings(peer: Settings) -> list[str]:
    """Settings of `solver=als` with the objective of `implicit`: weight 1 for unobserved pairs, `alpha` for others."""
    weight = peer["alpha"] - 1
    return [
        "solver=als",
        f"model.dim={peer['factors']}",
        f"epochs={peer['iterations']}",
        "patience=none",
        f"loss.event_weights={weight},{weight},{weight}",
        "als.unobserved_weight=1",
        f"als.l2={peer['regularization']}",
    ]


def _format_figures(name: str, figures: Mapping[str, Any]) -> str:
    """Formats the trials and the training times as Markdown."""
    parts = [f"## {name}"]
    for system, grid in figures.get("grids", {}).items():
        best = best_of(grid)
        rows = [
            [
                ", ".join(f"{key} {value}" for key, value in one["settings"].items()),
                f"**{one['validation']:.4f}**" if one is best else f"{one['validation']:.4f}",
                f"{one['seconds']:.1f}",
            ]
            for one in grid
        ]
        parts.append(markdown_table([system, "validation NDCG@20", "seconds"], rows))
    seconds = [[run, f"{value:.0f}"] for run, value in figures["seconds"].items()]
    return "\n\n".join([*parts, markdown_table(["trained", "seconds"], seconds)])


def target_table(targets: Sequence[Mapping[str, Any]]) -> str:
    """Formats the targets and the reached values as Markdown."""
    rows = [
        [row["what"], row["target"], format_reached(row["reached"]), row["compared_with"], _YES_NO[row["is_met"]]]
        for row in targets
    ]
    return markdown_table(["what", "target", "reached", "compared with", "met"], rows)


if __name__ == "__main__":
    main()
