"""README's summary of the targets: the best results, and all missed targets."""

from tools.markdown import format_met, format_table
from tools.targets import Results, Target, read_targets

_BEST = {
    "grocer, returning visitors, new items: auto NDCG@20 / best peer's without trend": (
        "Real grocer, items new to the visitor, NDCG@20: `auto` / best peer without the items' trend"
    ),
    "sessions, next item: nn recall@20 / best": (
        "Retailrocket, next item in a session, recall@20: `nn` / best nearest-neighbour peer"
    ),
    "`prepare` at full size with 20.3 M": (
        "`prepare` of 2.76 M events and 20.3 M item property changes: time and memory"
    ),
}
"""README's labels for some of the best results, by the start of the target's name."""


_HEADLINES = 6
"""Number of rows in README's table; further missed targets are listed below it."""

_MISSED = {
    "grocer, returning visitors, new items: auto NDCG@20 / best peer's, with": (
        "Real grocer, items new to the visitor, NDCG@20: `auto` / best peer with the items' trend"
    ),
    "grocer, returning visitors, repeats: auto NDCG@20 / best peer's without trend": (
        "Real grocer, items bought before, NDCG@20: `auto` / best peer without the items' trend"
    ),
    "grocer, returning visitors, repeats: auto NDCG@20 / best peer's, with": (
        "Real grocer, items bought before, NDCG@20: `auto` / best peer with the items' trend"
    ),
    "matrix, returning visitors: mf NDCG@20": "Retailrocket, returning visitors, NDCG@20: `mf` / best peer",
    "matrix, returning visitors: auto NDCG@20": "Retailrocket, returning visitors, NDCG@20: `auto` / best peer",
    "matrix: training seconds until mf reaches": (
        "Retailrocket, training time: `mf` until it ranks as well as the best peer / that peer"
    ),
    "matrix: training seconds until mf with solver=als": (
        "Retailrocket, training time: `mf` with `solver=als model.dim=384` until it ranks as well as the best peer / "
        "that peer"
    ),
    "grocer: training of auto": "Real grocer, seconds to train `auto` with `--budget 10m`",
    "buyers, next item (all): nn recall@20": (
        "Retailrocket, next item of visitors with a purchase, recall@20: `nn` / best nearest-neighbour peer"
    ),
    "buyers, next item (all): nn MRR@20": (
        "Retailrocket, next item of visitors with a purchase, MRR@20: `nn` / best nearest-neighbour peer"
    ),
    "sessions, next item: nn MRR@20 / best": (
        "Retailrocket, next item in a session, MRR@20: `nn` / best nearest-neighbour peer"
    ),
    "shop, items without a training event (all): nn recall@100": (
        "Synthetic shop, next items without training events, recall@100: `nn` / best-sellers of the category that the "
        "visitor was in"
    ),
    "shop, items without a training event (new to the visitor): nn recall@100": (
        "The same without items that the visitor has seen"
    ),
    "training step of `mf`": ("Training step with 1.6 M embedding rows, examples/s: `mf` / Keras `fit`"),
    "`prepare` of 1,000,000 events": (
        "Rows/s without the time to load modules: `prepare` / TF-Transform with one dict per row"
    ),
    "statistics and charts of the report": "CPU time of the report of `prepare`, relative to `prepare` without it",
}
"""README's labels for missed targets, by the start of the target's name. Other targets have their name as label."""


def render_headlines(results: Results) -> str:
    """Renders how many targets are met, a table of the best and of missed ones, and a list of all other missed ones."""
    targets = read_targets(results)
    best = [next(target for target in targets if target.what.startswith(start)) for start in _BEST]
    missed = [target for target in targets if not target.is_met and target not in best]
    shown, others = missed[: _HEADLINES - len(best)], missed[_HEADLINES - len(best) :]
    rows = [[_label(target), target.bound, target.measured, format_met(target.is_met)] for target in best + shown]
    text = f"The project meets {sum(target.is_met for target in targets)} of its {len(targets)} targets."
    bullets = [f"- {_label(target)}: {target.measured}, target {target.bound}" for target in others]
    return "\n".join(
        [
            text,
            "",
            format_table(["what", "target", "measured", "met"], rows),
            *(["", "Also missed:", "", *bullets] * bool(bullets)),
        ]
    )


def _label(target: Target) -> str:
    labels = _BEST | _MISSED
    return next((label for start, label in labels.items() if target.what.startswith(start)), target.what)
