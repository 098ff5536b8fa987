"""`prepare` from CSV, Parquet and nested JSON Lines: rows/s of the same events; seconds of `inspect` on a large file.

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

from benchmarks.harness import report, run_command
from benchmarks.preprocessing import FULL_ROWS, make_shop

ROUNDS = 3
INSPECT_BYTES = 2 << 30
TARGETS = {"parquet_ratio": 1, "json_events_per_second": 200_000, "inspect_seconds": 5}
NESTED = [
    *("--map", "visitor=session", "item=events[].aid", "time=events[].ts", "kind=events[].type"),
    *("--set", "time.unit=ms"),
]


def main() -> None:
    """Measures each format in interleaved runs, and records the best seconds of each."""
    with tempfile.TemporaryDirectory() as scratch:
        shop = make_shop(Path(sys.argv[1] if len(sys.argv) > 1 else f"{scratch}/shop"))
        events = shop / "events.csv"
        parquet, nested = Path(scratch) / "events.parquet", Path(scratch) / "sessions.jsonl"
        table = pa_csv.read_csv(events)
        pq.write_table(table, parquet, row_group_size=1 << 18)
        write_sessions(table, nested)
        flags = {"csv": [str(events)], "parquet": [str(parquet)], "json_lines": [str(nested), *NESTED]}
        seconds: dict[str, list[float]] = {name: [] for name in flags}
        for number in range(ROUNDS):
            for name, given in flags.items():
                command = ["prepare", "--events", *given, "--output", f"{scratch}/{name}-{number}"]
                seconds[name].append(run_command([sys.executable, "-m", "preprocessing", *command]).seconds)
                shutil.rmtree(f"{scratch}/{name}-{number}")
        large = Path(scratch) / "large.csv"
        write_large(events, large)
        inspect = run_command([sys.executable, "-m", "preprocessing", "inspect", str(large)]).seconds
    rates = {name: round(FULL_ROWS / min(found)) for name, found in seconds.items()}
    figures: dict[str, Any] = {
        "rows_per_second": rates,
        "seconds": {name: [round(value, 1) for value in found] for name, found in seconds.items()},
        "parquet_ratio": round(rates["parquet"] / rates["csv"], 2),
        "inspect_seconds": round(inspect, 1),
        "targets": TARGETS,
    }
    report("formats", figures)


def write_sessions(table: pa.Table, path: Path) -> None:
    """Writes a line per visitor with the list of their events, as OTTO's log has it."""
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
    """Repeats a log until it has `INSPECT_BYTES`."""
    content = events.read_bytes()
    header, _, rows = content.partition(b"\n")
    with path.open("wb") as file:
        file.write(header + b"\n")
        while file.tell() < INSPECT_BYTES:
            file.write(rows)


if __name__ == "__main__":
    main()
