"""The targets of `quality` for each dataset, compared with the measured values."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.quality_measures import BY_IDS
from benchmarks.quality_runs import target
from benchmarks.quality_tuning import TUNED_BY

Figures = Mapping[str, Any]
"""`tasks`, `seconds` and `evaluation_seconds` of `quality.dataset_figures`."""

AUTO_SECONDS = 600.0
"""Maximum seconds to train the preset `auto` on any dataset; also the default of `--budget`."""
EVALUATION_SECONDS = 90.0
"""Maximum seconds of the command `evaluate` at the grocer."""
MAX_SLOWDOWN = 1.33
"""Maximum ratio of a preset's training time to its `SECONDS_BEFORE`."""
SECONDS_BEFORE: Mapping[str, Mapping[str, float]] = {
    "matrix": {"mf": 82.339},
    "sessions": {"nn": 132.383},
    "buyers": {"nn": 24.292},
}
"""Training time of presets on each dataset before they had blends, companions and second stages.

It was recorded at commit e382e633ffe9 on a machine with two cores, like that of the record; see the record of `quality`
in the commit d2bfca1.
"""


def dataset_targets(name: str, figures: Figures) -> list[dict[str, Any]]:
    """Builds a dataset's rows for the table of targets; skips presets that were not trained."""
    rows = _TARGETS[name](figures) + _targets_of_auto(name, figures) + _targets_of_time(name, figures)
    return [row for row in rows if row is not None]


def _grocer(figures: Figures) -> list[dict[str, Any] | None]:
    return [
        _ratio(
            figures,
            f"grocer, returning visitors, {words}: auto NDCG@20 / best peer's{which}",
            task,
            "auto",
            kind,
            bound,
        )
        for task, words in (("new", "new items"), ("repeats", "repeats"))
        for kind, which, bound in (("without_trend", " without trend", 1.15), ("any", ", with trend or without", 1.02))
    ]


def _matrix(figures: Figures) -> list[dict[str, Any] | None]:
    ours = _best_of(figures, "new", ("mf", "auto"))
    return [_ratio(figures, f"matrix, returning visitors: {ours} NDCG@20 / best peer's", "new", ours, "any", 1.04)]


def _sessions(figures: Figures) -> list[dict[str, Any] | None]:
    ranking = figures["tasks"]["next"]["ranking"]
    by_ids, by_events = (ranking[system]["recall@20"]["value"] for system in (f"nn{BY_IDS}", "nn"))
    return [
        _ratio(
            figures,
            "sessions, next item: nn recall@20 / best neighbour's",
            "next",
            "nn",
            "neighbour",
            1.06,
            "recall@20",
        ),
        _ratio(figures, "sessions, next item: nn MRR@20 / best neighbour's", "next", "nn", "neighbour", 1.09, "mrr@20"),
        target("sessions, next item: nn recall@20 by ids alone / by events", 0.99, by_ids / by_events, ""),
        target("sessions: training of nn, minutes", 10, figures["seconds"]["nn"] / 60, "", is_least=False),
    ]


def _buyers(figures: Figures) -> list[dict[str, Any] | None]:
    what = "buyers, next item (all): nn {} / best neighbour's"
    return [
        _ratio(figures, what.format("recall@20"), "next", "nn", "neighbour", 1.37, "recall@20"),
        _ratio(figures, what.format("MRR@20"), "next", "nn", "neighbour", 1.35, "mrr@20"),
    ]


def _shop(figures: Figures) -> list[dict[str, Any] | None]:
    words = {"next": "next item", "new": "returning visitors"}
    return [
        _ratio(figures, f"demo shop, {words[task]}: {ours} NDCG@20 / best neighbour's", task, ours, "neighbour", 1.0)
        for task, ours in (("next", "nn"), ("new", "mf"), ("next", "auto"), ("new", "auto"))
    ]


def _targets_of_auto(name: str, figures: Figures) -> list[dict[str, Any] | None]:
    if "auto" not in figures["seconds"]:
        return []
    rows: list[dict[str, Any] | None] = [
        target(f"{name}: training of auto, seconds", AUTO_SECONDS, figures["seconds"]["auto"], "", is_least=False)
    ]
    for task, found in figures["tasks"].items():
        what = f"{name}, {task}: auto NDCG@20 − best baseline's, upper end of the interval"
        rows.append(target(what, 0, found["difference_from_baseline"]["auto"]["high"], found["best_baseline"]))
    return rows


def _targets_of_time(name: str, figures: Figures) -> list[dict[str, Any] | None]:
    rows: list[dict[str, Any] | None] = []
    for preset, before in SECONDS_BEFORE.get(name, {}).items():
        if (seconds := figures["seconds"].get(preset)) is not None:
            what = f"{name}: training seconds of {preset} / those before blends and second stages"
            words = f"{seconds:.0f} s / {before:.0f} s"
            rows.append(target(what, MAX_SLOWDOWN, seconds / before, words, is_least=False))
    if (seconds := figures.get("evaluation_seconds")) is not None:
        what = f"{name}: evaluation of auto and its baselines in both protocols, seconds"
        rows.append(target(what, EVALUATION_SECONDS, seconds, f"{figures['items']} items", is_least=False))
    return rows


def _best_of(figures: Figures, task: str, names: tuple[str, ...]) -> str:
    ranking = figures["tasks"][task]["ranking"]
    return max((name for name in names if name in ranking), key=lambda name: ranking[name][TUNED_BY]["value"])


def _ratio(
    figures: Figures, what: str, task: str, ours: str, kind: str, bound: float, metric: str = TUNED_BY
) -> dict[str, Any] | None:
    """Builds a row of the table of targets: the ratio of `ours` to the best peer of a `kind`, by `metric`.

    `kind`: see `best_peers`; `bound`: lower bound of the ratio. Returns None if `ours` was not measured.
    """
    found = figures["tasks"][task]
    ranking, best = found["ranking"], found["best_peers"][metric][kind]
    if ours not in ranking:
        return None
    own, theirs = ranking[ours][metric], ranking[best][metric]
    p = f"; p {own['p']:.3f}" if "p" in own and best == found["best_peers"][TUNED_BY]["any"] else ""
    return target(what, bound, own["value"] / theirs["value"], f"{best}, {own['value']:.4f} / {theirs['value']:.4f}{p}")


_TARGETS: Mapping[str, Callable[[Figures], list[dict[str, Any] | None]]] = {
    "grocer": _grocer,
    "matrix": _matrix,
    "sessions": _sessions,
    "buyers": _buyers,
    "shop": _shop,
}
