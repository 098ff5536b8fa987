"""Systems side by side on the same cases: every figure with its interval, and whether it differs from the first's.

Shapes: V cases, P (case, relevant item) pairs, I items, M columns, R resamples.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contract.progress import make_bar
from trainer.distribution import Replicas
from trainer.models.interface import Scorer
from trainer.ranking.cases import Cases
from trainer.ranking.evaluation import Measurement, evaluate_scorer
from trainer.ranking.exposure import exposure_values
from trainer.ranking.intervals import paired_p_values, percentile_interval, resampled_means
from trainer.ranking.metrics import metric_values

log = logging.getLogger(__name__)

GROUP_LIST_LENGTH = 20
"""The K of the metrics of each group."""


@dataclass
class _Columns:
    """Values of the cases, a metric a column, with the section of the report that it goes to.

    values      V of each column; anything where the case does not count
    is_counted  V of each column, bool
    """

    names: list[tuple[str, str]] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    is_counted: list[np.ndarray] = field(default_factory=list)

    def add(self, section: str, metrics: Mapping[str, np.ndarray], is_counted: np.ndarray) -> None:
        """Adds metrics, each [V], of the cases that count, [V]."""
        for name, values in metrics.items():
            self.names.append((section, name))
            self.values.append(values)
            self.is_counted.append(is_counted)


def compare_systems(
    systems: Mapping[str, Scorer],
    cases: Cases,
    groups: Mapping[str, np.ndarray],
    item_counts: np.ndarray,
    *,
    seed: int,
    replicas: Replicas | None = None,
) -> dict[str, Any]:
    """Ranks for all cases with every system; the same resampled visitors for all figures of all systems.

    Args:
      systems: by name; the first is what the others are compared with.
      cases: whom to rank for and what is right.
      groups: which pairs [P] are of a group, by its name.
      item_counts: [I] training events of each item, for novelty.
      seed: of the resamples.
      replicas: whose workers share the ranking.

    Returns:
      `ranking`: systems to metrics to `value`, `low`, `high` and, but for the first system, `p` of the difference to
      it; coverage, Gini coefficient and novelty, which are no means over visitors, have a value alone.
      `ranking_otherwise`: the same with seen items shown where the protocol hides them and hidden where it shows them,
      over the cases whose relevant items are new.
      `groups`: of each its `cases`, its `relevant_items` and a `ranking`: only the relevant items of the group count,
      the others remain in the ranking.
    """
    result: dict[str, Any] = {"ranking": {}, "ranking_otherwise": {}, "groups": _group_sizes(cases, groups)}
    first_means: np.ndarray | None = None
    for name, measurement in _measure(systems, cases, replicas):
        columns = _columns(measurement, cases, groups)
        values, is_counted = np.stack(columns.values, axis=1), np.stack(columns.is_counted, axis=1)
        means = resampled_means(values, counts=is_counted, owner=cases.timeline, seed=seed)
        estimates = _estimates(values, is_counted, means, first_means)
        first_means = means if first_means is None else first_means
        for (section, metric), estimate in zip(columns.names, estimates, strict=True):
            ranking = result["groups"][section]["ranking"] if section in groups else result[section]
            ranking.setdefault(name, {})[metric] = estimate
        exposure = exposure_values(measurement.shown, item_counts)
        result["ranking"][name] |= {metric: {"value": value} for metric, value in exposure.items()}
    return result


def _measure(
    systems: Mapping[str, Scorer], cases: Cases, replicas: Replicas | None
) -> Iterator[tuple[str, Measurement]]:
    """Each system's name and measurement."""
    is_shown = replicas is None or replicas.is_chief
    with make_bar(len(systems) * len(cases), "cases", title="ranking", is_shown=is_shown) as bar:
        for name, scorer in systems.items():
            log.info("ranking %d items in %d cases: %s", cases.num_items, len(cases), name)
            yield name, evaluate_scorer(scorer, cases, replicas=replicas, tell=bar.update)


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
    columns = _Columns()
    columns.add("ranking", measurement.by_case, np.ones(len(cases), bool))
    if cases.is_new.any():
        columns.add("ranking_otherwise", metric_values(measurement.ranks_otherwise, measurement.ks), cases.is_new)
    for name, is_member in groups.items():
        ranks, places = measurement.ranks.only(is_member)
        is_counted = np.zeros(len(cases), bool)
        is_counted[places] = True
        columns.add(name, _spread(metric_values(ranks, (GROUP_LIST_LENGTH,)), places, len(cases)), is_counted)
    return columns


def _spread(metrics: Mapping[str, np.ndarray], places: np.ndarray, num_cases: int) -> dict[str, np.ndarray]:
    """Each metric's values put at `places` of [V], 0 elsewhere."""
    spread = {}
    for name, values in metrics.items():
        spread[name] = np.zeros(num_cases)
        spread[name][places] = values
    return spread


def _estimates(
    values: np.ndarray, is_counted: np.ndarray, means: np.ndarray, first_means: np.ndarray | None
) -> list[dict[str, float]]:
    """`value`, `low`, `high` and, beside the first system's means [R, M], `p` of each column."""
    value = np.where(is_counted, values, 0).sum(axis=0) / is_counted.sum(axis=0)
    low, high = percentile_interval(means)
    estimates = [
        {"value": float(value[column]), "low": float(low[column]), "high": float(high[column])}
        for column in range(len(value))
    ]
    if first_means is not None:
        for estimate, p in zip(estimates, paired_p_values(first_means, means), strict=True):
            estimate["p"] = float(p)
    return estimates
