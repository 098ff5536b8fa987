"""Renders README's summary of the targets: how many are met, some of the best results, and the first missed ones."""

import re

from tools.markdown import format_met, format_table
from tools.targets import Results, Target, read_targets

_BEST = {
    "grocer, returning visitors, new items: auto NDCG@20 / best peer's without trend": (
        "Real grocer, items new to the visitor, NDCG@20: `auto` / best peer without trend"
    ),
    "demo shop, returning visitors: auto NDCG@20 / best": (
        "Synthetic shop, items new to the visitor, NDCG@20: `auto` / best nearest-neighbour peer"
    ),
    "`prepare` at full size with 20.3 M": "`prepare` of 2.76 M events and 20.3 M item property changes",
}
"""README's labels for some of the best results, by the start of the target's name."""


_HEADLINES = 6
"""Number of rows in README's table; all other targets are in docs/benchmarks.md only."""

_MISSED = {
    "grocer, returning visitors, new items: auto NDCG@20 / best peer's, with": (
        "Real grocer, items new to the visitor, NDCG@20: `auto` / best peer with or without trend"
    ),
    "grocer, returning visitors, repeats: auto NDCG@20 / best peer's without trend": (
        "Real grocer, items bought before, NDCG@20: `auto` / best peer without trend"
    ),
    "grocer, returning visitors, repeats: auto NDCG@20 / best peer's, with": (
        "Real grocer, items bought before, NDCG@20: `auto` / best peer with or without trend"
    ),
    "grocer: training of auto": "Real grocer, seconds to train `auto` with `--budget 10m`",
    "grocer: evaluation of auto": "Real grocer, seconds to `evaluate` `auto` with its baselines",
    "matrix, returning visitors: mf NDCG@20": "Retailrocket, items new to the visitor, NDCG@20: `mf` / best peer",
    "buyers, next item (all): nn recall@20": (
        "Retailrocket buyers, next item, recall@20: `nn` / best nearest-neighbour peer"
    ),
}
"""README's labels for missed targets, by the start of the target's name. Other targets have their name as label."""

_COMPARED = re.compile(r"(?P<peer>[^,]+), (?P<own>[\d.]+) / (?P<theirs>[\d.]+)")


def render_headlines(results: Results) -> str:
    """Renders README's summary of the targets: how many are met, the best results and the first missed targets."""
    targets = read_targets(results)
    best = [next(target for target in targets if target.what.startswith(start)) for start in _BEST]
    missed = [target for target in targets if not target.is_met]
    shown = best + [target for target in missed if target not in best][: _HEADLINES - len(best)]
    rows = [[_label(target), _measured(target), target.bound, format_met(target.is_met)] for target in shown]
    text = f"The project meets {sum(target.is_met for target in targets)} of its {len(targets)} targets."
    more = len(missed) - sum(not target.is_met for target in shown)
    if more:
        text += (
            f" The table shows {len(missed) - more} of the missed targets; "
            f"the other {more} are in [all results](docs/benchmarks.md)."
        )
    return f"{text}\n\n{format_table(['what', 'measured', 'target', 'met'], rows)}"


def _label(target: Target) -> str:
    labels = _BEST | _MISSED
    return next((label for start, label in labels.items() if target.what.startswith(start)), target.what)


def _measured(target: Target) -> str:
    """Formats the measured value of a target; a ratio to another library as `0.2 / 0.1 (library) = 2`."""
    found = _COMPARED.match(target.compared_with)
    if not found:
        return target.measured
    return f"{found['own']} / {found['theirs']} ({found['peer'].replace('_', ' ')}) = {target.measured}"
