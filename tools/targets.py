"""The project's targets and the measured values, from the records of the benchmarks."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.harness import format_reached

Results = Mapping[str, dict[str, Any]]
"""The latest record of each benchmark, by name."""


class Target(NamedTuple):
    """A target for the quality or the speed of the project, and the value measured for it."""

    what: str
    bound: str
    measured: str
    is_met: bool
    compared_with: str = ""
    """The other system and both values, for targets of quality."""


def read_targets(results: Results) -> list[Target]:
    """Returns the targets for quality, followed by the targets for speed."""
    quality = results["quality"]["figures"]["targets"]
    rows = [
        Target(row["what"], row["target"], format_reached(row["reached"]), row["is_met"], row["compared_with"])
        for row in quality
    ]
    for claim in SPEEDS:
        figures = results[claim.benchmark]["figures"]
        rows.append(Target(claim.what, claim.target(figures), claim.reached(figures), claim.is_met(figures)))
    return rows


class _Claim(NamedTuple):
    """A row of the table of speed targets. Its functions take the results of the benchmark named `benchmark`."""

    what: str
    benchmark: str
    target: Callable[[dict[str, Any]], str]
    reached: Callable[[dict[str, Any]], str]
    is_met: Callable[[dict[str, Any]], bool]


def _preprocessing_claim(what: str, stage: str, name: str) -> _Claim:
    """Builds the table row of a preprocessing stage; the keys of the targets for time and memory start with `name`."""

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
    """Builds the table row for the CPU time of the statistics report, relative to that of `prepare` without it."""

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


SPEEDS = (
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
        "first call of an export after its warm-up",
        "first_call",
        lambda figures: f"≤ {figures['most_ms']:.0f} ms",
        lambda figures: f"{figures['warm']['first_ms']:.0f} ms ({figures['cold']['first_ms']:,.0f} ms without)",
        lambda figures: figures["warm"]["first_ms"] <= figures["most_ms"],
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
