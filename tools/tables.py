"""Rebuilds the result tables of documents, which are between markers, from `benchmarks/results/*.json`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import RESULTS, format_reached
from trainer.evaluation.tables import FOOTNOTE, metric_cells

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BENCHMARKS, OPERATIONS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "operations.md"

METRICS = ("ndcg@20", "recall@20", "mrr@20", "hit_rate@20", "coverage@20")

Results = Mapping[str, dict[str, Any]]
"""The latest record of each benchmark, by name."""


def read_results() -> dict[str, dict[str, Any]]:
    """Reads the latest record of every benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def render_document(path: Path) -> str:
    """Rebuilds the tables of a document from the latest records."""
    try:
        return renew(path.read_text(), _PARTS[path], read_results())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def renew(text: str, parts: Mapping[str, Callable[[Results], str]], results: Results) -> str:
    """Rebuilds each marked part of a document from the records.

    Raises:
      ValueError: the document lacks the markers of a part.
    """
    for name, render in parts.items():
        begin, end = f"<!-- results of {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"the markers of the table `{name}` are missing; add `{begin.strip()}` and `{end}`")
        text = f"{before}{begin}{render(results)}\n{rest[rest.index(end) :]}"
    return text


class Target(NamedTuple):
    """A target of the project and the measured value."""

    what: str
    bound: str
    measured: str
    is_met: bool


def read_targets(results: Results) -> list[Target]:
    """Returns all targets: first quality, then speed."""
    quality = results["quality"]["figures"]["targets"]
    rows = [Target(row["what"], row["target"], format_reached(row["reached"]), row["is_met"]) for row in quality]
    for claim in _SPEEDS:
        figures = results[claim.benchmark]["figures"]
        rows.append(Target(claim.what, claim.target(figures), claim.reached(figures), claim.is_met(figures)))
    return rows


_BEST = {
    "grocer, returning visitors, new items: auto NDCG@20 / best peer's without trend": (
        "Real grocer, items new to the visitor, NDCG@20: `auto` / best peer without the trend of items"
    ),
    "sessions, next item: nn recall@20 / best": "Next item in sessions, recall@20: `nn` / best nearest-neighbour peer",
    "`prepare` at full size with 20.3 M": (
        "`prepare`, time and memory for 2.76 M events and a log of 20.3 M item property changes"
    ),
}
"""README's labels for some of the best results, by the start of the target's name."""


_HEADLINES = 6
"""Number of rows in README's table; further missed targets are listed below it."""

_MISSED = {
    "grocer, returning visitors, new items: auto NDCG@20 / best peer's, with": (
        "Real grocer, items new to the visitor, NDCG@20: `auto` / best peer with the trend of items"
    ),
    "grocer, returning visitors, repeats: auto NDCG@20 / best peer's without trend": (
        "Real grocer, items bought before, NDCG@20: `auto` / best peer without the trend of items"
    ),
    "grocer, returning visitors, repeats: auto NDCG@20 / best peer's, with": (
        "Real grocer, items bought before, NDCG@20: `auto` / best peer with the trend of items"
    ),
    "matrix, returning visitors: mf NDCG@20": "Retailrocket, returning visitors, NDCG@20: `mf` / best peer",
    "matrix, returning visitors: auto NDCG@20": "Retailrocket, returning visitors, NDCG@20: `auto` / best peer",
    "matrix: training seconds until mf reaches": (
        "Training time until `mf` reaches the NDCG@20 of the best peer / training time of that peer"
    ),
    "matrix: training seconds until mf with solver=als": (
        "The same for `mf` with `solver=als` and `model.dim=384` / training time of the best peer"
    ),
    "grocer: training of auto": "Seconds of training `auto` with a budget of 10 minutes, real grocer",
    "buyers, next item (all): nn recall@20": (
        "Next item, dataset of visitors with at least one purchase, recall@20: `nn` / best nearest-neighbour peer"
    ),
    "buyers, next item (all): nn MRR@20": (
        "Next item, dataset of visitors with at least one purchase, MRR@20: `nn` / best nearest-neighbour peer"
    ),
    "sessions, next item: nn MRR@20 / best": "Next item in sessions, MRR@20: `nn` / best nearest-neighbour peer",
    "training step of `mf`": (
        "Examples/s of a training step of `mf` with 1.6 M embedding rows, relative to Keras `fit`"
    ),
    "`prepare` of 1,000,000 events": (
        "Rows/s of `prepare` relative to TF-Transform with one dict per row, both without loading Python modules"
    ),
    "statistics and charts of the report": "CPU time that the report adds, relative to `prepare` without a report",
}
"""README's labels for missed targets, by the start of the target's name. Other targets have their name as label."""


def _headlines(results: Results) -> str:
    targets = read_targets(results)
    best = [next(target for target in targets if target.what.startswith(start)) for start in _BEST]
    missed = [target for target in targets if not target.is_met and target not in best]
    shown, others = missed[: _HEADLINES - len(best)], missed[_HEADLINES - len(best) :]
    rows = [[_label(target), target.bound, target.measured, _met(target.is_met)] for target in best + shown]
    text = f"The project meets {sum(target.is_met for target in targets)} of its {len(targets)} targets."
    bullets = [f"- {_label(target)}: {target.measured}; the target is {target.bound}" for target in others]
    return "\n".join(
        [
            text,
            "",
            _table(["what", "target", "measured", "met"], rows),
            *(["", "Also missed:", "", *bullets] * bool(bullets)),
        ]
    )


def _label(target: Target) -> str:
    labels = _BEST | _MISSED
    return next((label for start, label in labels.items() if target.what.startswith(start)), target.what)


def _demo(results: Results) -> str:
    record = results["demo"]
    rows = [
        [name, *(_cell(metrics.get(metric)) for metric in METRICS), _rating(metrics.get("ratings"))]
        for name, metrics in record["figures"]["table"].items()
    ]
    seconds = sum(record["figures"]["seconds"].values())
    return "\n".join(
        [_table(["system", *METRICS, "MSE (skill)"], rows), "", _source(record, f"; {seconds:.0f} s in total")]
    )


def _targets(results: Results) -> str:
    record = results["quality"]
    rows = [
        [row["what"], row["target"], format_reached(row["reached"]), row["compared_with"], _met(row["is_met"])]
        for row in record["figures"]["targets"]
    ]
    header = ["what", "target", "measured", "compared with", "met"]
    return "\n".join([_table(header, rows), "", _source(record, "")])


_TASKS = {
    "new": "returning visitors, new items",
    "repeats": "returning visitors, repeats",
    "next": "next item",
}
"""Names of the tasks of `benchmarks.quality` for readers."""


def _systems(results: Results) -> str:
    """Renders a table per dataset and task, with the metrics of each system; the best NDCG@20 comes first."""
    record = results["quality"]
    parts = []
    for dataset, figures in _datasets(record):
        for task, found in figures["tasks"].items():
            ranking = found["ranking"]
            columns = [
                metric_cells([system[metric] for system in ranking.values()], digits=3) for metric in METRICS[:3]
            ]
            rows = [list(row) for row in zip(ranking, *columns, strict=True)]
            numbers = f"{found['cases']:,} cases, {found['visitors']:,} visitors, {figures['items']:,} items"
            parts.append(f"**{dataset}, {_TASKS[task]}**: {numbers}\n\n{_table(['system', *METRICS[:3]], rows)}")
    note = f"{FOOTNOTE.replace('first system', 'best peer')}."
    return "\n\n".join([*parts, note, _source(record, "")])


def _tuned(results: Results) -> str:
    """Renders a table per dataset: for each peer, the settings that were best in validation."""
    record = results["quality"]
    parts = []
    for dataset, figures in _datasets(record):
        rows = [
            [family, _TASKS[task], *_best_trial(best)]
            for family, by_task in figures["tuned"].items()
            for task, best in by_task.items()
        ]
        header = ["peer", "task", "settings", "NDCG@20", "with trend", "trials", "seconds"]
        parts.append(f"**{dataset}**\n\n{_table(header, rows)}")
    return "\n\n".join([*parts, _source(record, "")])


def _datasets(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the datasets in a record of `benchmarks.quality`; skips parts without tasks."""
    return [(name, figures) for name, figures in record["figures"].items() if name != "targets" and "tasks" in figures]


def _best_trial(best: Mapping[str, Any]) -> list[str]:
    metric, seconds = f"{best['validation']:.4f}", f"{best['seconds']:.0f}"
    return [_settings(best["settings"]), metric, _trend(best), str(best["trials"]), seconds]


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def _trend(best: Mapping[str, Any]) -> str:
    if best["trend"] is None:
        return ""
    trend = best["trend"]
    return (
        f"{best['validation_with_trend']:.4f} ({trend['link']}, {trend['half_life_days']:g} days, β {trend['beta']:g})"
    )


def _speed(results: Results) -> str:
    rows = []
    for claim in _SPEEDS:
        record = results[claim.benchmark]
        figures = record["figures"]
        cells = [claim.what, claim.target(figures), claim.reached(figures), _met(claim.is_met(figures))]
        rows.append([*cells, f"`{record['command']}`", record["commit"]])
    table = _table(["what", "target", "measured", "met", "command", "commit"], rows)
    return "\n".join([table, "", f"On {_on(results['preprocessing'])}."])


def _full_size(results: Results) -> str:
    record = results["full_size"]
    rows = [
        [name, f"{stage['seconds']:.0f}", f"{stage['peak_gib']:.1f}"]
        for name, stage in record["figures"]["stages"].items()
    ]
    figures = record["figures"]
    data, run = (figures["report_bytes"][name] / 1e6 for name in ("dataset", "run"))
    text = (
        f"`recommend` serves {figures['recommended_visitors']:,} visitors. The dataset's report takes {data:.2f} MB, "
        f"the run's with all three pages {run:.2f} MB; the limit is 2 MB."
    )
    return "\n".join([_table(["stage", "seconds", "peak GiB"], rows), "", text, "", _source(record, "")])


def _scaling(results: Results) -> str:
    figures = results["scaling"]["figures"]
    rows = [
        [batch, place, *(_milliseconds(measured.get(way)) for way in ("sharded", "exchange_alone", "mirrored"))]
        + [_megabytes(measured["bytes_per_step"][way]) for way in ("sharded", "least", "all_reduce", "mirrored")]
        + [f"{measured['sharded'][size]:.0f}" for size in ("table_mib_a_replica", "resident_mib_a_replica")]
        + [_peak(measured.get(way)) for way in ("sharded", "mirrored")]
        for batch in ("factorization", "popular", "towers")
        for place, measured in figures[batch].items()
    ]
    header = ["batch", "replicas", "ms", "ms without compute", "mirrored ms", "MB moved", "minimum", "all-reduce"]
    header += ["mirrored MB", "table MiB per replica", "memory MiB per replica", "process peak MiB", "mirrored peak"]
    text = _checkpoint_cost(figures["checkpoint"])
    return "\n".join([_table(header, rows), "", text, "", _source(results["scaling"], "")])


def _checkpoint_cost(saved: Mapping[str, Any]) -> str:
    lost = saved["seconds_of_training_lost"]
    low, high = lost["quartiles"]
    return (
        f"A checkpoint of {saved['mib']:,} MiB pauses training for {saved['seconds_until_copied']:.2f} s, while it is "
        f"copied; when the run waits for it, as at SIGTERM, it takes {saved['seconds_when_waited_for']:.1f} s. In "
        f"{saved['pairs']} pairs, training with a checkpoint took {lost['median']:.1f} s longer than without "
        f"(quartiles {low:.1f} and {high:.1f}); writing took {saved['cpu_seconds_of_writing']:.1f} CPU seconds. "
        f"One checkpoint per minute slows training by {saved['slowdown_at_one_a_minute']:.1%}, at most "
        f"{saved['slowdown_at_most']:.1%} (target: 5%)."
    )


def _cluster(results: Results) -> str:
    """Renders the assumed hardware, the costs by number of replicas, and the projected steps."""
    figures = results["cluster"]["figures"]
    costs, steps = [], []
    for preset in ("mf", "nn"):
        for replicas, found in figures[preset].items():
            costs.append([f"`{preset}`", replicas, *_cluster_costs(found)])
            steps += [[f"`{preset}`", layout, *_cluster_step(step)] for layout, step in found["projected"].items()]
    header = ["preset", "R", "nodes", "nodes per replica", "CPU s to trace", "CPU ms of routing, alone", "all R"]
    header += ["CPU ms of input", "MB to GPUs of the machine", "MB over the card", "sent / minimum", "GiB per machine"]
    parts = ["memory", "products", "launches", "routing", "links", "batch copy", "GPU in all", "host input"]
    return "\n\n".join(
        [
            _table(["figure", "value", "source"], [[name, *text] for name, text in figures["hardware"].items()]),
            _table(header, costs),
            _table(["preset", "GPUs", *parts, "step, ms", "examples/s", "limit"], steps),
            _source(results["cluster"], ""),
        ]
    )


def _cluster_costs(found: Mapping[str, Any]) -> list[str]:
    routing, sent, ratio = found["routing_cpu_ms"], found["sent_mb"], found["sent_to_least"]
    return [
        f"{found['nodes']:,}",
        f"{found['nodes_per_replica']:,.0f}",
        f"{found['trace_cpu_seconds']:.1f}",
        f"{routing['alone']:.1f}",
        f"{routing['logical']:.1f}" if "logical" in routing else "–",
        f"{found['input_cpu_ms']:,.0f}",
        f"{sent['same_machine']:.1f}",
        f"{sent['network_card']:.1f}" if sent["network_card"] else "–",
        f"{ratio:.2f}" if ratio else "–",
        f"{found['gib']['host']:.1f}",
    ]


def _cluster_step(step: Mapping[str, Any]) -> list[str]:
    *of_gpu, host = step["ms"].values()
    milliseconds = [f"{value:.1f}" for value in (*of_gpu, step["gpu_ms"], host, step["step_ms"])]
    return [*milliseconds, f"{step['examples_per_second'] / 1e6:.1f} M", step["limit"]]


def _milliseconds(measured: Mapping[str, float] | None) -> str:
    return f"{measured['ms_per_step']:.1f}" if measured else "–"


def _peak(measured: Mapping[str, float] | None) -> str:
    return f"{measured['peak_mib_of_process']:,}" if measured else "–"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"


class _Claim(NamedTuple):
    """A row of the speed table; `target`, `reached` and `is_met` are computed from the figures of a benchmark."""

    what: str
    benchmark: str
    target: Callable[[dict[str, Any]], str]
    reached: Callable[[dict[str, Any]], str]
    is_met: Callable[[dict[str, Any]], bool]


def _preprocessing_claim(what: str, stage: str, name: str) -> _Claim:
    """Builds the row that compares the seconds and memory of a stage with its targets."""

    def bounds(figures: Mapping[str, Any]) -> tuple[float, float]:
        return figures["targets"][f"{name}_seconds"], figures["targets"][f"{name}_gib"]

    def is_met(figures: Mapping[str, Any]) -> bool:
        seconds, gib = bounds(figures)
        return figures[stage]["seconds"] <= seconds and figures[stage]["peak_gib"] <= gib

    return _Claim(
        what,
        "preprocessing",
        lambda figures: "≤ {} s, ≤ {} GiB".format(*bounds(figures)),
        lambda figures: f"{figures[stage]['seconds']:.0f} s, {figures[stage]['peak_gib']:.1f} GiB",
        is_met,
    )


def _report_claim(what: str, key: str) -> _Claim:
    """Builds the row that compares the report's slowdown with its target, without and with item properties."""

    def added(figures: Mapping[str, Any]) -> list[float]:
        return [figures[inputs]["cpu_seconds"][key] for inputs in ("events", "with_properties")]

    return _Claim(
        what,
        "statistics",
        lambda figures: f"≤ {figures['target']:.0%}",
        lambda figures: "{:.0%} ({:.0%} if `prepare` also reads item properties)".format(*added(figures)),
        lambda figures: max(added(figures)) <= figures["target"],
    )


def _is_fast_enough(figures: Mapping[str, Any]) -> bool:
    return bool(figures["ratio"] >= figures["targets"]["ratio"])


_SPEEDS = (
    _Claim(
        "`prepare` of 1,000,000 events: rows/s (without loading Python modules) / TF-Transform with one dict per row",
        "preprocessing",
        lambda figures: f"≥ {figures['targets']['ratio']} ×",
        lambda figures: (
            f"{figures['million_events']['ratio']:.1f} × "
            f"({figures['million_events']['ratio_of_commands']:.1f} × with loading)"
        ),
        lambda figures: figures["million_events"]["ratio"] >= figures["targets"]["ratio"],
    ),
    _preprocessing_claim("`prepare` at full size (2.76 M events)", "full_size_events", "events"),
    _preprocessing_claim(
        "`prepare` at full size with 20.3 M item property changes", "full_size_with_properties", "properties"
    ),
    _report_claim(
        "statistics of the report: CPU time added to `prepare`",
        "added_by_counting",
    ),
    _report_claim("statistics and charts of the report: CPU time added to `prepare`", "added"),
    _Claim(
        "`synthesize` at full size with item properties: time; figures within 10% of those of the real data",
        "synthesize",
        lambda _: "≤ 180 s, all",
        lambda figures: f"{figures['seconds']:.0f} s, {figures['within']} of {figures['of']}",
        lambda figures: figures["seconds"] <= 180 and figures["within"] == figures["of"],
    ),
    _Claim(
        "input pipeline, rows/s in shuffled batches of 8,192 / "
        "one-row `tf.train.Example`s with batched `parse_example`",
        "input",
        lambda figures: (
            f"≥ {figures['targets']['ratio']} ×, ≥ {figures['targets']['block_rows_per_second'] / 1e6:g} M rows/s"
        ),
        lambda figures: f"{figures['ratio']:.0f} ×, {figures['block_rows_per_second'] / 1e6:.1f} M rows/s",
        lambda figures: (
            _is_fast_enough(figures) and figures["block_rows_per_second"] >= figures["targets"]["block_rows_per_second"]
        ),
    ),
    _Claim(
        "training step of `mf`, 1.4 M + 235,000 embedding rows of 64, batches of 8,192: "
        "examples/s / Keras `fit`, both with Adam",
        "mf_step",
        lambda figures: f"≥ {figures['targets']['ratio']} ×",
        lambda figures: f"{figures['ratio']:.0f} × ({figures['ratio_small_pages']:.0f} × without huge pages)",
        _is_fast_enough,
    ),
    _Claim(
        "slowest `--help` of all commands",
        "start",
        lambda _: "< 1 s",
        lambda figures: f"{_slowest(figures):.2f} s",
        lambda figures: _slowest(figures) < 1,
    ),
    _Claim(
        "exact top 20 of 235,000 items with 64 dimensions, queries/s / `implicit`'s C++ (interleaved runs)",
        "top_k",
        lambda figures: f"≥ {figures['targets']['ratio']} ×",
        lambda figures: (
            f"{figures['ratio']:.2f} × ({figures['seen_hidden']['ratio']:.2f} × with seen items hidden, "
            f"{figures['whole_rows']['ratio']:.2f} × with whole rows at once)"
        ),
        _is_fast_enough,
    ),
    _Claim(
        "evaluation of 4 systems on 70,000 items, all metrics with seen items hidden and shown: cases/s / "
        "sorting each case's scores with numpy (interleaved runs)",
        "evaluation",
        lambda figures: f"≥ {figures['targets']['ratio']} ×",
        lambda figures: f"{figures['ratio']:.1f} ×",
        _is_fast_enough,
    ),
)


def _slowest(figures: Mapping[str, Any]) -> float:
    return max(command["seconds"] for command in figures["commands"].values())


def _met(is_met: bool) -> str:
    return "yes" if is_met else "**no**"


def _cell(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "–"
    value = f"{estimate['value']:.3f}"
    return f"{value} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if "low" in estimate else value


def _rating(ratings: Mapping[str, float] | None) -> str:
    return f"{ratings['mse']:.3f} ({ratings['skill']:+.2f})" if ratings else ""


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _source(record: Mapping[str, Any], more: str) -> str:
    return f"`{record['command']}` at {record['commit']}, {_on(record)}{more}."


def _on(record: Mapping[str, Any]) -> str:
    machine = record["machine"]
    return f"{machine['cpus']} cores ({machine['processor']}), no GPU"


_PARTS: dict[Path, dict[str, Callable[[Results], str]]] = {
    README: {"headlines": _headlines},
    BENCHMARKS: {
        "demo": _demo,
        "quality": _targets,
        "systems": _systems,
        "peers": _tuned,
        "speed": _speed,
        "full_size": _full_size,
        "scaling": _scaling,
    },
    OPERATIONS: {"cluster": _cluster},
}
"""The generated parts of each document."""

DOCUMENTS = tuple(_PARTS)
"""The documents with generated parts."""
