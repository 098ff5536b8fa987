"""Compares the speed of `prepare` with that of a textbook job, and measures `prepare` at full size.

Records rows/s, seconds and peak memory. The textbook job follows TF-Transform's guide: one dict per row,
`compute_and_apply_vocabulary`, one tf.train.Example per row. It does less than `prepare`: no sorting, splits or
statistics. The main ratio compares the jobs from the first byte read to the last byte written. A second ratio compares
the whole commands, including four seconds of imports.

usage: python -m benchmarks.preprocessing [DIRECTORY of the shop, kept and reused]
"""

import csv
import itertools
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Timing, report, run_command, timed

TEXTBOOK_ROWS = 1_000_000
FULL_VISITORS = 1_407_580
FULL_ROWS = 2_756_101
TARGETS = {"ratio": 12, "events_seconds": 40, "events_gib": 4, "properties_seconds": 180, "properties_gib": 6}


def main() -> None:
    """Measures each implementation in a separate process; records the speeds and their targets."""
    with tempfile.TemporaryDirectory() as scratch:
        shop = make_shop(Path(sys.argv[1] if len(sys.argv) > 1 else f"{scratch}/shop"))
        part = Path(scratch) / "part.csv"
        with (shop / "events.csv").open() as log, part.open("w") as file:
            file.writelines(itertools.islice(log, TEXTBOOK_ROWS + 1))
        textbook = _run_job("--textbook", part, f"{scratch}/textbook")
        ours = _run_job("--prepare", part, f"{scratch}/part")
        events = _prepare(["--events", str(shop / "events.csv")], f"{scratch}/events")
        properties = _prepare(
            [
                *("--events", str(shop / "events.csv")),
                *("--item-properties", str(shop / "item_properties_part*.csv")),
                *("--category-tree", str(shop / "category_tree.csv")),
            ],
            f"{scratch}/properties",
        )
    figures = {
        "million_events": {
            "textbook_rows_per_second": round(TEXTBOOK_ROWS / textbook.job_seconds),
            "prepare_rows_per_second": round(TEXTBOOK_ROWS / ours.job_seconds),
            "ratio": round(textbook.job_seconds / ours.job_seconds, 1),
            "textbook_command_seconds": round(textbook.command_seconds, 1),
            "prepare_command_seconds": round(ours.command_seconds, 1),
            "ratio_of_commands": round(textbook.command_seconds / ours.command_seconds, 1),
        },
        "full_size_events": _figures(events),
        "full_size_with_properties": _figures(properties),
        "targets": TARGETS,
    }
    report("preprocessing", figures)


def make_shop(shop: Path) -> Path:
    """Writes a shop of Retailrocket's size unless it exists; returns its path."""
    if not shop.exists():
        synthesize = ["synthesize", "--visitors", str(FULL_VISITORS), "--output", str(shop)]
        run_command([sys.executable, "-m", "preprocessing", *synthesize])
    return shop


@dataclass(frozen=True)
class _JobTiming:
    """Seconds of a job (without Python's imports) and of the command that runs the job."""

    job_seconds: float
    command_seconds: float


def _run_job(flag: str, source: Path, output: str) -> _JobTiming:
    command = run_command([sys.executable, "-m", __spec__.name, flag, str(source), output])
    return _JobTiming(float(command.stdout.split()[-1]), command.seconds)


def _prepare(arguments: list[str], output: str) -> Timing:
    return run_command([sys.executable, "-m", "preprocessing", "prepare", *arguments, "--output", output])


def _figures(timing: Timing) -> dict[str, Any]:
    return {
        "seconds": round(timing.seconds, 1),
        "cpu_seconds": round(timing.cpu_seconds, 1),
        "rows_per_second": round(FULL_ROWS / timing.seconds),
        "peak_gib": round(timing.peak_mib / 1024, 2),
    }


def ours(source: str, output: str) -> float:
    """Runs `prepare` in this process; returns the seconds."""
    import gc

    from preprocessing.config import PrepareConfig
    from preprocessing.pipeline import prepare

    gc.freeze()
    return timed(lambda: prepare(PrepareConfig(events=source), output))


def textbook(source: str, output: str) -> float:
    """Runs the textbook job on the events in `source`; returns the seconds."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform as tft
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    names = ("timestamp", "visitorid", "event", "itemid")
    spec = {name: tf.io.FixedLenFeature([], tf.int64 if name == "timestamp" else tf.string) for name in names}
    metadata = tft.DatasetMetadata.from_feature_spec(spec)

    def parse(line: str) -> dict[str, Any]:
        timestamp, visitor, event, item, _ = next(csv.reader([line]))
        return {"timestamp": int(timestamp), "visitorid": visitor, "event": event, "itemid": item}

    def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
        outputs = {
            name: tft.compute_and_apply_vocabulary(inputs[name], num_oov_buckets=1, vocab_filename=name)
            for name in ("visitorid", "itemid", "event")
        }
        return {**outputs, "timestamp": inputs["timestamp"]}

    def run() -> None:
        with (
            tempfile.TemporaryDirectory() as scratch,
            beam.Pipeline(runner=FnApiRunner()) as pipeline,
            tft_beam.Context(scratch),
        ):
            rows = pipeline | beam.io.ReadFromText(source, skip_header_lines=1) | beam.Map(parse)
            (transformed, transformed_metadata), transform_fn = (
                rows,
                metadata,
            ) | tft_beam.AnalyzeAndTransformDataset(preprocessing_fn)
            coder = tft.coders.ExampleProtoCoder(transformed_metadata.schema)
            _ = transformed | beam.Map(coder.encode) | beam.io.WriteToTFRecord(f"{output}/rows/part", num_shards=4)
            _ = transform_fn | tft_beam.WriteTransformFn(f"{output}/transform")

    return timed(run)


if __name__ == "__main__":
    if "--textbook" in sys.argv:
        print(textbook(*sys.argv[2:]), flush=True)
        # with a million rows, the interpreter crashes in its garbage collection at exit, after the output is complete
        os._exit(0)
    elif "--prepare" in sys.argv:
        print(ours(*sys.argv[2:]))
    else:
        main()
