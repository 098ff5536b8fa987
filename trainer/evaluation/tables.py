"""An evaluation as Markdown tables for people: systems by metrics, the best of each in bold."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

Estimate = Mapping[str, float]
"""`value`; where there is an interval, `low` and `high`; where there is a test against the first system, `p`."""

TABLE_METRICS = ("recall@20", "ndcg@20", "mrr@20", "recall@100", "coverage@20", "gini@20", "novelty@20")
"""What a table shows; the file beside it has all."""

GROUP_METRIC = "ndcg@20"
"""What the table of groups shows."""

SIGNIFICANT_P = 0.05
FOOTNOTE = (
    f"[95% intervals], best in bold; † differs from the first system: paired bootstrap over visitors, "
    f"p < {SIGNIFICANT_P}, each comparison by itself"
)


def ranking_table(systems: Mapping[str, Mapping[str, Estimate]]) -> str:
    """One row a system, one column a metric; intervals in brackets, the best in bold and † where there are any.

    Without an interval stand coverage, Gini coefficient and novelty, of which more is not better: random rankings have
    the most of the first and the last.
    """
    metrics = [name for name in TABLE_METRICS if name in next(iter(systems.values()))]
    columns = [metric_cells([figures[name] for figures in systems.values()]) for name in metrics]
    return markdown_table(["system", *metrics], [list(row) for row in zip(systems, *columns, strict=True)])


def group_table(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a group, one column a system: `GROUP_METRIC` of the cases of the group."""
    systems = list(next(iter(groups.values()))["ranking"])
    rows = []
    for name, group in groups.items():
        cells = metric_cells([group["ranking"][system][GROUP_METRIC] for system in systems])
        rows.append([name, str(group["cases"]), *cells])
    return markdown_table([GROUP_METRIC, "cases", *systems], rows)


def rating_table(ratings: Mapping[str, Any]) -> str:
    """The squared errors of a model that predicts event weights, beside those of constants."""
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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def for_terminal(tables: str) -> str:
    """The tables with what is bold in Markdown bold on a terminal; columns still line up."""
    return re.sub(r"\*\*([^*|]+)\*\*([^|]*)\|", "\033[1m\\1\033[0m\\2    |", tables)


def metric_cells(estimates: Sequence[Estimate], digits: int = 4) -> list[str]:
    """The cells of one metric, of all systems: the best in bold, † where one differs from the first."""
    best = max(estimate["value"] for estimate in estimates)
    return [_cell(one, digits, is_best=one["value"] == best > 0) for one in estimates]


def _cell(estimate: Estimate, digits: int, *, is_best: bool) -> str:
    value = f"{estimate['value']:.{digits}f}"
    if "low" not in estimate:
        return value
    mark = "†" if estimate.get("p", 1) < SIGNIFICANT_P else ""
    low, high = f"{estimate['low']:.{digits}f}", f"{estimate['high']:.{digits}f}"
    return f"{f'**{value}**' if is_best else value}{mark} [{low}, {high}]"
