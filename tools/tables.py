"""Rebuilds the result tables of documents from `benchmarks/results/*.json`. Markers enclose each table."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, format_reached
from tools.headlines import render_headlines
from tools.markdown import describe_machine, format_met, format_source, format_table
from tools.targets import SPEEDS, Results
from trainer.evaluation.tables import FOOTNOTE, metric_cells

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BENCHMARKS, OPERATIONS = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "operations.md"

METRICS = ("ndcg@20", "recall@20", "mrr@20", "hit_rate@20", "coverage@20")


def read_results() -> dict[str, dict[str, Any]]:
    """Reads the latest record of every benchmark, by the benchmark's name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def render_document(path: Path) -> str:
    """Rebuilds the tables of a document and returns its text; does not write the file."""
    try:
        return renew(path.read_text(), _PARTS[path], read_results())
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def renew(text: str, parts: Mapping[str, Callable[[Results], str]], results: Results) -> str:
    """Rebuilds the marked parts of a document.

    Args:
      parts: the function that renders each part, by the name in the part's markers.
      results: the latest record of each benchmark, by name.

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


def _demo(results: Results) -> str:
    record = results["demo"]
    rows = [
        [name, *(_cell(metrics.get(metric)) for metric in METRICS), _rating(metrics.get("ratings"))]
        for name, metrics in record["figures"]["table"].items()
    ]
    seconds = sum(record["figures"]["seconds"].values())
    return "\n".join(
        [
            format_table(["system", *METRICS, "MSE (skill)"], rows),
            "",
            format_source(record, f"; {seconds:.0f} s in total"),
        ]
    )


def _targets(results: Results) -> str:
    record = results["quality"]
    rows = [
        [row["what"], row["target"], format_reached(row["reached"]), row["compared_with"], format_met(row["is_met"])]
        for row in record["figures"]["targets"]
    ]
    header = ["what", "target", "measured", "compared with", "met"]
    return "\n".join([format_table(header, rows), "", _quality_source(record)])


_TASKS = {
    "new": "returning visitors, new items",
    "repeats": "returning visitors, repeats",
    "next": "next item",
}
"""Readable names of the tasks of `benchmarks.quality`."""


def _systems(results: Results) -> str:
    """Renders a table per dataset and task; the system with the highest NDCG@20 comes first."""
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
            parts.append(f"**{dataset}, {_TASKS[task]}**: {numbers}\n\n{format_table(['system', *METRICS[:3]], rows)}")
    note = f"{FOOTNOTE.replace('first system', 'best peer')}."
    return "\n\n".join([*parts, note, _quality_source(record)])


def _tuned(results: Results) -> str:
    """Renders, for each dataset, a table of the best settings that tuning found for the systems of other libraries."""
    record = results["quality"]
    parts = []
    for dataset, figures in _datasets(record):
        rows = [
            [family, _TASKS[task], *_best_trial(best)]
            for family, by_task in figures["tuned"].items()
            for task, best in by_task.items()
        ]
        header = ["peer", "task", "settings", "NDCG@20", "with trend", "trials", "seconds"]
        parts.append(f"**{dataset}**\n\n{format_table(header, rows)}")
    return "\n\n".join([*parts, _quality_source(record)])


def _quality_source(record: Mapping[str, Any]) -> str:
    """Formats the origin of a record of the quality benchmark: its command, machine and commits."""
    parts = defaultdict[str, list[str]](list)
    for name, figures in record["figures"].items():
        if name != "targets":
            parts[figures["commit"]].append(name)
    commits = "; ".join(f"{', '.join(names)} at {commit}" for commit, names in parts.items())
    return f"`python -m benchmarks.quality`, {describe_machine(record)}: {commits}."


def _datasets(record: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns name and results of each dataset in a record of the quality benchmark; skips datasets without tasks."""
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
    for claim in SPEEDS:
        record = results[claim.benchmark]
        figures = record["figures"]
        cells = [claim.what, claim.target(figures), claim.reached(figures), format_met(claim.is_met(figures))]
        rows.append([*cells, f"`{record['command']}`", record["commit"]])
    table = format_table(["what", "target", "measured", "met", "command", "commit"], rows)
    return "\n".join([table, "", f"On {describe_machine(results['preprocessing'])}."])


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
    return "\n".join([format_table(["stage", "seconds", "peak GiB"], rows), "", text, "", format_source(record, "")])


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
    return "\n".join([format_table(header, rows), "", text, "", format_source(results["scaling"], "")])


def _checkpoint_cost(saved: Mapping[str, Any]) -> str:
    lost = saved["seconds_of_training_lost"]
    low, high = lost["quartiles"]
    return (
        f"A checkpoint of {saved['mib']:,} MiB pauses training for {saved['seconds_of_pause']:.2f} s; when the "
        f"run waits for it, as at SIGTERM, it takes {saved['seconds_when_waited_for']:.1f} s. In "
        f"{saved['pairs']} pairs, training with a checkpoint took {lost['median']:.1f} s longer than without "
        f"(quartiles {low:.1f} and {high:.1f}); writing took {saved['cpu_seconds_of_writing']:.1f} CPU seconds. "
        f"One checkpoint per minute slows training by {saved['slowdown_at_one_a_minute']:.1%}, at most "
        f"{saved['slowdown_at_most']:.1%} (target: 5%)."
    )


def _cluster(results: Results) -> str:
    figures = results["cluster"]["figures"]
    costs, steps = [], []
    for preset in ("mf", "nn"):
        for replicas, found in figures[preset].items():
            costs.append([f"`{preset}`", replicas, *_cluster_costs(found)])
            steps += [[f"`{preset}`", layout, *_cluster_step(step)] for layout, step in found["projected"].items()]
    header = ["preset", "R", "nodes", "nodes per replica", "CPU s to trace", "CPU ms of routing, alone", "all R"]
    header += ["CPU ms of input", "MB to GPUs of the machine", "MB over the card", "sent / minimum"]
    header += [f"at {figures['large_rows']:,} rows", "GiB per machine"]
    parts = ["memory", "products", "launches", "routing", "links", "batch copy", "GPU in all", "host input"]
    return "\n\n".join(
        [
            format_table(["figure", "value", "source"], [[name, *text] for name, text in figures["hardware"].items()]),
            format_table(header, costs),
            format_table(["preset", "GPUs", *parts, "step, ms", "examples/s", "limit"], steps),
            format_source(results["cluster"], ""),
        ]
    )


def _cluster_costs(found: Mapping[str, Any]) -> list[str]:
    routing, sent = found["routing_cpu_ms"], found["sent_mb"]
    ratios = found["sent_to_least"], found["sent_to_least_in_large_batches"]
    return [
        f"{found['nodes']:,}",
        f"{found['nodes_per_replica']:,.0f}",
        f"{found['trace_cpu_seconds']:.1f}",
        f"{routing['alone']:.1f}",
        f"{routing['logical']:.1f}" if "logical" in routing else "–",
        f"{found['input_cpu_ms']:,.0f}",
        f"{sent['same_machine']:.1f}",
        f"{sent['network_card']:.1f}" if sent["network_card"] else "–",
        *(f"{ratio:.2f}" if ratio else "–" for ratio in ratios),
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


def _cell(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "–"
    value = f"{estimate['value']:.3f}"
    return f"{value} [{estimate['low']:.3f}, {estimate['high']:.3f}]" if "low" in estimate else value


def _rating(ratings: Mapping[str, float] | None) -> str:
    return f"{ratings['mse']:.3f} ({ratings['skill']:+.2f})" if ratings else ""


_PARTS: dict[Path, dict[str, Callable[[Results], str]]] = {
    README: {"headlines": render_headlines},
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
