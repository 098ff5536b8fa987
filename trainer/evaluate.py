"""The evaluation job: ranks the catalogue with a run's best model and the baselines, and compares their metrics."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from common import storage
from common.json_files import encode_json
from common.settings import to_json
from contract.schema import Split, SplitMethod
from trainer.config.losses import SquaredErrorConfig
from trainer.data.dataset import Dataset
from trainer.data.offer import available_items
from trainer.data.trend import ItemEvents, read_item_events
from trainer.distributed.cluster import join_cluster
from trainer.distributed.replicas import Replicas, preempt_on_worker_loss, start_replicas
from trainer.evaluation.baselines import build_baselines
from trainer.evaluation.blend_weights import set_trends
from trainer.evaluation.cases import Protocol, build_cases, next_items, returning_visitors
from trainer.evaluation.comparison import compare_systems
from trainer.evaluation.config import EvaluationConfig
from trainer.evaluation.groups import pair_groups
from trainer.evaluation.intervals import LEVEL, RESAMPLES
from trainer.evaluation.ratings import rating_errors
from trainer.evaluation.samples import sample_recommendations
from trainer.evaluation.tables import AVAILABLE_ONLY, primary_ranking
from trainer.models.interface import Scorer
from trainer.models.trained_run import TrainedRun, open_trained_run
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

_SEED = 0  # for the random baseline and the resampling; fixed, so that evaluations are comparable
_LEAKING = (
    "the dataset was split at random, so later events leak into training and these results do not predict the "
    "performance of the model in production; run `prepare` with `--split time` for results that do"
)
PROTOCOLS: Mapping[str, Protocol] = {"returning_visitors": returning_visitors, "next_item": next_items}
"""Evaluation protocols, by their names in the evaluation file."""

_DESCRIPTIONS = {
    "returning_visitors": "the items that a visitor with earlier events interacts with for the first time in this "
    "split; seen items are hidden (if they are shown, all items of the visitor in this split are relevant)",
    "next_item": "the item of each event, predicted from all earlier events of the visitor; seen items are shown (if "
    "they are hidden, only events with an item that is new to the visitor are cases)",
}
_NO_CASES = {
    "returning_visitors": "returning visitors: there are no cases, because no visitor with earlier events interacts in "
    "this split with an item of the catalogue that is new to them; prepare the dataset with a longer split",
    "next_item": "next item: there are no cases, because no visitor with earlier events interacts in this split with "
    "an item of the catalogue; prepare the dataset with a longer split",
}
MAX_SCORES = 200_000_000
"""Maximum of cases × items per protocol; if there are more, a sample of the cases is evaluated. The maximum takes about
two seconds per system on two cores. The intervals include the sampling error. Four times as many cases halve the width
of an interval at best. If visitors have many cases, the gain is smaller, because the cases of a visitor are correlated.
"""


def evaluate(
    *, workdir: str, data: str | None = None, split: Split = Split.TEST, config: EvaluationConfig | None = None
) -> dict[str, Any]:
    """Evaluates a run's best model, and writes `evaluation-SPLIT.json` into the run.

    In a cluster (see `cluster.read_cluster`), each worker ranks a part of the cases.

    Args:
      workdir: directory of the run.
      data: directory of the run's dataset; None: the path that the run was trained from.
      split: validation or test.
      config: determines the cases and their relevant items; None: the default settings.

    Returns:
      The content of the file. The most important entries are:
      - `main_protocol`: the protocol that the model is trained for.
      - `protocols`: for each protocol, the result of `measure_protocol`.
      - `ratings`: the fields of `RatingErrors`; null if the model does not predict event weights.

    Raises:
      ContractError: the dataset is damaged, or has no such split.
      ValueError: `workdir` contains no run; or the run was trained on other data or on all splits, or diverged.
      Preempted: another worker was lost.
    """
    cluster = join_cluster()
    with preempt_on_worker_loss(cluster):
        return _evaluate(workdir, data, split, config or EvaluationConfig(), start_replicas(1, cluster))


def _evaluate(
    workdir: str, data: str | None, split: Split, config: EvaluationConfig, replicas: Replicas
) -> dict[str, Any]:
    run = open_trained_run(workdir, data, replicas)
    if run.record.refit_of is not None:
        raise ValueError(
            f"{workdir} is a refit: it was trained on the events of all splits, so no events are left to "
            f"evaluate it on; evaluate {run.record.refit_of['run']}, its original run"
        )
    result = {
        "workdir": workdir,
        "dataset": run.dataset.root,
        "dataset_checksum": run.dataset.checksum,
        "step": run.step,
        "split": str(split),
        **evaluate_run(run, split, config, replicas),
    }
    if replicas.is_chief:
        storage.write_bytes(RunLayout(workdir).evaluation(split), encode_json(result))
        for note in result["notes"]:
            log.warning("%s", note)
    replicas.wait_for_all()
    return result


def evaluate_run(
    run: TrainedRun, split: Split, config: EvaluationConfig, replicas: Replicas | None = None
) -> dict[str, Any]:
    """Evaluates a run like `evaluate`, but does not write the results.

    Args:
      split: validation or test.
      config: determines the cases and their relevant items.
      replicas: all replicas; each worker ranks a part of the cases. None: this process ranks all cases.
    """
    is_leaking = run.dataset.manifest.split_method == SplitMethod.RANDOM
    targets, name = config.evaluate if config.evaluate.kinds else run.record.config.evaluate, run.record.config.name
    targets.check_kinds(run.dataset.manifest.event_kinds)
    config = replace(config, evaluate=targets)
    events = read_item_events(run.dataset)
    baselines = build_baselines(run.dataset, events, seed=_SEED, kinds=targets.kinds)
    systems = {f"{name} (model)" if name in baselines else name: run.model, **baselines}
    protocols = {
        name: measure_protocol(systems, run.dataset, split, name, config, replicas, events) for name in PROTOCOLS
    }
    without_cases = [_NO_CASES[name] for name, figures in protocols.items() if primary_ranking(figures) is None]
    return {
        "is_leaking": is_leaking,
        "notes": ([_LEAKING] if is_leaking else []) + without_cases,
        "config": to_json(config),
        "event_kinds": list(targets.kinds or run.dataset.manifest.event_kinds),
        "ranked": "the whole catalogue, ties broken pessimistically",
        "intervals": {"level": LEVEL, "method": "percentile bootstrap over visitors", "resamples": RESAMPLES},
        "main_protocol": "next_item" if run.record.config.is_sequential else "returning_visitors",
        "protocols": protocols,
        "ratings": _ratings(run, split, replicas),
    }


def measure_protocol(
    systems: Mapping[str, Scorer],
    dataset: Dataset,
    split: Split,
    protocol: str,
    config: EvaluationConfig | None = None,
    replicas: Replicas | None = None,
    events: ItemEvents | None = None,
) -> dict[str, Any]:
    """Evaluates all systems on the cases of one protocol.

    Args:
      systems: scorers by name, the model first.
      split: validation or test.
      protocol: name of the protocol, a key of `PROTOCOLS`.
      config: determines the cases and their relevant items; None: the default settings.
      replicas: all replicas; each worker ranks a part of the cases. None: this process ranks all cases.
      events: all events of the dataset, for the trends; None: they are read from the dataset.

    Returns:
      `protocol`: a description of the protocol. `cases`: the numbers of cases, visitors and items. `samples`: the
        result of `sample_recommendations`. All other entries are those of `compare_systems`; rankings without cases are
        null.
    """
    config = config or EvaluationConfig()
    all_cases = build_cases(dataset, split, PROTOCOLS[protocol], config.evaluate.kinds)
    item_counts, is_available = dataset.item_counts, available_items(dataset)
    cases = all_cases.sample_cases(config.max_cases or max(MAX_SCORES // dataset.num_items, 1), seed=_SEED)
    counts = {
        "visitors": cases.num_visitors,
        "cases": len(cases),
        "cases_in_all": len(all_cases),
        "relevant_items": len(cases.relevant.values),
        "without_history": all_cases.num_without_history,
        "without_relevant_items": all_cases.num_without_relevant,
        "unknown_item_share": all_cases.unknown_item_share,
        "catalogue_items": cases.num_items,
        "available_items": cases.num_items if is_available is None else int(is_available.sum()),
    }
    if len(cases):
        set_trends(systems.values(), cases, events or read_item_events(dataset))
        groups = pair_groups(cases, item_counts, dataset.num_visitors)
        figures = compare_systems(
            systems, cases, groups, item_counts, seed=_SEED, replicas=replicas, is_available=is_available
        )
        samples = sample_recommendations(systems, cases, dataset, seed=_SEED)
    else:
        rankings = dict.fromkeys([*cases.rankings, AVAILABLE_ONLY])
        figures = {"primary": cases.rankings[0], "rankings": rankings, "groups": {}, "pairs": {}}
        samples = []
    return {"protocol": _DESCRIPTIONS[protocol], "cases": counts, **figures, "samples": samples}


def _ratings(run: TrainedRun, split: Split, replicas: Replicas | None) -> dict[str, Any] | None:
    loss = run.record.config.loss
    if not isinstance(loss, SquaredErrorConfig):
        return None
    weights = loss.weights_by_kind(run.dataset.manifest)
    return rating_errors(run.model, run.dataset, split, weights, replicas).to_json()
