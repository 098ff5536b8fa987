"""Measures the time that the report adds to `prepare`. Jobs with and without a report are interleaved.

The jobs without a report skip the page and its statistics: visitor behaviour, items by split, and correlations. They
still compute everything that the dataset needs: counts of events, cuts, vocabularies and the catalogue. The seconds
exclude imports. CPU seconds are more reliable on a shared machine. The time of drawing is also recorded separately,
because drawing takes as long for a small shop as for a large one.

usage: python -m benchmarks.statistics [DIRECTORY of the shop, kept and reused]
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import report, run_command
from benchmarks.preprocessing import make_shop

ROUNDS = {"events": 5, "with_properties": 2}
TARGET = 0.15
WITH, WITHOUT = "with", "without"


def main() -> None:
    """Measures the time that the report adds to `prepare`, with and without item properties in the input."""
    with tempfile.TemporaryDirectory() as scratch:
        shop = make_shop(Path(sys.argv[1] if len(sys.argv) > 1 else f"{scratch}/shop"))
        inputs = {"events": str(shop / "events.csv")}
        more = {"item_properties": str(shop / "item_properties_part*.csv")}
        more["category_tree"] = str(shop / "category_tree.csv")
        given = {"events": inputs, "with_properties": inputs | more}
        figures = {name: _measure(given[name], Path(scratch, name), rounds) for name, rounds in ROUNDS.items()}
    report("statistics", {**figures, "rounds": ROUNDS, "target": TARGET})


def _measure(inputs: dict[str, str], root: Path, rounds: int) -> dict[str, Any]:
    """Runs `prepare` with and without its report, each `rounds` times.

    Returns:
      For wall-clock time (`seconds`) and CPU time (`cpu_seconds`):
      `without`: seconds of each job without the report.
      `counted`: seconds of each job with statistics, but no page.
      `drawn`: seconds of drawing each page.
      `added_by_counting`, `added`: time added by the statistics and by the whole report, as shares of `without`.
    """
    taken: dict[str, list[dict[str, dict[str, float]]]] = {WITH: [], WITHOUT: []}
    for turn in range(rounds):
        for which, results in taken.items():
            first = str(root / f"{WITH}-0")
            arguments = [which, json.dumps(inputs), str(root / f"{which}-{turn}"), first]
            timing = run_command([sys.executable, "-m", __spec__.name, "--prepare", *arguments])
            results.append(json.loads(timing.stdout))
    figures: dict[str, Any] = {}
    for unit in ("seconds", "cpu_seconds"):
        counted, drawn = ([result[step][unit] for result in taken[WITH]] for step in ("prepared", "drawn"))
        without = [result["prepared"][unit] for result in taken[WITHOUT]]
        whole = [sum(both) for both in zip(counted, drawn, strict=True)]
        figures[unit] = {
            "without": without,
            "counted": counted,
            "drawn": drawn,
            "added_by_counting": _added(counted, without),
            "added": _added(whole, without),
        }
    return figures


def _added(seconds: list[float], without: list[float]) -> float:
    return round(statistics.median(seconds) / statistics.median(without) - 1, 3)


def prepare_once(which: str, inputs: dict[str, str], output: str, first: str) -> dict[str, dict[str, float]]:
    """Runs one `prepare` job; with the report, also draws the report's page.

    Args:
      which: `with` or `without` the report.
      inputs: paths of the input files, by their names in `PrepareConfig`.
      output: directory of the new dataset.
      first: dataset of an earlier job; a job without the report copies the statistics of that job.

    Returns:
      Seconds of the job (`prepared`) and of drawing its page (`drawn`).
    """
    import gc

    from preprocessing.config import PrepareConfig
    from preprocessing.pages.report import write_report
    from preprocessing.pipeline import prepare

    if which == WITHOUT:
        _skip_counting(json.loads(Path(first, "statistics.json").read_text()))
    config = PrepareConfig(
        events=inputs["events"],
        item_properties=inputs.get("item_properties"),
        category_tree=inputs.get("category_tree"),
    )
    gc.freeze()
    taken = {"prepared": _timed(lambda: prepare(config, output))}
    if which == WITH:
        taken["drawn"] = _timed(lambda: write_report(output))
    return taken


def _timed(job: Callable[[], object]) -> dict[str, float]:
    begin, cpu_begin = time.perf_counter(), time.process_time()
    job()
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2)}


def _skip_counting(described: dict[str, Any]) -> None:
    """Replaces the computation of the report's statistics by `described`, the content of an earlier statistics.json."""
    import numpy as np

    from contract.schema import DEFAULT_KINDS
    from preprocessing import timelines
    from preprocessing.beam import stages
    from preprocessing.statistics import correlation, popularity
    from preprocessing.statistics import summaries as counting
    from preprocessing.statistics.behaviour import merge_behaviours

    no_items = popularity.count_items_by_split(timelines.empty_timelines(), np.empty(0, np.int8), len(DEFAULT_KINDS))
    no_behaviour = merge_behaviours([])
    no_moments = correlation.Moments(0, np.zeros(len(correlation.COLUMNS), object), np.zeros(1, object))
    for module, name, answer in (
        (counting, "measure_behaviour", no_behaviour),
        (popularity, "count_items_by_split", no_items),
        (stages, "count_moments", no_moments),
        (counting, "describe_events", described["events"]),
        (popularity, "describe_items", described["items"]),
        (popularity, "describe_categories", described["catalogue"]["events_by_category"]),
        (correlation, "describe_correlation", described["correlation"]),
    ):
        setattr(module, name, lambda *_, answer=answer: answer)


if __name__ == "__main__":
    if "--prepare" in sys.argv:
        chosen, given, made, described_by = sys.argv[2:]
        print(json.dumps(prepare_once(chosen, json.loads(given), made, described_by)))
    else:
        main()
