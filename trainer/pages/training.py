"""The Training page: how loss and validation went, how fast, what happened on the way, and what was trained.

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
from trainer.models.build import model_diagram
from trainer.runs.checkpoint import Validations
from trainer.runs.record import RunRecord

T = TypeVar("T")
Line = Mapping[str, Any]
"""A line of `metrics.jsonl` or of `history.jsonl`."""

_STARTS, _ENDS = ("started", "resumed"), ("finished", "failed", "preempted")
_MAX_POINTS = 400  # of a curve, a kind of happening, a table: beyond it neighbours are drawn as their mean, or left out


def training_page(
    name: str,
    record: RunRecord,
    metrics: Sequence[Line],
    history: Sequence[Line],
    validations: Validations,
    tables: Mapping[str, tuple[int, int]],
) -> Page:
    """The page of the run called `name`.

    Args:
      record: of the run.
      metrics: lines of steps and of validations, in order.
      history: what happened, in order; empty for a run of an earlier version.
      validations: what the checkpoints reached.
      tables: [rows, D] of each table of the model.
    """
    steps = [line for line in metrics if "loss" in line]
    return Page(
        key="training",
        title="Training",
        subtitle=f"Run {name}: {record.config.model.kind} on dataset {record.data}",
        sections=[
            Section(
                "How it went",
                [
                    *_facts(record, steps, history),
                    *_carried(record.warm_start),
                    *_curves(steps, validations),
                    _time_line(steps, history),
                ],
            ),
            Section("The model", [_architecture(record, tables)]),
            Section("Settings and environment", [_settings(record, history)]),
        ],
    )


def _facts(record: RunRecord, steps: Sequence[Line], history: Sequence[Line]) -> list[Part]:
    last = steps[-1] if steps else {"step": 0, "epoch": 0, "loss": None}
    happened = [line["event"] for line in history]
    rates = [line["examples_per_second"] for line in steps]
    return [
        Facts(
            [
                ("steps done", last["step"]),
                ("epochs", f"{last['epoch']} of {record.config.epochs}"),
                ("training rows", record.training_rows),
                ("last loss", last["loss"]),
                ("examples a second, median", round(float(np.median(rates))) if rates else None),
                ("times resumed", happened.count("resumed")),
                ("times preempted", happened.count("preempted")),
            ]
        )
    ]


def _carried(warm_start: Mapping[str, Any] | None) -> list[Part]:
    """What a warm start took from the earlier run; nothing before its first step."""
    if warm_start is None or "tables" not in warm_start:
        return []
    tables = warm_start["tables"]
    counts = list(next(iter(tables.values())))
    rows: list[Sequence[Cell]] = [[name, *(counted[what] for what in counts)] for name, counted in tables.items()]
    title = f"Begun with the vectors of {warm_start['run']}, step {warm_start['step']}: rows of each table"
    return [Block(title, Table(["table", *(what.replace("_", " ") for what in counts)], rows))]


def _curves(steps: Sequence[Line], validations: Validations) -> list[Part]:
    if not steps:
        return [Note("No step was made yet.")]
    numbers, losses = [line["step"] for line in steps], [line["loss"] for line in steps]
    rates = [line["examples_per_second"] for line in steps]
    parts: list[Part] = [
        Picture(
            title="Loss",
            summary=_describe_losses(losses),
            svg=run_charts.lines("loss", [("loss", *_thin(numbers, losses))], x_label="step", y_label="loss"),
            table=_table(steps, "loss"),
        )
    ]
    parts.append(_validation(validations))
    parts.append(
        Picture(
            title="Examples a second",
            summary=f"Median {np.median(rates):,.0f}, slowest {min(rates):,.0f}, fastest {max(rates):,.0f}.",
            svg=run_charts.lines(
                "rate", [("rate", *_thin(numbers, rates))], x_label="step", y_label="examples a second", colour=2
            ),
            table=_table(steps, "examples_per_second"),
        )
    )
    return parts


def _describe_losses(losses: Sequence[float]) -> str:
    finite = [loss for loss in losses if math.isfinite(loss)]
    missing = f"not finite in {len(losses) - len(finite):,} of {len(losses):,} lines."
    if not finite:
        return missing.capitalize()
    told = f"From {finite[0]:.4g} to {finite[-1]:.4g}; lowest {min(finite):.4g}"
    return f"{told}." if len(finite) == len(losses) else f"{told}; {missing}"


def _validation(validations: Validations) -> Part:
    values = validations.values
    if not values:
        return Note("Nothing was measured on the validation split: the last checkpoint is the best.")
    choose = max if validations.is_higher_better else min
    best = choose(values, key=lambda step: values[step])
    metric, better = validations.metric, "more" if validations.is_higher_better else "less"
    return Picture(
        title=f"Validation: {metric}",
        summary=f"Best after step {best:,}: {values[best]:.4f}; {better} is better.",
        svg=run_charts.lines(
            "validation",
            [(metric, *_thin(list(values), list(values.values())))],
            x_label="step",
            y_label=metric,
            mark=(best, values[best]),
            colour=1,
        ),
        table=Table(["step", metric], [[step, values[step]] for step in sorted({*_some(list(values)), best})]),
    )


def _table(steps: Sequence[Line], figure: str) -> Table:
    rows = [[line["step"], line["epoch"], line[figure]] for line in _some(steps)]
    return Table(["steps", "epoch", figure.replace("_per_", " a ").replace("_", " ")], rows)


def _some(values: Sequence[T]) -> Sequence[T]:
    """Every so-manieth of many, from the first on: at most `_MAX_POINTS`."""
    return values[:: -(-len(values) // _MAX_POINTS) or 1]


def _thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """The curve with neighbours put together until at most `_MAX_POINTS` are left."""
    size = -(-len(x) // _MAX_POINTS)
    starts = np.arange(0, len(x), size)
    counts = np.diff(np.append(starts, len(x)))
    return (np.add.reduceat(x, starts) / counts).tolist(), (np.add.reduceat(y, starts) / counts).tolist()


def _time_line(steps: Sequence[Line], history: Sequence[Line]) -> Part:
    if not history:
        return Note("The run has no history.jsonl: an earlier version trained it. Its curves are those above.")
    first = history[0]["time"]
    happened = _with_kills(history)
    counts = Counter(line["event"] for line in happened)
    shown = _seldom(happened, counts)
    timed = [line for line in steps if "time" in line]
    seconds, done = zip(
        *sorted((line["time"] - first, line["step"]) for line in [*_some(timed), *shown]),
        strict=True,
    )
    marks = [
        (f"{kind} ({count:,})", [(line["time"] - first, line["step"]) for line in shown if line["event"] == kind])
        for kind, count in counts.items()
    ]
    told = ", ".join(f"{count:,} × {kind}" for kind, count in counts.items())
    rows: list[Sequence[Cell]] = [
        [_format(line["time"]), line["event"], line["step"], line.get("reason", "")] for line in shown
    ]
    return Picture(
        title="Time line of the run",
        summary=f"{told}; {(history[-1]['time'] - first):,.0f} s from the first line to the last.",
        svg=run_charts.progress("time-line", seconds, done, marks),
        table=Table(["time (UTC)", "event", "step", "reason"], rows),
        is_wide=True,
    )


def _with_kills(history: Sequence[Line]) -> list[Line]:
    """What happened, in order; a start without an end before it tells of a kill, at the last line before it."""
    happened: list[Line] = []
    for line in history:
        if happened and line["event"] in _STARTS and happened[-1]["event"] not in _ENDS:
            happened.append({**happened[-1], "event": "killed"})
        happened.append(line)
    return happened


def _seldom(happened: Sequence[Line], counts: Mapping[str, int]) -> list[Line]:
    """Of each kind at most `_MAX_POINTS`, every so-manieth: a long run has thousands of checkpoints and few starts."""
    kept, seen = [], Counter[str]()
    for line in happened:
        kind = line["event"]
        if seen[kind] % -(-counts[kind] // _MAX_POINTS) == 0:
            kept.append(line)
        seen[kind] += 1
    return kept


def _architecture(record: RunRecord, tables: Mapping[str, tuple[int, int]]) -> Picture:
    boxes = model_diagram(record.config.scored_model, tables)
    weights = sum(rows * width for rows, width in tables.values())
    return Picture(
        title=f"Architecture: {record.config.model.kind}",
        summary=(
            f"Green parts hold weights, {compact(weights)} of them in tables. B rows of a batch, C candidates; from "
            "left to right: " + ", ".join(box.name for box in boxes) + "."
        ),
        svg=run_charts.diagram("architecture", boxes),
        table=Table(
            ["part", "shape", "reads", "weights"],
            [[box.name, box.shape, ", ".join(box.reads), "yes" if box.is_trained else "no"] for box in boxes],
        ),
        is_wide=True,
    )


def _settings(record: RunRecord, history: Sequence[Line]) -> Columns:
    settings: list[Sequence[Cell]] = [[key, _text(value)] for key, value in settings_of(record.config).items()]
    environment: list[Sequence[Cell]] = [[name, version] for name, version in record.versions.items()]
    environment += [["commit", record.commit or "not from a checkout"], ["dataset", record.dataset_checksum[:12]]]
    started = next((line for line in reversed(history) if line["event"] in _STARTS), {})
    environment += [[name, str(started[name])] for name in ("cpus", "gpus") if name in started]
    events: list[Sequence[Cell]] = [[kind, count] for kind, count in record.events.items()]
    return Columns(
        [
            Block("Settings", Table(["setting", "value"], settings)),
            Block("Environment", Table(["name", "value"], environment)),
            Block("Training rows by kind", Table(["kind", "rows"], events)),
        ]
    )


def _text(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _format(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
