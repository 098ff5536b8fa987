"""An evaluation as a Markdown table for people: metrics by systems, the best of each in bold."""

from collections.abc import Mapping, Sequence
from typing import Any

Estimate = Mapping[str, float]
"""`value` and, where there is an interval, `low` and `high`."""


def ranking_table(systems: Mapping[str, Mapping[str, Estimate]]) -> str:
    """One row a metric, one column a system; intervals in brackets, and the best in bold where there are any.

    Without an interval stands coverage, of which more is not better: random rankings have the most.
    """
    names = list(next(iter(systems.values())))
    rows = []
    for name in names:
        estimates = [metrics[name] for metrics in systems.values()]
        best = max(estimate["value"] for estimate in estimates)
        rows.append([name, *(_cell(estimate, is_best=estimate["value"] == best) for estimate in estimates)])
    return markdown_table(["metric", *systems], rows)


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


def _cell(estimate: Estimate, *, is_best: bool) -> str:
    value = f"{estimate['value']:.4f}"
    if "low" not in estimate:
        return value
    return f"{f'**{value}**' if is_best else value} [{estimate['low']:.4f}, {estimate['high']:.4f}]"
