"""Short summaries of the results of the commands, for a terminal of 100 columns."""

from collections.abc import Callable, Mapping
from typing import Any

from trainer.evaluation.tables import describe_refit, summary_text

Result = Mapping[str, Any]
"""The result of a command, as JSON values."""


def summarize_training(result: Result) -> str:
    """Returns the summary of `train`: duration, best checkpoint or blend, and file paths."""
    if "trials" in result:
        return "\n".join([*_describe_trials(result), *_describe_blend(result["blend"]), *_describe_files(result)])
    lines = [
        f"Trained {result['name']}: {result['epochs']} epochs, {result['steps']:,} steps, {result['seconds']:.0f} s "
        f"({result['examples_per_second']:,.0f} examples/s)" + (", stopped early" if result["is_stopped_early"] else "")
    ]
    if result["best_step"] is not None:
        lines.append(
            f"Best checkpoint: step {result['best_step']:,}, validation {result['validation_metric']} "
            f"{result['best_validation']:.4f}"
        )
    if result["refit_of"]:
        lines.append(describe_refit(result["refit_of"]))
    if "blend" in result:
        lines += _describe_blend(result["blend"])
    return "\n".join([*lines, *_describe_files(result)])


def _describe_files(result: Result) -> list[str]:
    lines = [f"Full result: {result['workdir']}/result.json"]
    return [*lines, *([f"Report: {result['report']}"] if result["report"] else [])]


def _describe_trials(result: Result) -> list[str]:
    tried = [trial for trial in result["trials"] if trial["state"] in ("trained", "stopped")]
    stopped = {trial["name"] for trial in tried if trial["state"] == "stopped"}
    names = ", ".join(
        f"{trial['name']} {trial['seconds']:.0f} s" + (" (out of time)" * (trial["name"] in stopped)) for trial in tried
    )
    lines = [f"Tried {len(tried)} models in {result['seconds']:.0f} s: {names}"]
    others = "; ".join(f"{trial['name']}: {trial['reason']}" for trial in result["trials"] if trial not in tried)
    return lines + ([f"Not used: {others}"] if others else [])


_RANKINGS = {
    "new_items": "items new to the visitor",
    "returning": "new or seen items after a break",
    "in_session": "new or seen items within a session",
}


_FEW_CASES = 30


def _describe_blend(blend: Result) -> list[str]:
    lines = []
    for ranking, title in _RANKINGS.items():
        figures, weights = blend["validation"][ranking], blend["weights"][ranking]
        if figures is None:
            continue
        names = [part.rpartition("/")[2].replace(".", "model") for part in blend["parts"]]
        terms = [f"{weight:.2g} × {name}" for weight, name in zip(weights["parts"], names, strict=True) if weight]
        if weights["trend"]:
            terms.append(f"{weights['trend']:.2g} × {weights['half_life_days']:g}-day trend")
        if weights["popularity"]:
            terms.append(f"{weights['popularity']:.2g} × popularity")
        if any(weights["returns"]):
            terms.append("returns")
        best = max(figures["parts"].values(), default=0.0)
        lines.append(
            f"Blend for {title}: validation NDCG@20 {figures['blend']:.3f}, best single model {best:.3f}: "
            f"{' + '.join(terms).replace('+ -', '- ')}"
        )
        if not any(weights["parts"]) and not any(weights["returns"]):
            lines.append("  No model has a weight here: apart from hidden seen items, all visitors get the same list.")
        if figures["cases"] < _FEW_CASES:
            count = figures["cases"]
            lines.append(f"  Only {count} validation case{'s' * (count > 1)}: these weights may be far from the best.")
    return lines


def summarize_search(result: Result) -> str:
    """Returns the number of trials per state, and the best trial with the commands that train and refit it."""
    counts = ", ".join(f"{count} {state}" for state, count in result["trials"].items() if count)
    best, lines = result["best"], [f"Trials: {counts}"]
    if best is not None:
        settings = " ".join(f"{key}={value}" for key, value in best["settings"].items())
        lines += [
            f"Best: trial {best['trial']}, validation {best['metric']} {best['value']:.4f}: {settings}",
            f"Train it: {best['train']}",
            f"Train it on all events: {best['refit']}",
        ]
    return "\n".join([*lines, f"Report: {result['report']}"])


def summarize_evaluation(result: Result) -> str:
    """Returns a table of the main metrics of an evaluation, and the paths of its files."""
    run = result["workdir"]
    return f"{summary_text(result)}\nFull result: {run}/evaluation-{result['split']}.json\nReport: {run}/report.html"


def summarize_offer(offer: Result) -> list[str]:
    """Returns a line with the number of items on offer and of excluded items; an empty list if none is excluded."""
    excluded = ", ".join(f"{reason}: {count:,}" for reason, count in offer["excluded"].items() if count)
    return [f"Items on offer: {offer['offered']:,} (excluded: {excluded})"] if excluded else []


def summarize_export(result: Result) -> str:
    """Returns a text about an export: number of items, size, path and signatures."""
    size = f"{result['bytes'] / 1e6:,.1f} MB"
    lines = [
        f"Exported {result['model']} with {result['items']:,} items and {result['visitors']:,} visitors ({size}) to "
        f"{result['output']}",
        *summarize_offer(result["offer"]),
        f"Signatures: {', '.join(result['signatures'])}",
    ]
    return "\n".join([*lines, *([f"Model card: {result['card']}"] if result["card"] else [])])


def summarize_recommendations(result: Result) -> str:
    """Returns a text: the number, length and path of the written lists, and how many items each reason excluded."""
    first = f"Wrote {result['k']} items for each of {result['visitors']:,} visitors to {result['output']}"
    return "\n".join([first, *summarize_offer(result["offer"])])


def summarize_health(result: Result) -> str:
    """Returns `Ready` or `Not ready`, and how many checks of the command `doctor` ended in each state."""
    states = [finding["state"] for finding in result["findings"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{'Ready' if result['is_healthy'] else 'Not ready'}: {counts}"


SUMMARIES: Mapping[str, Callable[[Result], str]] = {
    "train": summarize_training,
    "tune": summarize_search,
    "evaluate": summarize_evaluation,
    "export": summarize_export,
    "recommend": summarize_recommendations,
    "report": lambda result: f"Report: {result['report']}",
    "demo": lambda result: f"Served {result['answered']:,} answers at {result['address']}",
    "doctor": summarize_health,
}
"""The summary of each command's result."""
