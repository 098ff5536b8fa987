"""Evaluations as text: Markdown tables of systems by metrics, and a short summary for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Estimate = Mapping[str, float]
"""`value`; `low` and `high` if it has an interval; `p` if it was tested against the first system."""

Ranking = Mapping[str, Mapping[str, Estimate]]
"""For each system, its estimates by metric; the model is the first system."""

TABLE_METRICS = ("recall@20", "ndcg@20", "mrr@20", "recall@100", "coverage@20", "gini@20", "novelty@20")
"""The metrics of a table; `evaluation-SPLIT.json` has all."""

MAIN_METRIC = "ndcg@20"
"""The metric to show where there is room for only one."""

AVAILABLE_ONLY = "available_only"
"""Name of the ranking that is like the primary one, but has only available items as candidates."""

SIGNIFICANT_P = 0.05
FOOTNOTE = (
    f"95% confidence intervals in brackets, the best value in bold; † marks a significant difference from the first "
    f"system (paired bootstrap over visitors, p < {SIGNIFICANT_P}, not corrected for multiple comparisons)"
)
_SUMMARY_METRICS = {"ndcg@20": 24, "recall@20": 24, "mrr@20": 10, "coverage@20": 13}
"""Metrics of the summary, and the width of their columns; columns with room for an interval show it."""


def primary_ranking(protocol: Mapping[str, Any]) -> Ranking | None:
    """Returns the entry of the primary ranking in a protocol's results; None if the ranking has no cases."""
    ranking: Ranking | None = protocol["rankings"][protocol["primary"]]
    return ranking


def secondary_ranking(protocol: Mapping[str, Any]) -> tuple[str, Ranking | None]:
    """Returns the name and the entry of the secondary ranking in a protocol's results.

    The entry is None if the ranking has no cases.
    """
    others = {"seen_hidden", "seen_shown"} - {protocol["primary"]}
    ((name, ranking),) = [entry for entry in protocol["rankings"].items() if entry[0] in others]
    return name, ranking


def describe_available(protocol: Mapping[str, Any]) -> str | None:
    """Describes how the model compares with the best baseline if both rank only available items.

    Returns:
      One line; None if the results lack the ranking of available items.
    """
    ranking: Ranking | None = protocol["rankings"].get(AVAILABLE_ONLY)
    if ranking is None:
        return None
    cases = protocol["cases"]
    return (
        f"With only available items as candidates ({cases['available_items']:,} of {cases['catalogue_items']:,} items; "
        f"unavailable relevant items count as misses): {_compare_with_best(ranking)}"
    )


def ranking_table(systems: Ranking) -> str:
    """Returns a table with a row per system. † marks a significant difference from the first system.

    Intervals are in brackets. The best values are bold, except for coverage, Gini coefficient and novelty.
    """
    metrics = [name for name in TABLE_METRICS if name in next(iter(systems.values()))]
    columns = [metric_cells([figures[name] for figures in systems.values()]) for name in metrics]
    return markdown_table(["system", *metrics], [list(row) for row in zip(systems, *columns, strict=True)])


def rating_table(ratings: Mapping[str, Any]) -> str:
    """Returns a table of the squared errors of a model and of constant predictions."""
    rows = [
        [label, "–" if ratings[key] is None else f"{ratings[key]:.4f}"]
        for label, key in (
            ("model, MSE", "mse"),
            ("training mean, MSE", "mse_of_training_mean"),
            ("constant 1, MSE", "mse_of_one"),
            ("skill, 1 − MSE / MSE of the mean", "skill"),
        )
    ]
    return markdown_table(["event weights", f"{ratings['rows']} rows"], rows)


def summary_text(result: Mapping[str, Any]) -> str:
    """Renders a result of `evaluate` as text, with lines of at most 100 characters.

    The main protocol gets a table; each other protocol gets one or two lines.
    """
    name, others = result["main_protocol"], dict(result["protocols"])
    protocol = others.pop(name)
    head = f"Step {result['step']:,}, {result['split']} split, {_title(name)}"
    lines = [f"{head}: no cases"]
    ranking = primary_ranking(protocol)
    if ranking is not None:
        lines = [f"{head}: {cases_text(protocol['cases'])}", *_summary_table(ranking)]
        available = protocol["rankings"].get(AVAILABLE_ONLY)
        if available is not None:
            lines.append(f"Available items only: {_compare_with_best(available)}")
    for other, figures in others.items():
        ranking = primary_ranking(figures)
        found = "no cases" if ranking is None else _compare_with_best(ranking)
        # on two lines with the size of a sample, because one would be too long
        note = f", {_count_cases(figures['cases'])}:\n " if is_sample(figures["cases"]) else ":"
        lines.append(f"{_title(other).capitalize()}{note} {found}")
    if result["ratings"]:
        skill = result["ratings"]["skill"]
        lines.append(
            f"Squared error on event weights: {result['ratings']['mse']:.4f}"
            + ("" if skill is None else f", skill {skill:+.2f} over the training mean")
        )
    return "\n".join(lines)


def describe_refit(refit_of: Mapping[str, Any]) -> str:
    """Describes a refit by the evaluation of the original run, because no events are left to evaluate the refit on."""
    first = (
        f"This model is a refit of {refit_of['run']}: the same settings, trained on all events, to the best "
        f"epoch of that run ({refit_of['epochs']}). No events are left to evaluate it on."
    )
    measured = [
        f"{metric_title(estimate['metric'])} {estimate['value']:.4f} on its {split} split "
        f"({estimate['protocol'].replace('_', ' ')})"
        for split, estimate in refit_of["evaluations"].items()
    ]
    if not measured and refit_of["best_validation"] is not None:
        measured = [
            f"{metric_title(refit_of['validation_metric'])} {refit_of['best_validation']:.4f} in its validation"
        ]
    return f"{first} That run reached {' and '.join(measured)}." if measured else first


def cases_text(cases: Mapping[str, Any]) -> str:
    """Formats the numbers of cases, visitors and ranked items in a protocol's results."""
    return f"{_count_cases(cases)}, {cases['visitors']:,} visitors, {cases['catalogue_items']:,} items"


def is_sample(cases: Mapping[str, Any]) -> bool:
    """Whether only a sample of a protocol's cases was evaluated."""
    return bool(cases["cases"] < cases["cases_in_all"])


def _count_cases(cases: Mapping[str, Any]) -> str:
    return f"{cases['cases']:,} cases" + (f" (sampled from {cases['cases_in_all']:,})" if is_sample(cases) else "")


def _summary_table(ranking: Ranking) -> Iterable[str]:
    width = max(map(len, ["system", *ranking])) + 2
    titles = [metric_title(metric) for metric in _SUMMARY_METRICS]
    widths = list(_SUMMARY_METRICS.values())
    header = zip(["  system", *titles], [width + 2, *widths], strict=True)
    yield "".join(title.ljust(size) for title, size in header).rstrip()
    for system, figures in ranking.items():
        cells = [_summary_cell(figures[metric], size) for metric, size in _SUMMARY_METRICS.items()]
        yield f"  {system.ljust(width)}{''.join(cells)}".rstrip()
    yield f"[95% intervals]; † differs from {next(iter(ranking))}: paired bootstrap over visitors, p < {SIGNIFICANT_P}"


def _summary_cell(estimate: Estimate, width: int) -> str:
    mark = "†" if estimate.get("p", 1) < SIGNIFICANT_P else ""
    has_room = width > len("0.000† [0.000, 0.000]")
    interval = f" [{estimate['low']:.3f}, {estimate['high']:.3f}]" if has_room else ""
    return f"{estimate['value']:.3f}{mark}{interval}".ljust(width)


def _compare_with_best(ranking: Ranking) -> str:
    (model, own), *baselines = ((name, figures[MAIN_METRIC]["value"]) for name, figures in ranking.items())
    best, value = max(baselines, key=lambda baseline: baseline[1])
    return f"NDCG@20 is {own:.3f} for {model} and {value:.3f} for {best}, the best baseline"


def metric_title(metric: str) -> str:
    """Returns a metric's name in reports, such as `NDCG@20` for `ndcg@20`."""
    return metric.replace("ndcg", "NDCG").replace("mrr", "MRR").replace("mse", "MSE").replace("_", " ")


def _title(protocol: str) -> str:
    return protocol.replace("_", " ")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a Markdown table with aligned columns."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def metric_cells(estimates: Sequence[Estimate], digits: int = 4) -> list[str]:
    """Formats the cells of one metric, one per system.

    The best value is bold if the metric has intervals. † marks a significant difference from the first system.
    """
    best = max(estimate["value"] for estimate in estimates)
    return [_cell(one, digits, is_best=one["value"] == best > 0) for one in estimates]


def _cell(estimate: Estimate, digits: int, *, is_best: bool) -> str:
    value = f"{estimate['value']:.{digits}f}"
    if "low" not in estimate:
        return value
    mark = "†" if estimate.get("p", 1) < SIGNIFICANT_P else ""
    low, high = f"{estimate['low']:.{digits}f}", f"{estimate['high']:.{digits}f}"
    return f"{f'**{value}**' if is_best else value}{mark} [{low}, {high}]"
