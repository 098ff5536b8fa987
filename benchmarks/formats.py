"""Compares the speed of file formats: the same events as CSV, Parquet and nested JSON Lines.

Measures the rows/s of `prepare` and of reading alone, and the seconds of `inspect` on a large CSV file.

usage: python -m benchmarks.formats [DIRECTORY of the shop, kept and reused]
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from benchmarks.harness import Timing, report, run_command, timed
from benchmarks.preprocessing import FULL_ROWS, make_shop
from preprocessing.events import parse_events
from preprocessing.inputs import list_inputs
from preprocessing.shop import make_config
from preprocessing.sources.source import read_batches

ROUNDS = 3
INSPECT_BYTES = 2 << 30
TARGETS = {"parquet_ratio": 1, "json_lines_read_per_second": 200_000, "inspect_seconds": 5}
NESTED = {"visitor": "session", "item": "events[].aid", "time": "events[].ts", "kind": "events[].type"}


def main() -> None:
    """Measures the file formats in interleaved runs; records each format's fastest run."""
    with tempfile.TemporaryDirectory() as scratch:
        shop = make_shop(Path(sys.argv[1] if len(sys.argv) > 1 else f"{scratch}/shop"))
        events = shop / "events.csv"
        parquet, nested = Path(scratch) / "events.parquet", Path(scratch) / "sessions.jsonl"
        table = pa_csv.read_csv(events)
        pq.write_table(table, parquet, row_group_size=1 << 18)
        write_sessions(table, nested)
        files = {"csv": events, "parquet": parquet, "json_lines": nested}
        runs: dict[str, list[Timing]] = {name: [] for name in files}
        reading: dict[str, list[float]] = {name: [] for name in files}
        for number in range(ROUNDS):
            for name, path in files.items():
                runs[name].append(_prepare(path, f"{scratch}/{name}-{number}"))
                reading[name].append(_read(path))
        large = Path(scratch) / "large.csv"
        write_large(events, large)
        inspect = run_command([sys.executable, "-m", "preprocessing", "inspect", str(large)]).seconds
    seconds = {name: [round(run.seconds, 1) for run in found] for name, found in runs.items()}
    rates = {name: round(FULL_ROWS / min(found)) for name, found in seconds.items()}
    read_rates = {name: round(FULL_ROWS / min(found)) for name, found in reading.items()}
    figures: dict[str, Any] = {
        "prepare_rows_per_second": rates,
        "prepare_seconds": seconds,
        "prepare_cpu_seconds": {name: [round(run.cpu_seconds, 1) for run in found] for name, found in runs.items()},
        "read_rows_per_second": read_rates,
        "parquet_ratio": round(rates["parquet"] / rates["csv"], 2),
        "parquet_ratio_of_reading": round(read_rates["parquet"] / read_rates["csv"], 2),
        "json_lines_read_per_second": read_rates["json_lines"],
        "inspect_seconds": round(inspect, 1),
        "targets": TARGETS,
    }
    report("formats", figures)


def _prepare(events: Path, output: str) -> Timing:
    command = ["prepare", "--events", str(events), "--output", output]
    if events.suffix == ".jsonl":
        command += ["--map", *(f"{role}={path}" for role, path in NESTED.items())]
    timing = run_command([sys.executable, "-m", "preprocessing", *command])
    shutil.rmtree(output)
    return timing


def _read(events: Path) -> float:
    """Parses all events in this process; returns the seconds."""
    columns = NESTED if events.suffix == ".jsonl" else {}
    inputs = list_inputs(make_config(None, {"events": str(events), "columns": columns}))
    return timed(lambda: [parse_events(batch, inputs.mapping) for batch in read_batches(inputs.events.parts)])


def write_sessions(table: pa.Table, path: Path) -> None:
    """Writes one line per visitor with the list of their events, in the format of the OTTO dataset."""
    import pandas as pd

    order = pc.sort_indices(table, [("visitorid", "ascending"), ("timestamp", "ascending")])
    rows = table.take(order)
    events = pa.StructArray.from_arrays(
        [rows[name].combine_chunks() for name in ("itemid", "timestamp", "event")], ["aid", "ts", "type"]
    )
    ids = rows["visitorid"].to_numpy()
    starts = (pd.Series(ids).diff().fillna(1) != 0).to_numpy().nonzero()[0]
    lists = pa.ListArray.from_arrays(pa.array([*starts, len(ids)], pa.int32()), events)
    with path.open("w") as file:
        for first in range(0, len(lists), 100_000):
            part = pa.table({"session": ids[starts[first : first + 100_000]], "events": lists[first : first + 100_000]})
            part.to_pandas().to_json(file, orient="records", lines=True)


def write_large(events: Path, path: Path) -> None:
    """Writes the rows of a log repeatedly, until the file has `INSPECT_BYTES` bytes or more."""
    content = events.read_bytes()
    header, _, rows = content.partition(b"\n")
    with path.open("wb") as file:
        file.write(header + b"\n")
        while file.tell() < INSPECT_BYTES:
            file.write(rows)


if __name__ == "__main__":
    main()
