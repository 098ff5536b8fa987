"""Measures tuned peers and trained runs on the test window, each once, and compares them.

Shapes: V cases of a task.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from benchmarks.peers.families import FAMILIES
from benchmarks.peers.interface import PeerData
from benchmarks.peers.trend import TrendSettings
from benchmarks.quality_ranking import METRICS, RankedBlock
from benchmarks.quality_tuning import TUNED_BY
from benchmarks.tuning import Settings, best_of
from trainer.data.trend import ItemEvents
from trainer.evaluation.blend_weights import set_trends
from trainer.evaluation.cases import Cases
from trainer.evaluation.evaluator import evaluate_scorer
from trainer.evaluation.intervals import paired_p_values, percentile_interval, resampled_means
from trainer.models.interface import Queries, Scorer
from trainer.ranking.topk import scores_for

log = logging.getLogger(__name__)

ByCase = Mapping[str, np.ndarray]
"""The values [V] of each metric in `METRICS`, by name."""
WITH_TREND = " with trend"
"""Suffix in the name of a peer with a trend."""
BY_IDS = " by ids"
"""Suffix in the name of a model that gets the items of a history, but not the kinds and times of its events."""
BASELINE = "baseline "
"""Prefix in the names of the baselines. The report of a run has the same baselines."""
_SEED = 0


class MeasureFiles:
    """Stores the test metrics of each system, one file per task and system."""

    def __init__(self, folder: Path, checksum: str) -> None:
        self._folder, self._checksum = folder, checksum

    def find(self, task: str, system: str, settings: str = "") -> ByCase | None:
        """Returns a system's stored metrics for each case; None if there are none for these settings.

        Raises:
          ValueError: the metrics belong to another dataset.
        """
        file = self._file(task, system)
        if not file.exists():
            return None
        with np.load(file) as arrays:
            if str(arrays["dataset_checksum"]) != self._checksum:
                raise ValueError(f"{file} was measured on another dataset; delete it to measure {system} again")
            is_same = str(arrays["settings"]) == settings
            return {metric: arrays[metric] for metric in METRICS} if is_same else None

    def add(self, task: str, system: str, by_case: ByCase, settings: str = "") -> None:
        """Stores a system's metrics for each case of a task. Replaces metrics that were stored for other settings."""
        file = self._file(task, system)
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {metric: by_case[metric] for metric in METRICS}
        np.savez(file, dataset_checksum=self._checksum, settings=settings, **arrays)

    def _file(self, task: str, system: str) -> Path:
        return self._folder / task / f"{system.replace(' ', '-')}.npz"


class ByIds:
    """Hides the kinds and times of events from a scorer, as in requests to an export."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return self.policy_scores(queries)(True)

    def policy_scores(self, queries: Queries) -> Callable[[tf.Tensor | bool], tf.Tensor]:
        """Returns a function that computes float32 scores [B, I]. Its argument: whether to hide the history's items."""
        by_ids = Queries.of_items(queries.visitor, queries.history, queries.history_length)
        # with the time of the request, because the trend of an export is up to date
        return scores_for(self._scorer, by_ids._replace(timestamp_ms=queries.timestamp_ms))


def measure_peers(
    tuned: Mapping[str, Mapping[str, Mapping[str, Any]]],
    data: PeerData,
    make_blocks: Callable[[], Sequence[RankedBlock]],
    files: MeasureFiles,
) -> None:
    """Measures each tuned peer on each task, without and with its best trend, unless the metrics are already stored.

    Args:
      tuned: by peer, the result of `tune_family`.
      data: the training events.
      make_blocks: returns the test cases; called only if metrics are missing.
      files: the stored metrics.
    """
    blocks: Sequence[RankedBlock] = ()
    for name, by_task in tuned.items():
        for settings in _distinct(best_of(result["grid"])["settings"] for result in by_task.values()):
            wanted = {
                task: rankings_of(name, result)
                for task, result in by_task.items()
                if best_of(result["grid"])["settings"] == settings
            }
            if any(
                files.find(task, ranking.system, ranking.key) is None
                for task, rankings in wanted.items()
                for ranking in rankings
            ):
                blocks = blocks or make_blocks()
                log.info("measuring %s %s for %s", name, dict(settings), ", ".join(wanted))
                _measure_peer(name, settings, wanted, data, blocks, files)


class PeerRanking(NamedTuple):
    """How to rank items: by the scores of a tuned peer, or by these scores plus a trend."""

    system: str
    """Name of the peer, with the suffix `WITH_TREND` if it has a trend."""
    trend: TrendSettings | None
    """The trend; None: the peer alone."""
    key: str
    """Settings of the peer and the trend, as JSON."""


def rankings_of(name: str, result: Mapping[str, Any]) -> list[PeerRanking]:
    """Returns the ranking by the tuned peer's scores and, if trends were tried, a ranking with the best trend added.

    `result` is the result of `tune_family` for a task.
    """
    settings = best_of(result["grid"])["settings"]
    rankings = [PeerRanking(name, None, json.dumps(settings))]
    if result["trend_grid"]:
        trend = best_of(result["trend_grid"])["settings"]
        rankings.append(PeerRanking(name + WITH_TREND, TrendSettings(**trend), json.dumps([settings, trend])))
    return rankings


def _measure_peer(
    name: str,
    settings: Settings,
    wanted: Mapping[str, Sequence[PeerRanking]],
    data: PeerData,
    blocks: Sequence[RankedBlock],
    files: MeasureFiles,
) -> None:
    peer = FAMILIES[name].fit(data, settings)
    parts: dict[tuple[str, PeerRanking], list[ByCase]] = {}
    for block in blocks:
        block.load(peer)
        for task in set(wanted) & set(block.tasks):
            for ranking in wanted[task]:
                parts.setdefault((task, ranking), []).append(block.rank(task, ranking.trend))
        block.unload()
    for (task, ranking), by_block in parts.items():
        by_case = {metric: np.concatenate([part[metric] for part in by_block]) for metric in METRICS}
        files.add(task, ranking.system, by_case, ranking.key)


def _distinct(settings: Iterable[Settings]) -> list[Settings]:
    found: list[Settings] = []
    for each in settings:
        if each not in found:
            found.append(each)
    return found


def measure_scorers(
    scorers: Callable[[], Mapping[str, Scorer]],
    names: Sequence[str],
    tasks: Mapping[str, Cases],
    files: MeasureFiles,
    events: ItemEvents,
) -> None:
    """Measures scorers on the cases of each task, unless the metrics are already stored.

    `scorers` is called only if metrics are missing. `events` has the events of all splits.
    """
    missing = [(task, name) for task in tasks for name in names if files.find(task, name) is None]
    made = scorers() if missing else {}
    for task, name in missing:
        log.info("measuring %s for %s", name, task)
        set_trends(made.values(), tasks[task], events)
        by_case = evaluate_scorer(made[name], tasks[task], (20,)).by_case
        files.add(task, name, {metric: by_case[metric] for metric in METRICS})


def compare(measures: Mapping[str, ByCase], cases: Cases, reference: str) -> dict[str, dict[str, dict[str, float]]]:
    """Compares systems by the mean of each metric.

    Args:
      measures: by system, its metrics for each case.
      cases: the cases; all cases of a visitor are resampled together.
      reference: name of the system that the others are compared with.

    Returns:
      For each system and metric: the mean `value`; its 95% interval from `low` to `high`; and `p`, the p-value of the
        difference from the reference. The system with the best NDCG@20 comes first.
    """
    means = {name: _resampled(by_case, cases) for name, by_case in measures.items()}
    found = {}
    for name, by_case in sorted(measures.items(), key=lambda entry: -entry[1][TUNED_BY].mean()):
        low, high = percentile_interval(means[name])
        p_values = paired_p_values(means[name], means[reference])
        found[name] = {
            metric: {
                "value": float(by_case[metric].mean()),
                "low": float(low[column]),
                "high": float(high[column]),
                **({} if name == reference else {"p": float(p_values[column])}),
            }
            for column, metric in enumerate(METRICS)
        }
    return found


def difference(ours: ByCase, theirs: ByCase, cases: Cases) -> dict[str, float]:
    """Returns the mean difference in NDCG@20, `ours` − `theirs`, as `value`.

    `low` and `high` are the 95% interval of `value` over resamples of the visitors.
    """
    column = METRICS.index(TUNED_BY)
    low, high = percentile_interval(_resampled(ours, cases) - _resampled(theirs, cases))
    value = float((ours[TUNED_BY] - theirs[TUNED_BY]).mean())
    return {"value": value, "low": float(low[column]), "high": float(high[column])}


def _resampled(by_case: ByCase, cases: Cases) -> np.ndarray:
    values = np.stack([by_case[metric] for metric in METRICS], axis=1)
    return resampled_means(values, owner=cases.timeline, seed=_SEED)


def best_peers(measures: Mapping[str, ByCase]) -> dict[str, dict[str, str]]:
    """Returns, for each metric, the name of the best peer of each kind on the test window.

    The kinds are `without_trend`; `any`, with or without a trend; and `neighbour`, nearest neighbours without a trend.
    """
    peers = {name for name in measures if name.removesuffix(WITH_TREND) in FAMILIES}
    plain = {name for name in peers if name in FAMILIES and not FAMILIES[name].is_trend}
    near = {name for name in plain if FAMILIES[name].is_neighbour}
    kinds = {"without_trend": plain, "any": peers, "neighbour": near}
    return {
        metric: {
            kind: max(sorted(names), key=lambda name: measures[name][metric].mean()) for kind, names in kinds.items()
        }
        for metric in METRICS
    }
