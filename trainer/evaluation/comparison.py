"""Systems side by side on the same cases: every figure with its interval, and whether it differs from another's.

Shapes: V cases, G visitors, P (case, relevant item) pairs, I items, M columns, S sections, R resamples.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.progress import make_bar
from trainer.distributed.replicas import Replicas
from trainer.evaluation.cases import Cases
from trainer.evaluation.evaluator import Measurement, evaluate_scorer
from trainer.evaluation.exposure import exposure_values
from trainer.evaluation.intervals import paired_p_values, percentile_interval, resampled_sums
from trainer.evaluation.metrics import metric_values
from trainer.models.interface import Scorer

log = logging.getLogger(__name__)

PAIR_METRICS = ("ndcg@20", "recall@20", "mrr@20")
"""In what any two systems are compared."""


@dataclass
class _Columns:
    """A metric a column, with the section of the report that it goes to, summed over each visitor's cases.

    Summed at once: cases are many more than visitors, and most count in few sections.

    visitor     [V] in [0, G) of each case
    names       of each column
    sums        [G] of each column
    section     of each column, a place in `num_cases`
    num_cases   [G] of each section
    """

    visitor: np.ndarray
    names: list[tuple[str, str]] = field(default_factory=list)
    sums: list[np.ndarray] = field(default_factory=list)
    section: list[int] = field(default_factory=list)
    num_cases: list[np.ndarray] = field(default_factory=list)

    def add(self, section: str, metrics: Mapping[str, np.ndarray], places: np.ndarray) -> None:
        """Adds metrics of the cases at `places`."""
        visitor, num_visitors = self.visitor[places], int(self.visitor.max()) + 1
        for name, values in metrics.items():
            self.names.append((section, name))
            self.sums.append(np.bincount(visitor, values, minlength=num_visitors))
            self.section.append(len(self.num_cases))
        self.num_cases.append(np.bincount(visitor, minlength=num_visitors))

    def means(self) -> np.ndarray:
        """[M]."""
        return np.sum(self.sums, axis=1) / np.sum(self.num_cases, axis=1)[self.section]

    def resampled_means(self, seed: int) -> np.ndarray:
        """[R, M]; NaN where no case of a resample counts."""
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
      over the cases whose relevant items are new, or, of a protocol that has others for it, over all with those.
      `pairs`: the `PAIR_METRICS` to each system to each of those behind it: the `difference`, the first less the
      second, with `low`, `high` and `p`.
      `groups`: of each its `cases`, its `relevant_items` and a `ranking`: only the relevant items of the group count,
      the others remain in the ranking.
    """
    result: dict[str, Any] = {"ranking": {}, "ranking_otherwise": {}, "groups": _group_sizes(cases, groups)}
    first_means: np.ndarray | None = None
    means_of: dict[str, np.ndarray] = {}  # [R, pair metrics]
    for name, measurement in _measure(systems, cases, replicas):
        columns = _columns(measurement, cases, groups)
        means = columns.resampled_means(seed)
        estimates = _estimates(columns.means(), means, first_means)
        first_means = means if first_means is None else first_means
        for (section, metric), estimate in zip(columns.names, estimates, strict=True):
            ranking = result["groups"][section]["ranking"] if section in groups else result[section]
            ranking.setdefault(name, {})[metric] = estimate
        means_of[name] = means[:, [columns.names.index(("ranking", metric)) for metric in PAIR_METRICS]]
        exposure = exposure_values(measurement.shown, item_counts)
        result["ranking"][name] |= {metric: {"value": value} for metric, value in exposure.items()}
    result["pairs"] = _pairs(result["ranking"], means_of)
    return result


def _pairs(ranking: Mapping[str, Any], means_of: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What `compare_systems` tells of any two systems, from their figures and resampled means [R, pair metrics]."""
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
    systems: Mapping[str, Scorer], cases: Cases, replicas: Replicas | None
) -> Iterator[tuple[str, Measurement]]:
    """Each system's name and measurement."""
    is_shown = replicas is None or replicas.is_chief
    with make_bar(len(systems) * len(cases), "cases", title="ranking", is_shown=is_shown) as bar:
        for name, scorer in systems.items():
            log.info("ranking %d items in %d cases: %s", cases.num_items, len(cases), name)
            is_both_ways = bool(cases.is_new.any())
            yield name, evaluate_scorer(scorer, cases, replicas=replicas, is_both_ways=is_both_ways, tell=bar.update)


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
    columns = _Columns(np.unique(cases.timeline, return_inverse=True)[1])
    columns.add("ranking", measurement.by_case, np.arange(len(cases)))
    if measurement.ranks_otherwise is not None:
        new = np.flatnonzero(cases.is_new)
        otherwise = metric_values(measurement.ranks_otherwise, measurement.ks)
        columns.add("ranking_otherwise", {name: values[new] for name, values in otherwise.items()}, new)
    for name, is_member in groups.items():
        ranks, places = measurement.ranks.only(is_member)
        columns.add(name, metric_values(ranks, measurement.ks), places)
    return columns


def _estimates(value: np.ndarray, means: np.ndarray, first_means: np.ndarray | None) -> list[dict[str, float]]:
    """`value` [M], `low`, `high` and, beside the first system's means [R, M], `p` of each column."""
    low, high = percentile_interval(means)
    estimates = [
        {"value": float(value[column]), "low": float(low[column]), "high": float(high[column])}
        for column in range(len(value))
    ]
    if first_means is not None:
        for estimate, p in zip(estimates, paired_p_values(first_means, means), strict=True):
            estimate["p"] = float(p)
    return estimates
