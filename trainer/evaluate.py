"""The evaluation job: a run's best model beside the baselines, all ranked by the same evaluator."""

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

from common import storage
from common.settings import to_json
from contract.schema import Split, SplitMethod
from trainer.config.run import SquaredErrorConfig
from trainer.data.dataset import Dataset
from trainer.distributed.cluster import join_cluster
from trainer.distributed.replicas import Replicas, preempt_on_worker_loss, start_replicas
from trainer.evaluation.baselines import build_baselines
from trainer.evaluation.cases import Protocol, build_cases, next_items, returning_visitors
from trainer.evaluation.comparison import compare_systems
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.groups import pair_groups
from trainer.evaluation.intervals import LEVEL, RESAMPLES
from trainer.evaluation.ratings import rating_errors
from trainer.evaluation.samples import sample_recommendations
from trainer.evaluation.tables import FOOTNOTE, for_terminal, group_table, ranking_table, rating_table
from trainer.models.interface import Scorer
from trainer.runs.layout import RunLayout
from trainer.trained_run import TrainedRun, open_trained_run

log = logging.getLogger(__name__)

_SEED = 0  # of the random baseline and the resampled visitors: the same in every evaluation, so that they compare
_LEAKING = (
    "the dataset was split at random: later events leak into training, and no figure here tells how the model would "
    "have done; prepare the dataset with `--split time` for that"
)
PROTOCOLS: Mapping[str, Protocol] = {"returning_visitors": returning_visitors, "next_item": next_items}
"""The protocols of an evaluation, by the name that its file gives them."""

_DESCRIPTIONS = {
    "returning_visitors": "the new items that a visitor with a history touches after the cut, seen items hidden; "
    "otherwise: shown, and what such a visitor touches again counts too",
    "next_item": "the item of each row, given all rows of the visitor before it, seen items shown; "
    "otherwise: hidden, for rows whose item is new to the visitor",
}
_NO_CASES = {
    "returning_visitors": "no visitor of this split returns and touches an item that is new to him and known to "
    "training: there is nobody to rank for; prepare the dataset with a longer window",
    "next_item": "no row of this split has an item that training knows and rows of the visitor before it: there is no "
    "next item to rank; prepare the dataset with a longer window",
}
MAX_SCORES = 4_000_000_000
"""Cases times items of a protocol: beyond it a sample of the visitors is measured. A minute a system on two cores."""


def evaluate(
    *, workdir: str, data: str | None = None, split: Split = Split.TEST, config: EvaluationConfig | None = None
) -> dict[str, Any]:
    """Measures a run's best model, writes `evaluation-SPLIT.json` into the run, and logs a table.

    Workers of a cluster (see `cluster.read_cluster`) divide the ranking; the figures are those of one process.

    Args:
      workdir: directory of the run.
      data: where its dataset lies now; by default where it lay when the run began.
      split: validation or test.
      config: of the baselines.

    Returns:
      What the file holds. `protocols`: of each its cases, and every metric of every system (see `compare_systems`), or
      null where there is nobody to rank for; `ratings`: squared errors, of models that predict event weights only.

    Raises:
      ContractError: the dataset is damaged, or has no such split.
      ValueError: there is no such run, it was trained on another dataset, or its model has diverged.
      Preempted: another worker was lost.
    """
    cluster = join_cluster()
    with preempt_on_worker_loss(cluster):
        return _evaluate(workdir, data, split, config or EvaluationConfig(), start_replicas(1, cluster))


def _evaluate(
    workdir: str, data: str | None, split: Split, config: EvaluationConfig, replicas: Replicas
) -> dict[str, Any]:
    run = open_trained_run(workdir, data, replicas)
    result = {
        "workdir": workdir,
        "dataset": run.dataset.root,
        "dataset_checksum": run.dataset.checksum,
        "step": run.step,
        "split": str(split),
        **evaluate_run(run, split, config, replicas),
    }
    if replicas.is_chief:
        storage.write_bytes(RunLayout(workdir).evaluation(split), (json.dumps(result, indent=2) + "\n").encode())
        _log_tables(result)
    replicas.wait_for_all()
    return result


def evaluate_run(
    run: TrainedRun, split: Split, config: EvaluationConfig, replicas: Replicas | None = None
) -> dict[str, Any]:
    """The figures of an opened run; several workers share the ranking and all get the same."""
    is_leaking = run.dataset.manifest.split_method == SplitMethod.RANDOM
    model: dict[str, Scorer] = {run.record.config.model.kind: run.model}
    systems = model | build_baselines(run.dataset, seed=_SEED, config=config.neighbours)
    protocols = {name: measure_protocol(systems, run.dataset, split, name, replicas) for name in PROTOCOLS}
    empty = [_NO_CASES[name] for name, figures in protocols.items() if figures["ranking"] is None]
    return {
        "is_leaking": is_leaking,
        "notes": ([_LEAKING] if is_leaking else []) + empty,
        "config": to_json(config),
        "ranked": "the whole catalogue, ties broken pessimistically",
        "intervals": {"level": LEVEL, "method": "percentile bootstrap over visitors", "resamples": RESAMPLES},
        "protocols": protocols,
        "ratings": _ratings(run, split, replicas),
    }


def measure_protocol(
    systems: Mapping[str, Scorer], dataset: Dataset, split: Split, protocol: str, replicas: Replicas | None = None
) -> dict[str, Any]:
    """The cases of one of the `PROTOCOLS`, what `compare_systems` tells of them, null without a case, and `samples`."""
    all_cases, item_counts = build_cases(dataset, split, PROTOCOLS[protocol]), dataset.item_counts()
    cases = all_cases.sample(max(MAX_SCORES // dataset.num_items, 1), seed=_SEED)
    counts = {
        "visitors": cases.num_visitors,
        "cases": len(cases),
        "cases_in_all": len(all_cases),
        "relevant_items": len(cases.relevant.values),
        "without_history": all_cases.num_without_history,
        "without_relevant_items": all_cases.num_without_relevant,
        "unknown_item_share": all_cases.unknown_item_share,
        "catalogue_items": cases.num_items,
    }
    figures: dict[str, Any] = dict.fromkeys(("ranking", "ranking_otherwise", "groups", "pairs")) | {"samples": []}
    if len(cases):
        groups = pair_groups(cases, item_counts, dataset.num_visitors)
        figures = compare_systems(systems, cases, groups, item_counts, seed=_SEED, replicas=replicas)
        figures["samples"] = sample_recommendations(systems, cases, dataset, seed=_SEED)
    return {"protocol": _DESCRIPTIONS[protocol], "hides_seen": cases.hides_seen, "cases": counts, **figures}


def _ratings(run: TrainedRun, split: Split, replicas: Replicas | None) -> dict[str, Any] | None:
    loss = run.record.config.loss
    if not isinstance(loss, SquaredErrorConfig):
        return None
    return rating_errors(run.model, run.dataset, split, loss.event_weights, replicas).to_json()


def _log_tables(result: Mapping[str, Any]) -> None:
    for note in result["notes"]:
        log.warning("%s", note)
    for name, figures in result["protocols"].items():
        if figures["ranking"]:
            tables = [ranking_table(figures["ranking"]), f"by group:\n\n{group_table(figures['groups'])}"]
            if figures["ranking_otherwise"]:
                table = ranking_table(figures["ranking_otherwise"])
                tables.insert(
                    1, f"the same with seen items {'shown' if figures['hides_seen'] else 'hidden'}:\n\n{table}"
                )
            cases = figures["cases"]
            head = f"{name}: {figures['protocol']}. {cases['cases']} cases of {cases['visitors']} visitors"
            told = "\n\n".join(tables)
            log.info("%s\n\n%s\n\n%s\n", head, for_terminal(told) if sys.stderr.isatty() else told, FOOTNOTE)
    if result["ratings"]:
        log.info("squared error on event weights\n\n%s\n", rating_table(result["ratings"]))
