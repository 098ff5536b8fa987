"""Computes the table that each picture of a report should have, from the files that the report is drawn from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from common.report.parts import duration

Rows = list[list[Any]]
Pictures = dict[tuple[str, str], Rows]
"""Rows of each picture's table, by section heading and title."""

KINDS = ("view", "addtocart", "transaction")


def check_cell(text: str, expected: Any) -> None:
    """Asserts that a cell shows a value: integers in full, floats to four digits, None as a dash."""
    if expected is None:
        assert text == "–"
    elif isinstance(expected, float):
        assert float(text.replace(",", "")) == pytest.approx(expected, rel=1e-3, abs=1e-9)
    elif isinstance(expected, int):
        assert text == f"{expected:,}"
    else:
        assert text == expected


def data_pictures(statistics: Mapping[str, Any]) -> Pictures:
    """Returns the expected tables of a Data page."""
    events, items = statistics["events"], statistics["items"]
    by_section = {
        "Input": _reading(statistics),
        "Events": _events(events, statistics["correlation"]),
        "Items": _items(items, statistics["catalogue"]["events_by_category"]),
        "Visitors": _visitors(events),
        "Splits": _splits(events["by_split"], items["by_split"]),
    }
    return {(section, title): rows for section, found in by_section.items() for title, rows in found.items()}


def _reading(statistics: Mapping[str, Any]) -> dict[str, Rows]:
    inputs = (("events", "events"), ("item_properties", "item properties"), ("category_tree", "category tree"))
    return {
        f"Rejected rows: {name}": _with_shares(statistics[key]["rejected"].items())
        for key, name in inputs
        if statistics[key] and statistics[key]["rejected"]
    }


def _events(events: Mapping[str, Any], correlation: Mapping[str, Any]) -> dict[str, Rows]:
    by_kind = events["by_kind"]
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    return {
        "Events by kind": _with_shares((kind, by_kind[kind]) for kind in KINDS),
        "Events by kind, without view": _with_shares((kind, by_kind[kind]) for kind in KINDS[1:]),
        "Shares of event kinds": _with_shares((kind, by_kind[kind]) for kind in KINDS),
        "Events per day, by kind": [[day, *(n[kind] for kind in KINDS)] for day, n in events["by_day"].items()],
        "Events by weekday and hour (UTC)": [
            [day, *hours] for day, hours in zip(days, events["by_weekday_hour"], strict=True)
        ],
        "Correlation of columns": [
            [name, *row] for name, row in zip(correlation["columns"], correlation["matrix"], strict=True)
        ],
    }


def _items(items: Mapping[str, Any], categories: Sequence[Mapping[str, Any]]) -> dict[str, Rows]:
    lorenz = items["concentration"]["lorenz"]
    return {
        **{f"Top items by {kind}": _ranking(rows, "item_id") for kind, rows in items["top_items_by_kind"].items()},
        "Top 5 items, all events": _ranking(items["top_items"], "item_id"),
        "Events per item": _histogram(items["events_per_item"]),
        "Concentration of events on items (Lorenz curve)": [
            [f"{percent}%", f"{part:.2%}"] for percent, part in enumerate(lorenz)
        ],
        "Events by category": [[row["category_id"], " › ".join(row["path"]), row["events"]] for row in categories],
        "New items over time": [[day, count] for day, count in items["new_items_by_day"].items()],
    }


def _ranking(rows: Sequence[Mapping[str, Any]], name: str) -> Rows:
    return [[row[name], row["events"]] for row in rows]


def _visitors(events: Mapping[str, Any]) -> dict[str, Rows]:
    funnel, by_kind = events["funnel"], events["visitors_by_kind"]
    top = events["top_visitors_by_kind"]
    return {
        **{f"Top visitors by {kind}": _ranking(rows, "visitor_id") for kind, rows in top.items()},
        "Top 5 visitors, all events": _ranking(events["top_visitors"], "visitor_id"),
        "Events per visitor": _histogram(events["events_per_visitor"]),
        "From view to transaction, visitor-item pairs": [
            ["view", funnel["by_kind"]["view"], None, None, None],
            *(
                [s["kind"], funnel["by_kind"][s["kind"]], s["after_previous"], s["after_first"], s["after_all"]]
                for s in funnel["steps"]
            ),
        ],
        "Visitors by event kind": [[kind, by_kind[kind], _share(by_kind[kind], events["visitors"])] for kind in KINDS],
        "Events per session (a pause above 30 minutes ends it)": _histogram(events["sessions"]["events_per_session"]),
        "Session durations": _durations(events["sessions"]["seconds"]),
        "Pauses between a visitor's events": _durations(events["gap_seconds"]),
        "New visitors over time": [[day, count] for day, count in events["new_visitors_by_day"].items()],
    }


def _splits(visitors: Mapping[str, Any], items: Mapping[str, Any]) -> dict[str, Rows]:
    events = {split: sum(visitors[split]["by_kind"].values()) for split in ("train", "validation", "test")}
    held_out = ("validation", "test")
    return {
        "Events per split": [[split, count] for split, count in events.items()],
        **{
            f"Events of {what} seen in training": [
                [split, events[split] - num_of_new, num_of_new, found[split][f"new_{what}"]]
                for split in held_out
                for num_of_new in [found[split][f"events_of_new_{what}"]]
            ]
            for what, found in (("visitors", visitors), ("items", items))
        },
    }


def training_pictures(
    metrics: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]], times: Sequence[str]
) -> Pictures:
    """Returns the expected tables of the Training page of a short `notebook-nn` run with `model.dim` 4.

    Args:
      metrics: lines of `metrics.jsonl`.
      history: lines of `history.jsonl`.
      times: times of the events in `history`, as the page shows them.
    """
    steps = [line for line in metrics if "loss" in line]
    validations = [[line["step"], line["validation_mse"]] for line in metrics if "validation_mse" in line]
    layers = ["8 × 80", "80 × 40", "40 × 20", "20 × 1"]
    return {
        ("Progress", "Loss"): [[line["step"], line["epoch"], line["loss"]] for line in steps],
        ("Progress", "Validation MSE"): validations,
        ("Progress", "Throughput"): [[line["step"], line["epoch"], line["examples_per_second"]] for line in steps],
        ("Progress", "Run history"): [
            [time, line["event"], line["step"], ""] for time, line in zip(times, history, strict=True)
        ],
        ("Model", "Architecture: neural"): [
            ["visitors", "[B]", "", "no"],
            ["items", "[B or C]", "", "no"],
            ["visitor table", "13 × 4", "visitors", "yes"],
            ["item table", "16 × 4", "items", "yes"],
            ["concatenation", "[B, 8]", "visitor table, item table", "no"],
            *(
                [f"dense {layer}, relu", shape, f"dense {layer - 1}, relu" if layer > 1 else "concatenation", "yes"]
                for layer, shape in enumerate(layers, start=1)
            ),
            ["event weight", "[B]", "dense 4, relu", "no"],
        ],
    }


def evaluation_pictures(evaluation: Mapping[str, Any]) -> Pictures:
    """Returns the expected tables of the Evaluation page, for the test split."""
    ratings, pictures = evaluation["ratings"], {}
    if ratings:
        pictures["Test split", "Squared error on event weights"] = [
            ["model", ratings["mse"]],
            ["training mean", ratings["mse_of_training_mean"]],
            ["constant 1", ratings["mse_of_one"]],
            ["skill: 1 − MSE / MSE of the training mean", ratings["skill"]],
        ]
    for name, protocol in evaluation["protocols"].items():
        section = f"{name.replace('_', ' ').capitalize()} (test)"
        if protocol["rankings"][protocol["primary"]]:
            pictures |= {(section, title): rows for title, rows in _protocol(protocol).items()}
    return pictures


_TITLES = {"ndcg@20": "NDCG@20", "mrr@20": "MRR@20", "hit_rate@20": "hit rate@20"}
_GROUPS = {
    "event kind": ("view events", "addtocart events", "transaction events"),
    "history length": ("history 1", "history 2-4", "history 5-9", "history 10+"),
    "visitor group": ("known visitors", "cold visitors"),
    "item popularity": ("head items", "middle items", "tail items", "cold items"),
}


def _protocol(protocol: Mapping[str, Any]) -> dict[str, Rows]:
    metrics = ("ndcg@20", "recall@20", "mrr@20", "hit_rate@20")
    primary = protocol["primary"]
    secondary = "seen_shown" if primary == "seen_hidden" else "seen_hidden"
    pictures = {
        "Systems by metric": _estimates(protocol["rankings"][primary], metrics),
        "Coverage, concentration and novelty": _estimates(
            protocol["rankings"][primary], ("coverage@20", "gini@20", "novelty@20")
        ),
    }
    if protocol["rankings"][secondary]:
        title = f"Systems by metric, {secondary.replace('_', ' items ')}"
        pictures[title] = _estimates(protocol["rankings"][secondary], metrics)
    for title, names in _GROUPS.items():
        rows = [
            [name, system, protocol["groups"][name]["cases"], *_estimate(figures["ndcg@20"])]
            for name in names
            if name in protocol["groups"]
            for system, figures in protocol["groups"][name]["ranking"].items()
        ]
        if rows:
            pictures[f"NDCG@20 by {title}"] = rows
    return pictures


def _estimates(systems: Mapping[str, Any], metrics: Sequence[str]) -> Rows:
    return [
        [system, _TITLES.get(metric, metric), *_estimate(figures[metric])]
        for metric in metrics
        for system, figures in systems.items()
    ]


def _estimate(figures: Mapping[str, float]) -> list[float | None]:
    return [figures.get(name) for name in ("value", "low", "high", "p")]


def _with_shares(counts: Iterable[tuple[str, int]]) -> Rows:
    listed = list(counts)
    total = sum(count for _, count in listed)
    return [[name, count, _share(count, total)] for name, count in listed]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%"


def _histogram(distribution: Mapping[str, Any]) -> Rows:
    """Returns the bins up to 1, 2, 4, 8, …, then the mean, the quantiles and the maximum."""
    counts = {int(value): count for value, count in distribution["histogram"].items()}
    rows, low, high = [], 1, 1
    while low <= max(counts):
        name = str(high) if low == high else f"{low}–{high}"
        rows.append([name, sum(count for value, count in counts.items() if low <= value <= high)])
        low, high = high + 1, 2 * high
    quantiles = [[f"quantile {share}", value] for share, value in distribution["quantiles"].items()]
    return [*rows, ["mean", distribution["mean"]], *quantiles, ["maximum", distribution["max"]]]


def _durations(buckets: Mapping[str, int]) -> Rows:
    return [[duration(int(second)), count] for second, count in buckets.items()]
