"""The evaluation job: a run's best model beside the baselines, all ranked by the same evaluator."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from contract import storage
from contract.layout import RunLayout
from contract.schema import Split, SplitMethod
from trainer.config import SquaredErrorConfig
from trainer.models.interface import Scorer
from trainer.ranking.baselines import build_baselines
from trainer.ranking.cases import Cases, build_cases
from trainer.ranking.evaluation import Measurement, evaluate_scorer
from trainer.ranking.intervals import LEVEL, RESAMPLES, bootstrap_interval
from trainer.ranking.ratings import rating_errors
from trainer.ranking.report import ranking_table, rating_table
from trainer.trained_run import TrainedRun, open_trained_run

log = logging.getLogger(__name__)

_SEED = 0  # of the random baseline and the resampled visitors: the same in every evaluation, so that they compare
_LEAKING = (
    "the dataset was split at random: later events leak into training, and no figure here tells how the model would "
    "have done; prepare the dataset with `--split time` for that"
)
_NO_CASES = (
    "no visitor of this split returns and touches an item that is new to him and known to training: there is nobody to "
    "rank for; prepare the dataset with a longer window"
)


def evaluate(*, workdir: str, data: str | None = None, split: Split = Split.TEST) -> dict[str, Any]:
    """Measures a run's best model, writes `evaluation-SPLIT.json` into the run, and logs a table.

    Args:
      workdir: directory of the run.
      data: where its dataset lies now; by default where it lay when the run began.
      split: validation or test.

    Returns:
      What the file holds. `ranking`: every metric of every system, or null where there is nobody to rank for;
      `ratings`: squared errors, of models that predict event weights only.

    Raises:
      ContractError: the dataset is damaged, or has no such split.
      ValueError: there is no such run, it was trained on another dataset, or its model has diverged.
    """
    run = open_trained_run(workdir, data)
    result = {
        "workdir": workdir,
        "dataset": run.dataset.root,
        "dataset_checksum": run.dataset.checksum,
        "split": str(split),
        **evaluate_run(run, split),
    }
    storage.write_bytes(RunLayout(workdir).evaluation(split), (json.dumps(result, indent=2) + "\n").encode())
    _log_tables(result)
    return result


def evaluate_run(run: TrainedRun, split: Split) -> dict[str, Any]:
    """The figures of an opened run."""
    is_leaking = run.dataset.manifest.split_method == SplitMethod.RANDOM
    cases = build_cases(run.dataset, split)
    notes = ([_LEAKING] if is_leaking else []) + ([] if len(cases) else [_NO_CASES])
    return {
        "is_leaking": is_leaking,
        "notes": notes,
        "protocol": "returning visitors, whole catalogue, seen items hidden, ties broken pessimistically",
        "cases": {
            "visitors": len(cases),
            "relevant_items": len(cases.relevant.values),
            "visitors_new": cases.num_new_visitors,
            "visitors_without_relevant_items": cases.num_without_relevant,
            "unknown_item_share": cases.unknown_item_share,
            "catalogue_items": cases.num_items,
        },
        "intervals": {"level": LEVEL, "method": "percentile bootstrap over visitors", "resamples": RESAMPLES},
        "ranking": _measure_beside_baselines(run, cases) if len(cases) else None,
        "ratings": _ratings(run, split),
    }


def measure_systems(systems: Mapping[str, Scorer], cases: Cases) -> dict[str, dict[str, dict[str, float]]]:
    """Every metric of every system as `value`, `low` and `high`; the same resampled visitors for all.

    Coverage has no interval: it is no mean over visitors, and a resample, which holds fewer distinct ones, shows less.
    """
    measured = {}
    for name, scorer in systems.items():
        log.info("ranking %d items for %d visitors: %s", cases.num_items, len(cases), name)
        measured[name] = _estimates(evaluate_scorer(scorer, cases))
    return measured


def _measure_beside_baselines(run: TrainedRun, cases: Cases) -> dict[str, Any]:
    model: dict[str, Scorer] = {run.record.config.model.kind: run.model}
    return measure_systems(model | build_baselines(run.dataset, seed=_SEED), cases)


def _estimates(measurement: Measurement) -> dict[str, dict[str, float]]:
    names = list(measurement.by_visitor)
    low, high = bootstrap_interval(np.stack([measurement.by_visitor[name] for name in names], axis=1), seed=_SEED)
    estimates = {
        name: {"value": measurement.mean(name), "low": float(low[place]), "high": float(high[place])}
        for place, name in enumerate(names)
    }
    return estimates | {name: {"value": value} for name, value in measurement.coverage.items()}


def _ratings(run: TrainedRun, split: Split) -> dict[str, Any] | None:
    loss = run.record.config.loss
    if not isinstance(loss, SquaredErrorConfig):
        return None
    return rating_errors(run.model, run.dataset, split, loss.event_weights).to_json()


def _log_tables(result: Mapping[str, Any]) -> None:
    for note in result["notes"]:
        log.warning("%s", note)
    if result["ranking"]:
        table = ranking_table(result["ranking"])
        log.info("%d returning visitors, 95%% intervals\n\n%s\n", result["cases"]["visitors"], table)
    if result["ratings"]:
        log.info("squared error on event weights\n\n%s\n", rating_table(result["ratings"]))
