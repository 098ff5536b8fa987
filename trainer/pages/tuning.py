"""The report of a search: the best settings, a chart of the trials per searched setting, and a table of all trials."""

from collections.abc import Mapping, Sequence
from typing import Any

from common import storage
from common.report import run_charts
from common.report.page import Block, Cell, Facts, Note, Page, Part, Picture, Section, Table, render
from trainer.config.search import Choices, Dimension
from trainer.evaluation.tables import metric_title
from trainer.runs.trials import SearchLayout, Trial

_MAX_PANELS = 8


def write_tuning_report(
    layout: SearchLayout, dimensions: Sequence[Dimension], trials: Sequence[Trial], best: Mapping[str, Any] | None
) -> None:
    """Writes the report of a search to `tune.html`; see `tuning_page`."""
    page = tuning_page(layout.root, dimensions, trials, best)
    html = render([page], title=f"Cartwheel: {layout.root}", shown=page.key)
    storage.write_bytes(layout.report, html.encode())


def tuning_page(
    name: str, dimensions: Sequence[Dimension], trials: Sequence[Trial], best: Mapping[str, Any] | None
) -> Page:
    """Returns the page of a search; `best` is the content of `best.json`, None if no trial is complete."""
    metric = metric_title(best["metric"]) if best else "metric"
    parts: list[Part] = [_overview(trials, best, metric)]
    if best:
        parts.append(Note(f"Train these settings with `{best['train']}`, or on all events with `{best['refit']}`."))
    return Page(
        key="tuning",
        title="Tuning",
        subtitle=f"Search {name}: validation of {len(trials):,} trials",
        sections=[
            Section("Best settings", parts),
            Section("Trials", [*_draw_trials(dimensions, trials, best, metric), _table(dimensions, trials, metric)]),
        ],
    )


def _overview(trials: Sequence[Trial], best: Mapping[str, Any] | None, metric: str) -> Facts:
    states = [trial.state for trial in trials]
    counts: list[tuple[str, Cell]] = [(state, states.count(state)) for state in dict.fromkeys(states)]
    if best is None:
        return Facts(counts)
    return Facts([(f"best {metric}", best["value"]), ("trial", best["trial"]), *best["settings"].items(), *counts])


def _draw_trials(
    dimensions: Sequence[Dimension], trials: Sequence[Trial], best: Mapping[str, Any] | None, metric: str
) -> list[Part]:
    """Draws the validation metric of each trial, by trial number and by the value of each searched setting.

    Args:
      dimensions: the searched settings.
      trials: the trials.
      best: the trial to mark; None: no trial is complete yet.
      metric: title of the validation metric.
    """
    measured = [trial for trial in trials if trial.value is not None]
    if not measured:
        return [Note("No trial is validated yet.")]
    values = [float(trial.value or 0) for trial in measured]
    panels = [run_charts.Panel("trial", [trial.number for trial in measured])]
    for dimension in dimensions[: _MAX_PANELS - 1]:
        texts = [trial.settings[dimension.key] for trial in measured]
        if isinstance(dimension, Choices):
            positions = [dimension.values.index(text) for text in texts]
            panels.append(run_charts.Panel(dimension.key, positions, names=dimension.values))
        else:
            panels.append(run_charts.Panel(dimension.key, list(map(float, texts)), is_log=dimension.is_log))
    chosen = next((index for index, trial in enumerate(measured) if best and trial.number == best["trial"]), None)
    rows: list[Sequence[Cell]] = [
        [trial.number, *trial.settings.values(), value] for trial, value in zip(measured, values, strict=True)
    ]
    return [
        Picture(
            title="Trials by setting",
            summary=(
                f"Best validation {metric} of each trial: from {min(values):.4f} to {max(values):.4f}. Crosses are "
                "trials that were pruned or have not finished; the ring is the best trial."
            ),
            svg=run_charts.points(
                "trials",
                panels,
                values,
                [trial.state == "complete" for trial in measured],
                y_label=f"validation {metric}",
                best=chosen,
            ),
            table=Table(["trial", *(dimension.key for dimension in dimensions), metric], rows),
            is_wide=True,
        )
    ]


def _table(dimensions: Sequence[Dimension], trials: Sequence[Trial], metric: str) -> Block:
    keys = [dimension.key for dimension in dimensions]
    rows: list[Sequence[Cell]] = [
        [
            trial.number,
            trial.state,
            *(trial.settings[key] for key in keys),
            max(trial.validations, default=None),
            trial.value,
            trial.problem or "",
        ]
        for trial in trials
    ]
    return Block("All trials", Table(["trial", "state", *keys, "epochs", metric, "problem"], rows))
