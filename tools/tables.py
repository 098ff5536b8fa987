"""Writes the README's tables from `results/*.json`, between its markers; `--check` only says whether they agree."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.demo import METRICS
from benchmarks.harness import RESULTS, told
from trainer.ranking.report import FOOTNOTE, metric_cells

README = Path(__file__).parent.parent / "README.md"


def main() -> int:
    """Renews the tables; with `--check`, fails where they differ from the results."""
    text = README.read_text()
    renewed = renew(text, read_results())
    if "--check" in sys.argv:
        return int(renewed != text)
    README.write_text(renewed)
    return 0


def read_results() -> dict[str, dict[str, Any]]:
    """Every benchmark's last record by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def renew(text: str, results: Mapping[str, dict[str, Any]]) -> str:
    """The README with each marked part made anew from its benchmark's record."""
    for name, make in _PARTS.items():
        begin, end = f"<!-- results of {name} -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            raise ValueError(f"{README.name} lacks the markers of {name}")
        after = rest[rest.index(end) :]
        text = f"{before}{begin}{make(results)}\n{after}"
    return text


def _quality(results: Mapping[str, dict[str, Any]]) -> str:
    record = results["demo"]
    rows = [
        [name, *(_cell(metrics.get(metric)) for metric in METRICS), _rating(metrics.get("ratings"))]
        for name, metrics in record["figures"]["table"].items()
    ]
    seconds = sum(record["figures"]["seconds"].values())
    return "\n".join(
        [_table(["system", *METRICS, "MSE (skill)"], rows), "", _source(record, f"; {seconds:.0f} s in all")]
    )


def _targets(results: Mapping[str, dict[str, Any]]) -> str:
    record = results["quality"]
    rows = [
        [row["what"], row["target"], told(row["reached"]), row["beside"], _met(row["is_met"])]
        for row in record["figures"]["targets"]
    ]
    return "\n".join([_table(["what", "target", "reached", "beside", "met"], rows), "", _source(record, "")])


def _returning(results: Mapping[str, dict[str, Any]]) -> str:
    record = results["quality"]
    ranking = record["figures"]["matrix"]["measured"]["ranking"]
    by_ndcg = dict(sorted(ranking.items(), key=lambda system: -system[1]["ndcg@20"]["value"]))
    columns = [metric_cells([metrics[metric] for metrics in by_ndcg.values()], digits=3) for metric in METRICS]
    rows = [list(row) for row in zip(by_ndcg, *columns, strict=True)]
    return "\n".join(
        [_table(["system", *METRICS], rows), "", f"{FOOTNOTE}; the first is `mf`.", "", _source(record, "")]
    )


def _speed(results: Mapping[str, dict[str, Any]]) -> str:
    rows = []
    for claim in _SPEEDS:
        record = results[claim.benchmark]
        figures = record["figures"]
        cells = [claim.what, claim.target(figures), claim.reached(figures), _met(claim.is_met(figures))]
        rows.append([*cells, f"`{record['command']}`", record["commit"]])
    table = _table(["what", "target", "reached", "met", "command", "commit"], rows)
    return "\n".join([table, "", f"On {_on(results['preprocessing'])}."])


def _full_size(results: Mapping[str, dict[str, Any]]) -> str:
    record = results["full_size"]
    rows = [
        [name, f"{stage['seconds']:.0f}", f"{stage['peak_gib']:.1f}"]
        for name, stage in record["figures"]["stages"].items()
    ]
    figures = record["figures"]
    data, run = (figures["report_bytes"][name] / 1e6 for name in ("dataset", "run"))
    text = (
        f"`recommend` is for {figures['recommended_visitors']:,} visitors. The reports have {data:.2f} MB (the "
        f"dataset's) and {run:.2f} MB (the run's, all three pages); the bound is 2 MB."
    )
    return "\n".join([_table(["stage", "seconds", "peak GiB"], rows), "", text, "", _source(record, "")])


def _scaling(results: Mapping[str, dict[str, Any]]) -> str:
    figures = results["scaling"]["figures"]
    rows = [
        [batch, place, *(_milliseconds(measured.get(way)) for way in ("sharded", "exchange_alone", "mirrored"))]
        + [_megabytes(measured["bytes_a_step"][way]) for way in ("sharded", "least", "all_reduce", "mirrored")]
        + [f"{measured['sharded'][size]:.0f}" for size in ("table_mib_a_replica", "resident_mib_a_replica")]
        + [_peak(measured.get(way)) for way in ("sharded", "mirrored")]
        for batch in ("factorization", "popular", "towers")
        for place, measured in figures[batch].items()
    ]
    header = ["batch", "replicas", "ms", "of it without compute", "mirrored ms", "MB moved", "least", "all-reduce"]
    saved = figures["checkpoint"]
    lost = saved["seconds_of_training_lost"]
    text = (
        f"A checkpoint of {saved['mib']:,} MiB: training stands still {saved['seconds_until_copied']:.2f} s while it "
        f"is copied; waited for, as at SIGTERM, it takes {saved['seconds_when_waited_for']:.1f} s. In "
        f"{saved['pairs']} pairs a stretch of training with a checkpoint took {lost['median']:.1f} s longer than one "
        f"without (quartiles {lost['quartiles'][0]:.1f} and {lost['quartiles'][1]:.1f}), writing itself "
        f"{saved['cpu_seconds_of_writing']:.1f} CPU seconds: with one checkpoint a minute, training is "
        f"{saved['slowdown_at_one_a_minute']:.1%} slower, {saved['slowdown_at_most']:.1%} at most (target: 5%)."
    )
    header += ["mirrored MB", "table MiB a replica", "memory MiB a replica", "peak MiB of a process", "mirrored peak"]
    table = _table(header, rows)
    return "\n".join([table, "", text, "", _source(results["scaling"], "")])


def _milliseconds(measured: Mapping[str, float] | None) -> str:
    return f"{measured['ms_per_step']:.1f}" if measured else "–"


def _peak(measured: Mapping[str, float] | None) -> str:
    return f"{measured['peak_mib_of_process']:,}" if measured else "–"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f}"


_PARTS: dict[str, Callable[[Mapping[str, dict[str, Any]]], str]] = {
    "demo": _quality,
    "quality": _targets,
    "returning visitors": _returning,
    "speed": _speed,
    "full_size": _full_size,
    "scaling": _scaling,
}


class _Claim(NamedTuple):
    """A line of the table of speed; `target`, `reached` and `is_met` are told of the figures of a benchmark."""

    what: str
    benchmark: str
    target: Callable[[dict[str, Any]], str]
    reached: Callable[[dict[str, Any]], str]
    is_met: Callable[[dict[str, Any]], bool]


def _prepares(what: str, stage: str, name: str) -> _Claim:
    """Preprocessing takes no more seconds and memory than the targets of a name."""

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


def _report_adds(what: str, key: str) -> _Claim:
    """The report adds no more than its target to preprocessing, without item properties and with them."""

    def added(figures: Mapping[str, Any]) -> list[float]:
        return [figures[inputs]["cpu_seconds"][key] for inputs in ("events", "with_properties")]

    return _Claim(
        what,
        "statistics",
        lambda figures: f"≤ {figures['target']:.0%}",
        lambda figures: "; ".join(f"{share:.0%}" for share in added(figures)),
        lambda figures: max(added(figures)) <= figures["target"],
    )


def _is_times(figures: Mapping[str, Any]) -> bool:
    return bool(figures["ratio"] >= figures["targets"]["ratio"])


_SPEEDS = (
    _Claim(
        "preprocessing, 1,000,000 events: rows/s against row dicts through TF-Transform (imports left out of both)",
        "preprocessing",
        lambda figures: f"≥ {figures['targets']['ratio']} ×",
        lambda figures: (
            f"{figures['million_events']['ratio']:.1f} ×; whole commands: "
            f"{figures['million_events']['ratio_of_commands']:.1f} ×"
        ),
        lambda figures: figures["million_events"]["ratio"] >= figures["targets"]["ratio"],
    ),
    _prepares("preprocessing, full size (2.76 M events)", "full_size_events", "events"),
    _prepares("the same with 20.3 M item-property rows", "full_size_with_properties", "properties"),
    _report_adds(
        "what counting for the report adds to preprocessing, CPU seconds of jobs in turns: events; with properties",
        "added_by_counting",
    ),
    _report_adds("the same with the report drawn", "added"),
    _Claim(
        "synthesize, full size with properties; calibrated figures within 10% of the real data's",
        "synthesize",
        lambda _: "≤ 180 s, all",
        lambda figures: f"{figures['seconds']:.0f} s, {figures['within']} of {figures['of']}",
        lambda figures: figures["seconds"] <= 180 and figures["within"] == figures["of"],
    ),
    _Claim(
        "input, rows/s into shuffled batches of 8,192: against one-row Examples with batched `parse_example`",
        "input",
        lambda figures: (
            f"≥ {figures['targets']['ratio']} ×, ≥ {figures['targets']['block_rows_per_second'] / 1e6:g} M rows/s"
        ),
        lambda figures: f"{figures['ratio']:.0f} ×, {figures['block_rows_per_second'] / 1e6:.1f} M rows/s",
        lambda figures: (
            _is_times(figures) and figures["block_rows_per_second"] >= figures["targets"]["block_rows_per_second"]
        ),
    ),
    _Claim(
        "MF step, 1.4 M + 235,000 rows of 64, batch 8,192: examples/s against Keras `fit`, both with Adam",
        "mf_step",
        lambda figures: f"≥ {figures['targets']['ratio']} ×",
        lambda figures: f"{figures['ratio']:.0f} ×; without huge pages: {figures['ratio_small_pages']:.0f} ×",
        _is_times,
    ),
    _Claim(
        "slowest `--help` of all commands",
        "start",
        lambda _: "< 1 s",
        lambda figures: f"{_slowest(figures):.2f} s",
        lambda figures: _slowest(figures) < 1,
    ),
    _Claim(
        "exact top 20 of 235,000 items of 64: queries/s against `implicit`'s C++, in turns",
        "top_k",
        lambda figures: f"≥ {figures['targets']['ratio']} ×",
        lambda figures: (
            f"{figures['ratio']:.2f} ×; seen items hidden: {figures['seen_hidden']['ratio']:.2f} ×; "
            f"whole rows at once: {figures['whole_rows']['ratio']:.2f} ×"
        ),
        _is_times,
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


if __name__ == "__main__":
    sys.exit(main())
