"""The Training page: loss, validation, throughput, run history, architecture and settings.

Every number comes from `run.json`, `metrics.jsonl`, `history.jsonl` and the checkpoints' `validations.json`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from common.report import run_charts
from common.report.drawing import compact
from common.report.page import Block, Cell, Columns, Facts, Note, Page, Part, Picture, Section, Table
from common.settings import settings_of
from trainer.evaluation.tables import describe_refit, metric_title
from trainer.models.build import model_diagram
from trainer.runs.checkpoint import Validations
from trainer.runs.record import RunRecord

T = TypeVar("T")
Line = Mapping[str, Any]
"""A line of `metrics.jsonl` or of `history.jsonl`."""

_START_EVENTS, _END_EVENTS = ("started", "resumed"), ("finished", "failed", "preempted")
_MAX_POINTS = 400
"""Maximum number of points per curve, rows per table and marks per kind of event; it keeps the page small."""


def training_page(
    name: str,
    record: RunRecord,
    metrics: Sequence[Line],
    history: Sequence[Line],
    validations: Validations,
    tables: Mapping[str, tuple[int, int]],
) -> Page:
    """Returns the Training page of a run.

    Args:
      name: name of the run.
      record: record of the run.
      metrics: lines of `metrics.jsonl`; only lines of training steps are used.
      history: lines of `history.jsonl`: starts, checkpoints and ends; may be empty.
      validations: validation metric by step.
      tables: number of rows and columns of each table of the model, by table name.
    """
    steps = [line for line in metrics if "loss" in line]
    return Page(
        key="training",
        title="Training",
        subtitle=f"Run {name}: model {record.config.name}, dataset {record.data}",
        sections=[
            Section(
                "Progress",
                [
                    _overview(record, steps, history),
                    *([Note(describe_refit(record.refit_of))] if record.refit_of else []),
                    *_warm_start_counts(record.warm_start),
                    *_draw_curves(steps, validations),
                    _draw_history(steps, history),
                ],
            ),
            Section("Model", [_draw_architecture(record, tables)]),
            Section("Settings and environment", [_settings(record, history)]),
        ],
    )


def _overview(record: RunRecord, steps: Sequence[Line], history: Sequence[Line]) -> Facts:
    last = steps[-1] if steps else {"step": 0, "epoch": 0, "loss": None}
    events = [line["event"] for line in history]
    rates = [line["examples_per_second"] for line in steps]
    return Facts(
        [
            ("steps", last["step"]),
            ("epochs", f"{last['epoch']} of {record.config.num_epochs}"),
            ("training rows", record.training_rows),
            ("latest loss", last["loss"]),
            ("median examples/s", round(float(np.median(rates))) if rates else None),
            ("times resumed", events.count("resumed")),
            ("times preempted", events.count("preempted")),
        ]
    )


def _warm_start_counts(warm_start: Mapping[str, Any] | None) -> list[Part]:
    """Returns a block of the numbers of copied, new and dropped rows per table; no block without a warm start."""
    if warm_start is None or "tables" not in warm_start:
        return []
    tables = warm_start["tables"]
    columns = list(next(iter(tables.values())))
    rows: list[Sequence[Cell]] = [[name, *(counts[column] for column in columns)] for name, counts in tables.items()]
    title = f"Warm start from {warm_start['run']}, step {warm_start['step']:,}: rows per table"
    return [Block(title, Table(["table", *(column.replace("_", " ") for column in columns)], rows))]


def _draw_curves(steps: Sequence[Line], validations: Validations) -> list[Part]:
    if not steps:
        return [Note("The run has not completed a step yet.")]
    numbers, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    rates = [line["examples_per_second"] for line in steps]
    return [
        Picture(
            title="Loss",
            summary=_describe_losses(losses),
            svg=run_charts.lines("loss", [("loss", *_average(numbers, losses))], x_label="step", y_label="loss"),
            table=_step_table(steps, "loss", "loss"),
        ),
        _draw_validations(validations),
        Picture(
            title="Throughput",
            summary=(
                f"Examples per second: median {np.median(rates):,.0f}, minimum {min(rates):,.0f}, "
                f"maximum {max(rates):,.0f}."
            ),
            svg=run_charts.lines(
                "rate", [("rate", *_average(numbers, rates))], x_label="step", y_label="examples/s", colour=2
            ),
            table=_step_table(steps, "examples_per_second", "examples/s"),
        ),
    ]


def _describe_losses(losses: Sequence[float]) -> str:
    finite = [loss for loss in losses if math.isfinite(loss)]
    num_invalid = len(losses) - len(finite)
    sentences = [f"First {finite[0]:.4g}, last {finite[-1]:.4g}, lowest {min(finite):.4g}."] if finite else []
    if num_invalid:
        sentences.append(f"NaN or infinite in {num_invalid:,} of {len(losses):,} log lines.")
    return " ".join(sentences)


def _draw_validations(validations: Validations) -> Part:
    values = validations.values
    if not values:
        return Note("No validation results: the last checkpoint is used as the best.")
    choose = max if validations.is_higher_better else min
    best = choose(values, key=lambda step: values[step])
    metric, direction = metric_title(validations.metric), "higher" if validations.is_higher_better else "lower"
    return Picture(
        title=f"Validation {metric}",
        summary=f"Best after step {best:,}: {values[best]:.4f}; {direction} is better.",
        svg=run_charts.lines(
            "validation",
            [(metric, *_average(list(values), list(values.values())))],
            x_label="step",
            y_label=metric,
            mark=(best, values[best]),
            colour=1,
        ),
        table=Table(["step", metric], [[step, values[step]] for step in sorted({*_subsample(list(values)), best})]),
    )


def _step_table(steps: Sequence[Line], key: str, title: str) -> Table:
    return Table(["step", "epoch", title], [[line["step"], line["epoch"], line[key]] for line in _subsample(steps)])


def _subsample(values: Sequence[T]) -> Sequence[T]:
    """Returns every n-th value, with the smallest n that gives at most _MAX_POINTS."""
    return values[:: -(-len(values) // _MAX_POINTS) or 1]


def _average(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Averages neighbouring points, so that at most _MAX_POINTS points remain."""
    size = -(-len(x) // _MAX_POINTS)
    starts = np.arange(0, len(x), size)
    counts = np.diff(np.append(starts, len(x)))
    return (np.add.reduceat(x, starts) / counts).tolist(), (np.add.reduceat(y, starts) / counts).tolist()


def _draw_history(steps: Sequence[Line], history: Sequence[Line]) -> Part:
    if not history:
        return Note("No run history: history.jsonl does not exist.")
    first = history[0]["time"]
    events = _add_kills(history)
    counts = Counter(line["event"] for line in events)
    shown = _subsample_by_kind(events, counts)
    timed = [line for line in steps if "time" in line]
    seconds, done = zip(
        *sorted((line["time"] - first, line["step"]) for line in [*_subsample(timed), *shown]),
        strict=True,
    )
    marks = [
        (f"{kind} ({count:,})", [(line["time"] - first, line["step"]) for line in shown if line["event"] == kind])
        for kind, count in counts.items()
    ]
    totals = ", ".join(f"{count:,} × {kind}" for kind, count in counts.items())
    rows: list[Sequence[Cell]] = [
        [_format_time(line["time"]), line["event"], line["step"], line.get("reason", "")] for line in shown
    ]
    return Picture(
        title="Run history",
        summary=f"{totals}; {(history[-1]['time'] - first):,.0f} s from the first event to the last.",
        svg=run_charts.progress("history", seconds, done, marks),
        table=Table(["time (UTC)", "event", "step", "reason"], rows),
        is_wide=True,
    )


def _add_kills(history: Sequence[Line]) -> list[Line]:
    """Adds an event `killed` before each restart that does not follow an end of the run.

    The added event has the time and step of the event before it.
    """
    events: list[Line] = []
    for line in history:
        if events and line["event"] in _START_EVENTS and events[-1]["event"] not in _END_EVENTS:
            events.append({**events[-1], "event": "killed"})
        events.append(line)
    return events


def _subsample_by_kind(events: Sequence[Line], counts: Mapping[str, int]) -> list[Line]:
    """Keeps about _MAX_POINTS events of each kind; `counts` maps each kind to its number of events."""
    kept, seen = [], Counter[str]()
    for line in events:
        kind = line["event"]
        if seen[kind] % -(-counts[kind] // _MAX_POINTS) == 0:
            kept.append(line)
        seen[kind] += 1
    return kept


def _draw_architecture(record: RunRecord, tables: Mapping[str, tuple[int, int]]) -> Picture:
    boxes = model_diagram(record.config.scored_model, tables)
    weights = sum(rows * width for rows, width in tables.values())
    return Picture(
        title=f"Architecture: {record.config.model.kind}",
        summary=(
            f"Green boxes have weights; the tables have {compact(weights)} in total. B: rows per batch, C: candidates. "
            f"From left to right: {'; '.join(box.name for box in boxes)}."
        ),
        svg=run_charts.diagram("architecture", boxes),
        table=Table(
            ["part", "shape", "inputs", "has weights"],
            [[box.name, box.shape, ", ".join(box.reads), "yes" if box.is_trained else "no"] for box in boxes],
        ),
        is_wide=True,
    )


def _settings(record: RunRecord, history: Sequence[Line]) -> Columns:
    settings: list[Sequence[Cell]] = [
        [key, _format_setting(value)] for key, value in settings_of(record.config).items()
    ]
    environment: list[Sequence[Cell]] = [[name, version] for name, version in record.versions.items()]
    environment += [["commit", record.commit or "not a git checkout"], ["dataset", record.dataset_checksum[:12]]]
    latest_start = next((line for line in reversed(history) if line["event"] in _START_EVENTS), {})
    environment += [[name, str(latest_start[name])] for name in ("cpus", "gpus") if name in latest_start]
    events: list[Sequence[Cell]] = [[kind, count] for kind, count in record.events.items()]
    return Columns(
        [
            Block("Settings", Table(["setting", "value"], settings)),
            Block("Environment", Table(["name", "value"], environment)),
            Block("Training rows by event kind", Table(["event kind", "rows"], events)),
        ]
    )


def _format_setting(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
