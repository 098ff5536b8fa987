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

    Needs an idle machine, and the results of `quality` in the folder `matrix`.
    """
    peer = json.loads((matrix / "figures.json").read_text())["tuned"]["als"]["new"]["settings"]
    equal, timing = _equal_settings_figures(matrix, peer), _time_figures(matrix, peer)
    return timing | {
        "seconds": equal["seconds"] | timing["seconds"],
        "targets": equal["targets"] + timing["targets"],
    }


def _equal_settings_figures(matrix: Path, peer: Settings) -> dict[str, Any]:
    """Compares NDCG@20 of `mf`'s and `implicit`'s ALS at equal settings; `peer` has `implicit`'s settings."""
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
    """Times how long `mf` trains, with its default solver and with ALS, to reach the NDCG@20 of `implicit`'s ALS.

    The time includes checkpoints and one validation.
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
    """Repeats a finished run of `mf` up to the epoch that reached a validation NDCG@20 of `value`.

    Args:
      matrix: folder of the dataset.
      name: name of the finished run.
      settings: the run's changes to the preset.
      value: the NDCG@20 to reach.

    Returns:
      Seconds and number of epochs; both None if the finished run never reached the value.

    Raises:
      ValueError: the repeated run did not reach the value.
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
    """Translates settings of `implicit`'s ALS into settings of `mf` with the same objective, vector size and sweeps."""
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
