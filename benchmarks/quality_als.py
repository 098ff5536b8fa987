"""Compares the ALS of `mf` with the ALS of `implicit`: quality at equal settings, and time to equal quality."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import timed
from benchmarks.peers.implicit_models import fit_als
from benchmarks.peers.interface import Peer, PeerData
from benchmarks.quality_data import MAX_CASES, MAX_SCORES
from benchmarks.quality_ranking import ranked_blocks, task_cases
from benchmarks.quality_runs import epochs_to_reach, target, train
from benchmarks.quality_tuning import TUNED_BY
from benchmarks.tuning import Settings
from contract.schema import Split
from trainer.data.dataset import open_dataset
from trainer.evaluation.cases import Cases, build_cases
from trainer.evaluation.evaluator import evaluate_scorer
from trainer.training.validation import MAX_CASES as VALIDATION_CASES

log = logging.getLogger(__name__)

QUICK_ALS = [
    "solver=als",
    "model.dim=384",
    "als.unobserved_weight=0.0062",
    "als.l2=0.00006",
    "epochs=8",
    "patience=none",
]
"""The fastest of the tried settings of `solver=als` (docs/experiments.md)."""


def als_figures(matrix: Path) -> dict[str, Any]:
    """Compares the ALS of `mf` with the ALS of `implicit` on the dataset "matrix".

    The machine should be idle, because training is timed.

    Args:
      matrix: folder of the dataset "matrix". `quality` must have measured this dataset before.
    """
    peer = json.loads((matrix / "figures.json").read_text())["tuned"]["als"]["new"]["settings"]
    equal, timing = _equal_settings_figures(matrix, peer), _time_figures(matrix, peer)
    return timing | {
        "seconds": equal["seconds"] | timing["seconds"],
        "targets": equal["targets"] + timing["targets"],
    }


def _equal_settings_figures(matrix: Path, peer: Settings) -> dict[str, Any]:
    """Compares the NDCG@20 of both implementations, with the same objective and the same number of sweeps.

    `peer` has the settings of `implicit`'s tuned ALS. `equal_settings` derives the settings of `mf` from them.
    """
    dataset = open_dataset(str(matrix / "dataset"))
    # after a fixed number of sweeps, as `implicit` does; validation would choose the best of them
    run = train("mf", matrix / "dataset", matrix, *equal_settings(peer), name="mf_als", which="last")
    data = PeerData(dataset)
    cases = task_cases(dataset, Split.TEST, "returning_visitors", max_cases=MAX_CASES, max_scores=MAX_SCORES)["new"]
    # both compute visitor vectors from histories
    theirs = _mean_metric(fit_als(data, **{**peer, "folds_in": True, "is_binary": True}), cases, data)
    ours = evaluate_scorer(run["scorer"], cases, (20,)).mean(TUNED_BY)
    return {
        "seconds": {"mf_als": run["seconds"]},
        "targets": [
            target(
                "matrix, returning visitors: solver=als NDCG@20 / implicit's ALS at equal settings",
                0.98,
                ours / theirs,
                "last sweep of both; visitor vectors computed from their histories",
            )
        ],
    }


def _mean_metric(peer: Peer, cases: Cases, data: PeerData) -> float:
    values = []
    for block in ranked_blocks({"new": cases}, data.events):
        block.load(peer)
        values.append(block.rank("new")[TUNED_BY])
        block.unload()
    return float(np.concatenate(values).mean())


def _time_figures(matrix: Path, peer: Settings) -> dict[str, Any]:
    """Times two runs of `mf`, with the default solver and with ALS, until they reach the NDCG@20 of the tuned ALS peer.

    NDCG@20 is measured on the validation window. The time of a run is the time of its training loop up to the end of
    the epoch that reaches this NDCG@20; it includes checkpoints and one validation. The peer is fitted before and after
    each run, and the time of the fastest fit is used. No time includes reading the data.
    """
    data = PeerData(open_dataset(str(matrix / "dataset")))
    # the cases that validate our runs; building them also reads the data before the first timing
    validation = build_cases(data.dataset, Split.VALIDATION).sample(VALIDATION_CASES, seed=0)
    goal = _mean_metric(fit_als(data, **peer), validation, data)
    log.info("ALS reaches a validation NDCG@20 of %.4f", goal)

    def peer_seconds() -> float:
        return timed(lambda: fit_als(data, **peer))

    solvers: dict[str, list[str]] = {"mf": [], "mf_als_quick": QUICK_ALS}
    train("mf", matrix / "dataset", matrix, *QUICK_ALS, name="mf_als_quick")
    turns, ours = [peer_seconds()], {}
    for name, settings in solvers.items():
        ours[name] = _seconds_to_reach(matrix, name, settings, goal)
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
    """Trains a finished run again, up to the epoch in which it reached the NDCG@20 `value`.

    Args:
      matrix: folder of the dataset.
      name: name of the finished run.
      settings: settings of the preset `mf` that the finished run changed.
      value: the NDCG@20 to reach on the validation window.

    Returns:
      The seconds of the second training and its number of epochs; None and None if the finished run never reached the
      value.

    Raises:
      ValueError: the finished run reached the value, but the second training does not.
    """
    epochs = epochs_to_reach(matrix / "runs" / name, value)
    if epochs is None:
        return None, None
    timed = [*settings, f"epochs={epochs}", f"validate_every_epochs={epochs}"]
    seconds = train("mf", matrix / "dataset", matrix, *timed, name=f"{name}_timed")["seconds"]
    if epochs_to_reach(matrix / "runs" / f"{name}_timed", value) is None:
        raise ValueError(
            f"{name} reached an NDCG@20 of {value:.4f} after {epochs} epochs, but not when it was trained again; "
            f"delete {name} and {name}_timed in {matrix / 'runs'} and run the benchmark again"
        )
    return seconds, epochs


def equal_settings(peer: Settings) -> list[str]:
    """Returns settings of `mf` that give `solver=als` the objective, the size and the sweeps of `implicit`'s ALS.

    `peer` has the settings of `implicit`'s ALS. In its objective, unobserved pairs have weight 1, and observed pairs
    have weight `alpha`.
    """
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
