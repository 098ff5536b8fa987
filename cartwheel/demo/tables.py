"""The demo's results table."""

from collections.abc import Mapping
from typing import Any

from trainer.evaluation.tables import primary_ranking

METRICS = ("ndcg@20", "recall@20", "mrr@20", "coverage@20")
_PROTOCOL, _OTHER_PROTOCOL = "returning_visitors", "next_item"


def results_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats one line per preset and baseline, by descending NDCG@20, at most 100 characters wide.

    The column `next item` is the NDCG@20 for the item of the next event, new or seen. The other ranking metrics exclude
    seen items. The column `MSE (skill)`, the error of predicted ratings, exists only if a preset predicts ratings.

    Args:
      evaluations: result of `evaluate` for each preset.
    """
    systems, others = merge_systems(evaluations), merge_systems(evaluations, _OTHER_PROTOCOL)
    protocols = next(iter(evaluations.values()))["protocols"]
    cases, other_cases = (protocols[name]["cases"] for name in (_PROTOCOL, _OTHER_PROTOCOL))
    visitors, items = _count(cases), cases["catalogue_items"]
    lines = [
        f"Test window: new items of {visitors} returning visitors, {items:,} items ranked. [95% intervals]",
        f"  {'system':17}{'NDCG@20':22}{'recall@20':>10}{'MRR@20':>9}{'coverage@20':>13}{'next item':>11}"
        + (f"{'MSE (skill)':>16}" if any(metrics.get("ratings") for metrics in systems.values()) else ""),
    ]
    best_first = sorted(systems.items(), key=lambda system: -_value(system[1].get("ndcg@20")))
    lines += [f"  {name:17}{_cells(metrics, others.get(name, {}))}".rstrip() for name, metrics in best_first]
    return "\n".join(
        [
            *lines,
            f"next item: NDCG@20 of the item of the next event, new or seen; {_count(other_cases)} events.",
            "Overlapping intervals don't show a difference; report.html has paired tests.",
        ]
    )


def merge_systems(evaluations: Mapping[str, Mapping[str, Any]], protocol: str = _PROTOCOL) -> dict[str, dict[str, Any]]:
    """Returns the metrics of all systems under one evaluation protocol: presets, then baselines.

    A preset has the additional entry `ratings`.

    Args:
      evaluations: result of `evaluate` for each preset.
      protocol: name of the protocol.
    """
    systems: dict[str, dict[str, Any]] = {}
    baselines: dict[str, Any] = {}
    for preset, evaluation in evaluations.items():
        ranking: dict[str, Any] = dict(primary_ranking(evaluation["protocols"][protocol]) or {})
        systems[preset] = dict(ranking.pop(preset, {})) | {"ratings": evaluation["ratings"]}
        baselines = ranking
    return systems | baselines


def _cells(metrics: Mapping[str, Any], other_metrics: Mapping[str, Any]) -> str:
    ndcg, recall, mrr, coverage = (metrics.get(metric) for metric in METRICS)
    next_ndcg, ratings = other_metrics.get("ndcg@20"), metrics.get("ratings")
    squared_error = f"{ratings['mse']:.3f} ({ratings['skill']:+.2f})" if ratings else ""
    return (
        f"{_interval(ndcg):22}{_plain(recall):>10}{_plain(mrr):>9}{_plain(coverage):>13}{_plain(next_ndcg):>11}"
        f"{squared_error:>16}"
    )


def _count(cases: Mapping[str, Any]) -> str:
    """Formats the number of evaluated cases and, for a sample, the number of all cases."""
    if cases["cases"] == cases["cases_in_all"]:
        return f"{cases['cases']:,}"
    return f"a sample of {cases['cases']:,} of {cases['cases_in_all']:,}"


def _interval(estimate: Mapping[str, float] | None) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if estimate else "–"


def _plain(estimate: Mapping[str, float] | None) -> str:
    return f"{estimate['value']:.3f}" if estimate else "–"


def _value(estimate: Mapping[str, float] | None) -> float:
    return estimate["value"] if estimate else -1.0
