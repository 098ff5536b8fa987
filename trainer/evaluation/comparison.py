"""Compares systems on the same cases: metrics with confidence intervals, and paired tests of their differences.

Shapes: V cases, G visitors, P (case, relevant item) pairs, I items, M columns, S sections, R resamples.
"""

import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.progress import make_bar
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases
from trainer.evaluation.evaluator import Measurement, evaluate_scorers
from trainer.evaluation.exposure import exposure_values
from trainer.evaluation.intervals import paired_p_values, percentile_interval, resampled_sums
from trainer.evaluation.metrics import metric_values
from trainer.evaluation.tables import AVAILABLE_ONLY
from trainer.models.interface import Scorer

log = logging.getLogger(__name__)

PAIR_METRICS = ("ndcg@20", "recall@20", "mrr@20")
"""Metrics of the pairwise comparisons."""


@dataclass
class _Columns:
    """The metrics of one system: a column per metric and section (a ranking or a group of cases).

    To save memory, a column stores one sum per visitor, over their cases.
    """

    visitor: np.ndarray
    """[V] visitor of each case, in [0, G)."""
    names: list[tuple[str, str]] = field(default_factory=list)
    """[M] section and metric of each column."""
    sums: list[np.ndarray] = field(default_factory=list)
    """M arrays [G]: the metric summed over each visitor's cases."""
    section: list[int] = field(default_factory=list)
    """[M] section of each column, as an index into `num_cases`."""
    num_cases: list[np.ndarray] = field(default_factory=list)
    """S arrays [G]: number of each visitor's cases in the section."""

    def add(self, section: str, metrics: Mapping[str, np.ndarray], cases: np.ndarray) -> None:
        """Adds a section (a ranking or a case group): a column per metric. `cases`: indices of the section's cases."""
        visitor, num_visitors = self.visitor[cases], int(self.visitor.max()) + 1
        for name, values in metrics.items():
            self.names.append((section, name))
            self.sums.append(np.bincount(visitor, values, minlength=num_visitors))
            self.section.append(len(self.num_cases))
        self.num_cases.append(np.bincount(visitor, minlength=num_visitors))

    def means(self) -> np.ndarray:
        """[M]: mean of each column over the cases of its section (a ranking or a group of cases)."""
        return np.sum(self.sums, axis=1) / np.sum(self.num_cases, axis=1)[self.section]

    def resampled_means(self, seed: int) -> np.ndarray:
        """[R, M]: mean of each column in each resample of the visitors; NaN for columns without cases."""
        drawn = resampled_sums(np.stack([*self.sums, *self.num_cases], axis=1), seed=seed)
        sums, num_cases = np.split(drawn, [len(self.sums)], axis=1)
        with np.errstate(invalid="ignore"):
            return sums / num_cases[:, self.section]


def compare_systems(
    systems: Mapping[str, Scorer],
    cases: Cases,
    groups: Mapping[str, np.ndarray],
    item_counts: np.ndarray,
    *,
    seed: int,
    replicas: Replicas | None = None,
    is_available: np.ndarray | None = None,
) -> dict[str, Any]:
    """Ranks the catalogue for all cases with every system, and compares the metrics of the systems.

    All confidence intervals (`low`, `high`) and p-values use the same resamples of the visitors.

    Args:
      systems: systems by name. Each system after the first is tested against the first.
      groups: for each group, by name: [P] bool, whether each (case, relevant item) pair is in the group.
      item_counts: [I] training events of each item, for novelty.
      replicas: all replicas; each worker ranks a part of the cases. None: this process ranks all cases.
      is_available: [I] bool: candidates of the ranking `available_only`; None: no such ranking.

    Returns:
      `primary`: the name of the primary ranking, `seen_hidden` or `seen_shown`.
      `rankings`: the results of `seen_hidden`, `seen_shown` and `available_only`: `value`, `low` and `high` of each
        system and metric, and `p` of the difference from the first system.
      - The primary ranking also has the `value` of coverage, Gini coefficient and novelty.
      - The secondary ranking skips cases that have a relevant item in the history; null if no case remains.
      - `available_only` is the primary ranking of the available items. Unavailable relevant items count as misses.
      `pairs`: for each of the `PAIR_METRICS` and each pair of systems: the `difference` (the system that is first in
        `systems` − the other one) with `low`, `high` and `p`.
      `groups`: for each group, the number of `cases`, the number of `relevant_items`, and the primary `ranking` of its
        cases. Only the group's relevant items count as hits.
    """
    primary, _ = cases.rankings
    rankings: dict[str, Any] = {"seen_hidden": None, "seen_shown": None, AVAILABLE_ONLY: None}
    group_results = _group_sizes(cases, groups)
    first_means: np.ndarray | None = None
    means_of: dict[str, np.ndarray] = {}  # [R, pair metrics]
    for name, measurement in _measure(systems, cases, replicas, is_available).items():
        columns = _columns(measurement, cases, groups)
        means = columns.resampled_means(seed)
        estimates = _estimates(columns.means(), means, first_means)
        first_means = means if first_means is None else first_means
        for (section, metric), estimate in zip(columns.names, estimates, strict=True):
            if section in groups:
                ranking = group_results[section]["ranking"]
            else:
                ranking = rankings[section] = rankings[section] or {}
            ranking.setdefault(name, {})[metric] = estimate
        means_of[name] = means[:, [columns.names.index((primary, metric)) for metric in PAIR_METRICS]]
        exposure = exposure_values(measurement.times_recommended, item_counts)
        rankings[primary][name] |= {metric: {"value": value} for metric, value in exposure.items()}
    pairs = _pairs(rankings[primary], means_of)
    return {"primary": primary, "rankings": rankings, "groups": group_results, "pairs": pairs}


def _pairs(ranking: Mapping[str, Any], means_of: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the entry `pairs` of the result of `compare_systems`.

    `means_of`: resampled means [R, number of `PAIR_METRICS`] of each system, by name.
    """
    pairs: dict[str, Any] = {metric: {} for metric in PAIR_METRICS}
    for first, second in itertools.combinations(means_of, 2):
        low, high = percentile_interval(means_of[first] - means_of[second])
        p_values = paired_p_values(means_of[first], means_of[second])
        for column, metric in enumerate(PAIR_METRICS):
            pairs[metric].setdefault(first, {})[second] = {
                "difference": ranking[first][metric]["value"] - ranking[second][metric]["value"],
                "low": float(low[column]),
                "high": float(high[column]),
                "p": float(p_values[column]),
            }
    return pairs


def _measure(
    systems: Mapping[str, Scorer], cases: Cases, replicas: Replicas | None, is_available: np.ndarray | None
) -> dict[str, Measurement]:
    log.info("ranking %d items for %d cases with %s", cases.num_items, len(cases), ", ".join(systems))
    is_shown = replicas is None or replicas.is_chief
    with make_bar(len(cases), "cases", title="ranking", is_shown=is_shown) as bar:
        return evaluate_scorers(
            systems,
            cases,
            replicas=replicas,
            with_secondary=bool(cases.is_new.any()),
            is_available=is_available,
            on_progress=bar.update,
        )


def _group_sizes(cases: Cases, groups: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "cases": len(np.unique(cases.relevant.owner[is_member])),
            "relevant_items": int(is_member.sum()),
            "ranking": {},
        }
        for name, is_member in groups.items()
    }


def _columns(measurement: Measurement, cases: Cases, groups: Mapping[str, np.ndarray]) -> _Columns:
    primary, secondary = cases.rankings
    columns = _Columns(np.unique(cases.timeline, return_inverse=True)[1])
    columns.add(primary, measurement.by_case, np.arange(len(cases)))
    if measurement.secondary_ranks is not None:
        new = np.flatnonzero(cases.is_new)
        metrics = metric_values(measurement.secondary_ranks, measurement.ks)
        columns.add(secondary, {name: values[new] for name, values in metrics.items()}, new)
    if measurement.available_ranks is not None:
        columns.add(AVAILABLE_ONLY, metric_values(measurement.available_ranks, measurement.ks), np.arange(len(cases)))
    for name, is_member in groups.items():
        ranks, members = measurement.ranks.only(is_member)
        columns.add(name, metric_values(ranks, measurement.ks), members)
    return columns


def _estimates(value: np.ndarray, means: np.ndarray, first_means: np.ndarray | None) -> list[dict[str, float]]:
    """Returns a dict for each column: `value`, `low`, `high` and `p`.

    `value`: [M] means. `means`: [R, M] resampled means. `first_means`: [R, M] resampled means of the first
    system; None: this is the first system, and the dicts have no `p`.
    """
    low, high = percentile_interval(means)
    estimates = [
        {"value": float(value[column]), "low": float(low[column]), "high": float(high[column])}
        for column in range(len(value))
    ]
    if first_means is not None:
        for estimate, p in zip(estimates, paired_p_values(first_means, means), strict=True):
            estimate["p"] = float(p)
    return estimates
