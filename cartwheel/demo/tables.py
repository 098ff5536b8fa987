"""The demo's results table."""

from collections.abc import Mapping
from typing import Any

METRICS = ("ndcg@20", "recall@20", "mrr@20", "coverage@20")
_PROTOCOL = "returning_visitors"


def results_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """Renders a table of all systems and metrics, best first, at most 100 columns wide."""
    systems = merge_systems(evaluations)
    cases = next(iter(evaluations.values()))["protocols"][_PROTOCOL]["cases"]
    lines = [
        f"Test window: {cases['visitors']} returning visitors, {cases['catalogue_items']:,} items ranked. "
        "[95% intervals]",
        f"  {'system':17}{'NDCG@20':24}{'recall@20':>10}{'MRR@20':>9}{'coverage@20':>13}{'MSE (skill)':>17}",
    ]
    best_first = sorted(systems.items(), key=lambda system: -_value(system[1].get("ndcg@20")))
    lines += [f"  {name:17}{_cells(metrics)}".rstrip() for name, metrics in best_first]
    return "\n".join([*lines, "Overlapping intervals don't show a difference; report.html has paired tests."])


def merge_systems(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Metrics by system: the model of each evaluation, then the baselines, which all evaluations share."""
    systems: dict[str, dict[str, Any]] = {}
    baselines: dict[str, dict[str, Any]] = {}
    for preset, evaluation in evaluations.items():
        ranking = dict(evaluation["protocols"][_PROTOCOL]["rankings"]["seen_hidden"] or {})
        systems[preset] = dict(ranking.pop(preset, {})) | {"ratings": evaluation["ratings"]}
        baselines = ranking
    return systems | baselines


def _cells(metrics: Mapping[str, Any]) -> str:
    ndcg, recall, mrr, coverage = (metrics.get(metric) for metric in METRICS)
    ratings = metrics.get("ratings")
    squared_error = f"{ratings['mse']:.3f} ({ratings['skill']:+.2f})" if ratings else ""
    return f"{_interval(ndcg):24}{_plain(recall):>10}{_plain(mrr):>9}{_plain(coverage):>13}{squared_error:>17}"


def _interval(estimate: Mapping[str, float] | None) -> str:
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if estimate else "–"


def _plain(estimate: Mapping[str, float] | None) -> str:
    return f"{estimate['value']:.3f}" if estimate else "–"


def _value(estimate: Mapping[str, float] | None) -> float:
    return estimate["value"] if estimate else -1.0
