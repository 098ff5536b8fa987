"""The Evaluation page: systems side by side with their intervals, and visitors beside what they would have been shown.

Every number comes from `evaluation-SPLIT.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from common.report import charts, run_charts
from common.report.page import Block, Cell, Columns, Facts, Note, Page, Part, Picture, Section, Table
from contract.schema import Split
from trainer.evaluation.tables import primary_ranking, secondary_ranking

Figures = Mapping[str, Any]
"""`evaluation-SPLIT.json`, or a part of it."""

_METRICS = ("ndcg@20", "recall@20", "mrr@20", "hit_rate@20")
_EXPOSURE = ("coverage@20", "gini@20", "novelty@20")
_GROUP_METRIC = "ndcg@20"
_GROUPS = (
    ("kind of event", ("views", "carts", "purchases")),
    ("length of the history", ("history 1", "history 2-4", "history 5-9", "history 10+")),
    ("visitor", ("known visitors", "cold visitors")),
    ("popularity of the item", ("head items", "middle items", "tail items", "cold items")),
)
_SIGNIFICANT_P = 0.05
_SHOWN_ROWS = 10


def evaluation_page(name: str, evaluations: Mapping[Split, Figures]) -> Page:
    """The page of the run called `name`, from its evaluations by split."""
    return Page(
        key="evaluation",
        title="Evaluation",
        subtitle=f"Run {name}: the whole catalogue ranked, ties broken pessimistically; bars are 95% intervals",
        sections=[section for split, figures in evaluations.items() for section in _sections(split, figures)],
    )


def _sections(split: Split, figures: Figures) -> list[Section]:
    sections = [Section(f"{str(split).title()} split", _head(figures))]
    for name, protocol in figures["protocols"].items():
        title = f"{name.replace('_', ' ').capitalize()} ({split})"
        ranking = primary_ranking(protocol)
        if ranking:
            sections.append(Section(title, _protocol(f"{split}-{name}", protocol, ranking)))
            if protocol.get("samples"):
                sections.append(Section(f"{title}: visitors", _visitors(protocol["samples"])))
        else:
            sections.append(Section(title, [Note(f"{protocol['protocol']}: there is nobody to rank for.")]))
    return sections


def _head(figures: Figures) -> list[Part]:
    parts: list[Part] = [Note(note, is_warning=figures["is_leaking"]) for note in figures["notes"]]
    intervals = figures["intervals"]
    parts.append(
        Facts(
            [
                ("dataset", figures["dataset"]),
                ("checksum", figures["dataset_checksum"][:12]),
                ("model", f"of step {figures['step']:,}"),
                ("intervals", f"{intervals['level']:.0%}, {intervals['method']}"),
                ("resamples", intervals["resamples"]),
            ]
        )
    )
    if figures["ratings"]:
        parts.append(_ratings(figures["split"], figures["ratings"]))
    return parts


def _ratings(split: str, ratings: Figures) -> Picture:
    names = {"mse": "this model", "mse_of_training_mean": "the mean, always", "mse_of_one": "1, always"}
    values = {label: ratings[key] for key, label in names.items()}
    skill = ratings["skill"]
    is_better = skill is not None and skill > 0
    verdict = (
        f"it explains {skill:.1%} of what the mean leaves"
        if is_better
        else "a constant does as well or better, so that the error tells nothing about what to recommend"
    )
    return Picture(
        title="Squared error on event weights",
        summary=(
            f"Over {ratings['rows']:,} rows the model errs by {ratings['mse']:.4f}, the mean of the training rows by "
            f"{ratings['mse_of_training_mean']:.4f}: {verdict}."
        ),
        svg=charts.bars(
            f"ratings-{split}", list(values), list(values.values()), notes=[f"{value:.4f}" for value in values.values()]
        ),
        table=Table(["predicting", "MSE"], [*values.items(), ("skill: 1 − MSE / MSE of the mean", skill)]),
    )


def _protocol(key: str, protocol: Figures, ranking: Figures) -> list[Part]:
    cases = protocol["cases"]
    facts = Facts(
        [
            ("visitors", cases["visitors"]),
            ("cases", cases["cases"]),
            ("cases in all", cases["cases_in_all"]),
            ("relevant items", cases["relevant_items"]),
            ("left out: without history", cases["without_history"]),
            ("left out: nothing to find", cases["without_relevant_items"]),
            ("rows of unknown items", f"{cases['unknown_item_share']:.1%}"),
            ("catalogue items", cases["catalogue_items"]),
        ]
    )
    parts: list[Part] = [
        Note(f"Relevant: {protocol['protocol']}."),
        facts,
        _ranking(key, "Systems by metric", ranking, _METRICS),
        _ranking(f"{key}-exposure", "Coverage and popularity of what is recommended", ranking, _EXPOSURE),
    ]
    name, secondary = secondary_ranking(protocol)
    if secondary:
        title = f"Systems by metric, {name.replace('_', ' items ')}"
        parts.append(_ranking(f"{key}-{name}", title, secondary, _METRICS))
    if protocol.get("pairs"):
        parts.append(_pairs(list(ranking), protocol["pairs"][_METRICS[0]]))
    return [*parts, *_groups(key, protocol["groups"]), _all_figures(ranking)]


def _ranking(key: str, title: str, systems: Figures, metrics: Sequence[str]) -> Picture:
    shown = [metric for metric in metrics if metric in next(iter(systems.values()))]
    first, best = shown[0], max(systems, key=lambda name: systems[name][shown[0]]["value"])
    worse = [name for name in systems if systems[name][first].get("p", 1) < _SIGNIFICANT_P]
    model = next(iter(systems))
    tested = (
        f" Significantly different from {model}: {', '.join(worse) or 'none'}."
        if "low" in systems[model][first]
        else ""
    )
    value = systems[best][first]["value"]
    told = f"The highest {first} has {best}: {value:.4f}." if value else f"All systems have {first} 0."
    explained = (
        " Coverage: the share of the catalogue in anybody's list; Gini: 0 all items alike, 1 the same few to "
        "everybody; novelty: bits, more for rarer items. Of none is more better in itself."
    )
    return Picture(
        title=title,
        summary=told + (explained if first == _EXPOSURE[0] else tested),
        svg=run_charts.dots(
            key,
            list(systems),
            [(metric, [_interval(figures[metric]) for figures in systems.values()]) for metric in shown],
        ),
        table=_estimates(systems, shown),
        is_wide=True,
    )


def _pairs(systems: Sequence[str], pairs: Figures) -> Block:
    """A row and a column a system: by how much the one is better than the other."""

    def cell(row: str, column: str) -> Cell:
        if row == column:
            return "–"
        sign, pair = (1, pairs[row][column]) if column in pairs.get(row, {}) else (-1, pairs[column][row])
        return f"{sign * pair['difference']:+z.4f}{'†' if pair['p'] < _SIGNIFICANT_P else ''}"

    rows = [[row, *(cell(row, column) for column in systems)] for row in systems]
    title = f"Any two systems: {_METRICS[0]} of the row less that of the column; † p < {_SIGNIFICANT_P}, each by itself"
    return Block(title, Table(["", *systems], rows))


def _groups(key: str, groups: Figures) -> list[Part]:
    parts: list[Part] = []
    for place, (title, names) in enumerate(_GROUPS):
        present = [name for name in names if name in groups]
        if not present:
            continue
        systems = list(groups[present[0]]["ranking"])
        panels = [
            (
                f"{name} ({groups[name]['cases']:,})",
                [_interval(groups[name]["ranking"][system][_GROUP_METRIC]) for system in systems],
            )
            for name in present
        ]
        rows: list[Sequence[Cell]] = [
            [name, system, groups[name]["cases"], *_values(groups[name]["ranking"][system][_GROUP_METRIC])]
            for name in present
            for system in systems
        ]
        parts.append(
            Picture(
                title=f"{_GROUP_METRIC} by {title}",
                summary="Only relevant items of the group count, the others stay in the ranking; in brackets: cases.",
                svg=run_charts.dots(f"{key}-group-{place}", systems, panels),
                table=Table([title, "system", "cases", "value", "low", "high", "p"], rows),
                is_wide=True,
            )
        )
    return parts


def _all_figures(systems: Figures) -> Block:
    metrics = list(next(iter(systems.values())))
    return Block("All metrics, all list lengths", _estimates(systems, metrics), is_folded=True)


def _estimates(systems: Figures, metrics: Sequence[str]) -> Table:
    rows = [[system, metric, *_values(figures[metric])] for metric in metrics for system, figures in systems.items()]
    return Table(["system", "metric", "value", "low", "high", "p"], rows)


def _values(estimate: Figures) -> list[Cell]:
    return [estimate["value"], estimate.get("low"), estimate.get("high"), estimate.get("p")]


def _interval(estimate: Figures) -> tuple[float, float, float]:
    value = estimate["value"]
    return value, estimate.get("low", value), estimate.get("high", value)


def _visitors(samples: Sequence[Figures]) -> list[Part]:
    hint = Note(
        f"{len(samples)} visitors drawn at random, served well or badly. ✓: what the visitor then turned to. "
        "An item is named by its title and id, or by its id and category if it has no title."
    )
    return [hint, *(part for sample in samples for part in _visitor(sample))]


def _visitor(sample: Figures) -> list[Part]:
    """A sentence on what came, and side by side what was before and what each system would have shown."""
    who = f"Visitor {sample['visitor_id']}" if sample["visitor_id"] else "A visitor new to training"
    count, named = sample["relevant_items"], ", ".join(map(_item, sample["relevant"]))
    rest = ", …" if count > len(sample["relevant"]) else ""
    history = sample["history"][-_SHOWN_ROWS:]
    before = f"{who}: the latest {len(history)} of {sample['history_rows']} rows before {_short(sample['moment'])}"
    rows = [[_short(row["time"]), row["event"], _item(row)] for row in history]
    return [
        Columns([Block(before, Table(["time (UTC)", "event", "item"], rows)), _lists(sample["systems"])]),
        Note(f"Then turned to {count}: {named}{rest}"),
    ]


def _lists(systems: Figures) -> Block:
    """A column a system, the best item on top."""
    longest = max(map(len, systems.values()))
    rows, marked = [], set()
    for place in range(longest):
        row: list[Cell] = [str(place + 1)]
        for column, ranked in enumerate(systems.values()):
            item = ranked[place] if place < len(ranked) else None
            row.append(f"{'✓ ' if item['is_hit'] else ''}{_item(item)}" if item else "–")
            if item and item["is_hit"]:
                marked.add((place, column + 1))
        rows.append(row)
    return Block("Recommended", Table(["", *systems], rows, frozenset(marked)))


def _item(row: Figures) -> str:
    if row["item_id"] is None:
        return "unknown to training"
    if row["title"]:
        return f"{row['title']} ({row['item_id']})"
    return f"{row['item_id']} ({row['category_id']})" if row["category_id"] else row["item_id"]


def _short(moment: str) -> str:
    return moment[:16].replace("T", " ")
