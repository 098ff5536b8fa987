"""The Evaluation page: metrics of all systems with confidence intervals, and recommendations for sample visitors.

Every number comes from `evaluation-SPLIT.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from common.report import charts, run_charts
from common.report.page import Block, Cell, Columns, Facts, Note, Page, Part, Picture, Section, Table
from contract.schema import Split
from trainer.evaluation.groups import kind_group
from trainer.evaluation.tables import (
    MAIN_METRIC,
    SIGNIFICANT_P,
    describe_available,
    describe_refit,
    metric_title,
    primary_ranking,
    secondary_ranking,
)

Figures = Mapping[str, Any]
"""`evaluation-SPLIT.json`, or a part of it."""

_ACCURACY_METRICS = (MAIN_METRIC, "recall@20", "mrr@20", "hit_rate@20")
_EXPOSURE_METRICS = ("coverage@20", "gini@20", "novelty@20")
_GROUPS = (
    ("history length", ("history 1", "history 2-4", "history 5-9", "history 10+")),
    ("visitor group", ("known visitors", "cold visitors")),
    ("item popularity", ("head items", "middle items", "tail items", "cold items")),
)
_MAX_HISTORY_ROWS = 10


def evaluation_page(name: str, evaluations: Mapping[Split, Figures], refit_of: Mapping[str, Any] | None = None) -> Page:
    """Returns the Evaluation page of a run.

    Args:
      name: name of the run.
      evaluations: contents of `evaluation-SPLIT.json` by split; a refit has the evaluations of the original run.
      refit_of: field `refit_of` of the run's record; None if the run is not a refit.
    """
    split_sections = [section for split, figures in evaluations.items() for section in _split_sections(split, figures)]
    return Page(
        key="evaluation",
        title="Evaluation",
        subtitle=f"Run {name}: full-catalogue ranking, ties count against the system; bars are confidence intervals",
        sections=[
            *([Section("Refit", [Note(describe_refit(refit_of))])] if refit_of else []),
            *split_sections,
        ],
    )


def _split_sections(split: Split, figures: Figures) -> list[Section]:
    sections = [Section(f"{str(split).title()} split", _overview(figures))]
    for name, protocol in figures["protocols"].items():
        title = f"{name.replace('_', ' ').capitalize()} ({split})"
        ranking = primary_ranking(protocol)
        if ranking:
            sections.append(
                Section(title, _protocol_parts(f"{split}-{name}", protocol, ranking, figures["event_kinds"]))
            )
            if protocol.get("samples"):
                sections.append(Section(f"{title}: sample visitors", _sample_parts(protocol["samples"])))
        else:
            sections.append(Section(title, [Note("No cases in this split.")]))
    return sections


def _overview(figures: Figures) -> list[Part]:
    # the notes are also log messages, which start in lower case
    notes = [f"{note[0].upper()}{note[1:]}." for note in figures["notes"]]
    intervals = figures["intervals"]
    facts = [
        ("dataset", figures["dataset"]),
        ("dataset checksum", figures["dataset_checksum"][:12]),
        ("confidence intervals", f"{intervals['level']:.0%}, {intervals['method']}"),
        ("resamples", intervals["resamples"]),
    ]
    parts: list[Part] = [*(Note(note, is_warning=figures["is_leaking"]) for note in notes), Facts(facts)]
    if figures["ratings"]:
        parts.append(_draw_rating_errors(figures["split"], figures["ratings"]))
    return parts


def _judge_skill(skill: float | None) -> str:
    if skill is not None and skill > 0:
        return f"The model's error is {skill:.1%} lower."
    return "A constant is at least as good, so the error does not indicate good recommendations."


def _draw_rating_errors(split: str, ratings: Figures) -> Picture:
    labels = {"mse": "model", "mse_of_training_mean": "training mean", "mse_of_one": "constant 1"}
    values = {label: ratings[key] for key, label in labels.items()}
    return Picture(
        title="Squared error on event weights",
        summary=(
            f"MSE over {ratings['rows']:,} rows: {ratings['mse']:.4f} for the model, "
            f"{ratings['mse_of_training_mean']:.4f} for the training mean. {_judge_skill(ratings['skill'])}"
        ),
        svg=charts.bars(
            f"ratings-{split}", list(values), list(values.values()), notes=[f"{value:.4f}" for value in values.values()]
        ),
        table=Table(
            ["prediction", "MSE"], [*values.items(), ("skill: 1 − MSE / MSE of the training mean", ratings["skill"])]
        ),
    )


def _protocol_parts(key: str, protocol: Figures, ranking: Figures, kinds: Sequence[str]) -> list[Part]:
    cases = protocol["cases"]
    facts = Facts(
        [
            ("visitors", cases["visitors"]),
            ("cases evaluated", cases["cases"]),
            ("cases in total", cases["cases_in_all"]),
            ("relevant items", cases["relevant_items"]),
            ("skipped: no history", cases["without_history"]),
            ("skipped: no relevant items", cases["without_relevant_items"]),
            ("rows with unknown items", f"{cases['unknown_item_share']:.1%}"),
            ("items in the catalogue", cases["catalogue_items"]),
        ]
    )
    parts: list[Part] = [
        Note(f"Relevant items: {protocol['protocol']}."),
        facts,
        _draw_accuracy(key, "Systems by metric", ranking),
        _draw_exposure(f"{key}-exposure", ranking),
    ]
    if available := describe_available(protocol):
        parts.append(Note(f"{available}."))
    policy, secondary = secondary_ranking(protocol)
    if secondary:
        title = f"Systems by metric, {policy.replace('_', ' items ')}"
        parts.append(_draw_accuracy(f"{key}-{policy}", title, secondary))
    if protocol.get("pairs"):
        parts.append(_pair_table(list(ranking), protocol["pairs"][MAIN_METRIC]))
    return [*parts, *_draw_groups(key, protocol["groups"], kinds), _all_metrics(ranking)]


def _draw_accuracy(key: str, title: str, systems: Figures) -> Picture:
    model = next(iter(systems))
    summary = _name_best(systems, MAIN_METRIC)
    if "low" in systems[model][MAIN_METRIC]:
        different = [name for name in systems if systems[name][MAIN_METRIC].get("p", 1) < SIGNIFICANT_P]
        summary += f" Significantly different from {model} (p < {SIGNIFICANT_P}): {', '.join(different) or 'none'}."
    return _draw_metrics(key, title, summary, systems, _ACCURACY_METRICS)


def _draw_exposure(key: str, systems: Figures) -> Picture:
    summary = (
        f"{_name_best(systems, _EXPOSURE_METRICS[0])} Coverage: share of the catalogue that appears in any list. "
        "Gini: 0 if all items are recommended equally often, near 1 if all lists contain the same few items. "
        "Novelty: mean −log₂ of the recommended items' share of the training events, in bits. "
        "Higher is not necessarily better."
    )
    return _draw_metrics(key, "Coverage, concentration and novelty", summary, systems, _EXPOSURE_METRICS)


def _name_best(systems: Figures, metric: str) -> str:
    best = max(systems, key=lambda name: systems[name][metric]["value"])
    value, title = systems[best][metric]["value"], metric_title(metric)
    if all(figures[metric]["value"] == value for figures in systems.values()):
        return f"All systems have the same {title}: {value:.4f}."
    return f"{best} has the highest {title}: {value:.4f}."


def _draw_metrics(key: str, title: str, summary: str, systems: Figures, metrics: Sequence[str]) -> Picture:
    present = [metric for metric in metrics if metric in next(iter(systems.values()))]
    panels = [
        (metric_title(metric), [_interval(figures[metric]) for figures in systems.values()]) for metric in present
    ]
    svg = run_charts.dots(key, list(systems), panels)
    return Picture(title=title, summary=summary, svg=svg, table=_metric_table(systems, present), is_wide=True)


def _pair_table(systems: Sequence[str], pairs: Figures) -> Block:
    """Returns a table of `pairs`: each cell is the main metric of the row's system minus that of the column's."""

    def cell(row: str, column: str) -> Cell:
        if row == column:
            return "–"
        # the file has each pair once
        sign, pair = (1, pairs[row][column]) if column in pairs.get(row, {}) else (-1, pairs[column][row])
        return f"{sign * pair['difference']:+z.4f}{'†' if pair['p'] < SIGNIFICANT_P else ''}"

    rows = [[row, *(cell(row, column) for column in systems)] for row in systems]
    title = (
        f"Pairwise {metric_title(MAIN_METRIC)} differences (row − column); "
        f"† p < {SIGNIFICANT_P}, not corrected for multiple comparisons"
    )
    return Block(title, Table(["", *systems], rows))


def _draw_groups(key: str, groups: Figures, kinds: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    by_kind = ("event kind", tuple(map(kind_group, kinds if len(kinds) > 1 else ())))
    for index, (title, names) in enumerate((by_kind, *_GROUPS)):
        present = [name for name in names if name in groups]
        if not present:
            continue
        systems = list(groups[present[0]]["ranking"])
        panels = [
            (
                f"{name} ({groups[name]['cases']:,})",
                [_interval(groups[name]["ranking"][system][MAIN_METRIC]) for system in systems],
            )
            for name in present
        ]
        rows: list[Sequence[Cell]] = [
            [name, system, groups[name]["cases"], *_estimate_cells(groups[name]["ranking"][system][MAIN_METRIC])]
            for name in present
            for system in systems
        ]
        parts.append(
            Picture(
                title=f"{metric_title(MAIN_METRIC)} by {title}",
                summary="In a group, only its relevant items count as hits; the full catalogue is ranked. "
                "The number of cases is in brackets.",
                svg=run_charts.dots(f"{key}-group-{index}", systems, panels),
                table=Table([title, "system", "cases", "value", "low", "high", "p"], rows),
                is_wide=True,
            )
        )
    return parts


def _all_metrics(systems: Figures) -> Block:
    metrics = list(next(iter(systems.values())))
    return Block("All metrics at all cutoffs", _metric_table(systems, metrics), is_folded=True)


def _metric_table(systems: Figures, metrics: Sequence[str]) -> Table:
    rows = [
        [system, metric_title(metric), *_estimate_cells(figures[metric])]
        for metric in metrics
        for system, figures in systems.items()
    ]
    return Table(["system", "metric", "value", "low", "high", "p"], rows)


def _estimate_cells(estimate: Figures) -> list[Cell]:
    return [estimate["value"], estimate.get("low"), estimate.get("high"), estimate.get("p")]


def _interval(estimate: Figures) -> tuple[float, float, float]:
    """Returns an estimate's value and its confidence limits; without limits, the value three times."""
    value = estimate["value"]
    return value, estimate.get("low", value), estimate.get("high", value)


def _sample_parts(samples: Sequence[Figures]) -> list[Part]:
    visitors = "1 visitor" if len(samples) == 1 else f"{len(samples)} visitors"
    hint = Note(
        f"{visitors}, drawn at random. ✓ marks relevant items. "
        "Items are shown as title (id), or as id (category) if they have no title."
    )
    return [hint, *(part for sample in samples for part in _visitor_parts(sample))]


def _visitor_parts(sample: Figures) -> list[Part]:
    visitor = f"Visitor {sample['visitor_id']}" if sample["visitor_id"] else "Cold visitor"
    count, names = sample["relevant_items"], ", ".join(map(_describe_item, sample["relevant"]))
    rest = ", …" if count > len(sample["relevant"]) else ""
    history = sample["history"][-_MAX_HISTORY_ROWS:]
    title = (
        f"{visitor}: latest {len(history)} of {sample['history_rows']} events before {_format_minute(sample['moment'])}"
    )
    rows = [[_format_minute(row["time"]), row["event"], _describe_item(row)] for row in history]
    return [
        Columns([Block(title, Table(["time (UTC)", "event", "item"], rows)), _recommendations(sample["systems"])]),
        Note(f"Relevant items ({count}): {names}{rest}"),
    ]


def _recommendations(systems: Figures) -> Block:
    rows, marked = [], set()
    for rank in range(max(map(len, systems.values()))):
        row: list[Cell] = [str(rank + 1)]
        for column, ranked in enumerate(systems.values()):
            item = ranked[rank] if rank < len(ranked) else None
            row.append(f"{'✓ ' if item['is_hit'] else ''}{_describe_item(item)}" if item else "–")
            if item and item["is_hit"]:
                marked.add((rank, column + 1))
        rows.append(row)
    return Block("Recommendations", Table(["", *systems], rows, frozenset(marked)))


def _describe_item(item: Figures) -> str:
    if item["item_id"] is None:
        return "unknown item"
    if item["title"]:
        return f"{item['title']} ({item['item_id']})"
    return f"{item['item_id']} ({item['category_id']})" if item["category_id"] else item["item_id"]


def _format_minute(moment: str) -> str:
    """Shortens an ISO timestamp, for example to `2015-09-01 10:00`."""
    return moment[:16].replace("T", " ")
