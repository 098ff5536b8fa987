"""What the presets are worth beside tuned peers and the baselines: the same split, cases and evaluator for all.

Peers are tuned on the validation window, every setting of `peers.GRIDS`; the presets were tuned on it by hand, which
docs/evaluation.md tells of. The test window is looked at once. What is finished in `--output` is not done again.

    python -m benchmarks.quality --retailrocket FOLDER --output FOLDER
"""

import argparse
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import scipy.sparse as sp

from benchmarks import peers
from benchmarks.harness import report
from benchmarks.quality_runs import epochs_to_reach, prepare, target, train
from benchmarks.quality_shop import shop_figures
from contract.schema import Split
from trainer.dataset import Dataset, open_dataset
from trainer.evaluate import measure_protocol
from trainer.interactions import read_interactions
from trainer.ranking.baselines import build_baselines
from trainer.ranking.cases import Cases, build_cases
from trainer.ranking.evaluation import evaluate_scorer
from trainer.validation import MAX_CASES

log = logging.getLogger(__name__)

PARTS = ("matrix", "time", "sessions", "buyers", "shop")
NEIGHBOURS = ("item_knn", "item_knn_tfidf", "session_knn")
ALS_SWEEPS = 15
_YES_NO = {True: "yes", False: "NO"}


def main() -> None:
    """Measures each dataset that is not measured yet, and reports all."""
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
    print(_table(targets))


def _without_detail(figures: dict[str, Any]) -> dict[str, Any]:
    """For the record: rankings as the protocol has them, without groups and samples; `figures.json` keeps all."""
    measured = figures.get("measured")
    return figures | {"measured": {name: measured[name] for name in ("cases", "ranking")}} if measured else figures


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--retailrocket", required=True, help="folder with retailrocket_matrix, …_sessions, …_buyers")
    parser.add_argument("--output", required=True, help="folder for datasets, runs and what is finished")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; the record is of all of them")
    return parser.parse_args()


def _matrix(source: Path, folder: Path) -> dict[str, Any]:
    """Returning visitors: `mf` beside everything that can rank for them."""
    data = prepare(source, folder)
    dataset = open_dataset(str(data))
    tuned, grids = tune_peers(dataset, folder / "tried.json")
    runs = {
        "mf": train("mf", data, folder),
        "mf_als": train("mf", data, folder, *_equal_to(tuned["implicit_als"]), name="mf_als"),
        "notebook_mf": train("notebook-mf", data, folder),
        "notebook_nn": train("notebook-nn", data, folder),
    }
    systems = {name: run["scorer"] for name, run in runs.items()}
    systems |= {family: peer["fitted"].scorer for family, peer in tuned.items()} | build_baselines(dataset, seed=0)
    # the solver's peer at equal settings: neither of the two solves visitors again from their histories
    equal = {**tuned["implicit_als"]["settings"], "folds_in": False}
    systems["implicit_als_equal"] = peers.fit("implicit_als", equal, read_interactions(dataset, (1.0, 1.0, 1.0))).scorer
    measured = measure_protocol(systems, dataset, Split.TEST, "returning_visitors")
    values = {name: metrics["ndcg@20"]["value"] for name, metrics in measured["ranking"].items()}
    best = max(("implicit_als", "implicit_tfidf"), key=values.__getitem__)
    return {
        "seconds": {name: run["seconds"] for name, run in runs.items()},
        "peers": {
            family: {key: peer[key] for key in ("settings", "validation", "seconds")} for family, peer in tuned.items()
        },
        "grids": grids,
        "measured": measured,
        "targets": [
            target(
                "matrix, returning visitors: mf NDCG@20 / best tuned peer's", 1.12, values["mf"] / values[best], best
            ),
            target(
                "the same: solver=als / implicit's ALS at equal settings",
                0.98,
                values["mf_als"] / values["implicit_als_equal"],
                "the settings above, visitors not solved again",
            ),
        ],
    }


def _time_to_quality(matrix: Path) -> dict[str, Any]:
    """Seconds to the tuned ALS peer's NDCG@20, both timed now, one after the other; best on an idle machine."""
    als = json.loads((matrix / "figures.json").read_text())["peers"]["implicit_als"]
    dataset = matrix / "dataset"
    epochs = epochs_to_reach(matrix / "runs" / "mf", als["validation"])
    mf = train("mf", dataset, matrix, f"epochs={epochs}", name="mf_timed")
    reached = epochs_to_reach(matrix / "runs" / "mf_timed", als["validation"])
    peer = peers.fit("implicit_als", als["settings"], read_interactions(open_dataset(str(dataset)), (1.0, 1.0, 1.0)))
    beside = f"{mf['seconds']:.0f} s ({reached} epochs, validations included) / {peer.seconds:.0f} s"
    ratio = mf["seconds"] / peer.seconds
    what = "the same: seconds until mf reaches the ALS peer's validation NDCG@20 / that peer's fit"
    return {
        "seconds": {"mf": mf["seconds"], "implicit_als": peer.seconds},
        "epochs": reached,
        "targets": [target(what, 2.0, ratio, beside, is_least=False)],
    }


def _sessions(source: Path, folder: Path) -> dict[str, Any]:
    """Next items: `nn` beside the nearest-neighbour baselines."""
    measured, seconds = _next_items(source, folder)
    ranking = measured["ranking"]
    targets = [target("sessions: training of nn, minutes", 10, seconds["nn"] / 60, "", is_least=False)]
    for metric in ("recall@20", "mrr@20"):
        best = max(NEIGHBOURS, key=lambda name: ranking[name][metric]["value"])
        ours, theirs = ranking["nn"][metric], ranking[best][metric]
        apart = "intervals apart" if ours["low"] > theirs["high"] else "intervals overlap"
        ratio = ours["value"] / theirs["value"]
        targets.insert(-1, target(f"sessions, next item: nn {metric} / best kNN's", 1.05, ratio, f"{best}, {apart}"))
    return {"seconds": seconds, "measured": measured, "targets": targets}


def _buyers(source: Path, folder: Path) -> dict[str, Any]:
    """Next items of buyers: `nn` beside the nearest-neighbour baselines, carts and purchases apart."""
    measured, seconds = _next_items(source, folder)
    rankings = {"all": measured["ranking"]}
    rankings |= {kind: measured["groups"][kind]["ranking"] for kind in ("carts", "purchases")}
    targets = []
    for kind, ranking in rankings.items():
        for metric in ("recall@20", "mrr@20"):
            best = max(NEIGHBOURS, key=lambda name: ranking[name][metric]["value"])
            ratio = ranking["nn"][metric]["value"] / ranking[best][metric]["value"]
            targets.append(target(f"buyers, next item ({kind}): nn {metric} / best kNN's", 1.0, ratio, best))
    return {"seconds": seconds, "measured": measured, "targets": targets}


def _next_items(source: Path, folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    data = prepare(source, folder)
    run = train("nn", data, folder)
    dataset = open_dataset(str(data))
    systems = {"nn": run["scorer"]} | build_baselines(dataset, seed=0)
    return measure_protocol(systems, dataset, Split.TEST, "next_item"), {"nn": run["seconds"]}


def tune_peers(dataset: Dataset, tried: Path) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The best setting of each family by NDCG@20 on the validation window, and all that were tried.

    Args:
      tried: a file that keeps what was tried.
    """
    matrix = read_interactions(dataset, (1.0, 1.0, 1.0))
    if not tried.exists():
        cases = build_cases(dataset, Split.VALIDATION).sample(MAX_CASES, seed=0)
        tried.write_text(json.dumps({family: _try_grid(family, matrix, cases) for family in peers.GRIDS}) + "\n")
    grids = json.loads(tried.read_text())
    best = {family: max(grid, key=lambda one: one["validation"]) for family, grid in grids.items()}
    return {
        family: {**one, "fitted": peers.fit(family, one["settings"], matrix)} for family, one in best.items()
    }, grids


def _try_grid(family: str, matrix: sp.csr_matrix, cases: Cases) -> list[dict[str, Any]]:
    grid = []
    for settings, fitted in peers.fit_grid(family, matrix):
        value = evaluate_scorer(fitted.scorer, cases, (20,)).mean("ndcg@20")
        log.info("%s %s: validation NDCG@20 %.4f, fitted in %.1f s", family, settings, value, fitted.seconds)
        grid.append({"settings": dict(settings), "validation": value, "seconds": fitted.seconds})
    return grid


def _equal_to(peer: Mapping[str, Any]) -> list[str]:
    """Settings of `solver=als` that minimize what `implicit` does: unobserved pairs weigh 1, others `alpha`."""
    settings = peer["settings"]
    weight = settings["alpha"] - 1
    return [
        "solver=als",
        f"model.dim={settings['factors']}",
        f"epochs={ALS_SWEEPS}",
        f"loss.event_weights={weight},{weight},{weight}",
        "als.unobserved_weight=1",
        f"als.l2={settings['regularization']}",
    ]


def _table(targets: list[dict[str, Any]]) -> str:
    rows = [
        f"| {row['what']} | {row['target']} | {row['reached']:.3f} | {row['beside']} | {_YES_NO[row['is_met']]} |"
        for row in targets
    ]
    return "\n".join(["| what | target | reached | beside | met |", "|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    main()
