"""Compares the input speed of two file formats: timeline blocks, and one tf.train.Example per row.

Measures the rows/s from files to shuffled batches. Examples are parsed in batches (`parse_example`),
which is faster than one by one.

usage: python -m benchmarks.input
"""

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.harness import report
from contract.shards import Shard
from contract.timelines import TimelineRows, encode_blocks
from trainer.config.run import InputConfig
from trainer.data.input_pipeline import training_batches
from trainer.data.training_events import TrainingEvents

VISITORS, ITEMS = 1_407_580, 235_061
BLOCK_WAY_ROWS, ROW_WAY_ROWS = 2_756_101, 300_000
FILES, BLOCK_ROWS, BATCH = 16, 1024, 8192
REPEATS = 10
TARGETS = {"ratio": 25, "block_rows_per_second": 3_000_000}


def main() -> None:
    """Alternately reads timeline blocks and single examples, and records the fastest rate of each format."""
    with tempfile.TemporaryDirectory() as scratch:
        blocks, rows = _write_blocks(Path(scratch)), _write_rows(Path(scratch))
        block_bytes, row_bytes = (sum(os.path.getsize(path) for path in paths) for paths in (blocks, rows))
        config = InputConfig(batch_size=BATCH)
        events = TrainingEvents([Shard(path, "") for path in blocks])  # local files are not verified
        # interleaved, so that other load affects both; the best time is the least disturbed one
        seconds = [
            (_read(training_batches(events, config, seed=seed, epochs=1)), _read(_textbook(rows)))
            for seed in range(REPEATS)
        ]
    by_blocks, by_rows = (min(of_way) for of_way in zip(*seconds, strict=True))
    block_rate, row_rate = BLOCK_WAY_ROWS / by_blocks, ROW_WAY_ROWS / by_rows
    figures = {
        "block_rows_per_second": round(block_rate),
        "row_rows_per_second": round(row_rate),
        "ratio": round(block_rate / row_rate, 1),
        "block_bytes_per_row": round(block_bytes / BLOCK_WAY_ROWS, 1),
        "row_bytes_per_row": round(row_bytes / ROW_WAY_ROWS, 1),
        "targets": TARGETS,
    }
    report("input", figures)


def _columns(rows: int, seed: int) -> TimelineRows:
    """Generates rows sorted by visitor. The popularity of items is as skewed as in a shop."""
    generator = np.random.default_rng(seed)
    visitor = np.sort(generator.integers(0, VISITORS, rows))
    return TimelineRows(
        visitor=visitor,
        position=np.arange(rows) - np.searchsorted(visitor, visitor),
        item=np.minimum((generator.pareto(0.8, rows) * 30).astype(np.int64), ITEMS - 1),
        event=(generator.random(rows) > 0.967).astype(np.int64),
        timestamp_ms=1_430_000_000_000 + generator.integers(0, 10**10, rows),
        is_target=np.ones(rows, np.int64),
    )


def _write_blocks(folder: Path) -> list[str]:
    paths = [str(folder / f"blocks-{number:02d}.tfrecord") for number in range(FILES)]
    for number, path in enumerate(paths):
        rows = BLOCK_WAY_ROWS // FILES + (number < BLOCK_WAY_ROWS % FILES)
        with tf.io.TFRecordWriter(path) as writer:
            for block in encode_blocks(_columns(rows, number), BLOCK_ROWS):
                writer.write(block)
    return paths


def _write_rows(folder: Path) -> list[str]:
    paths = [str(folder / f"rows-{number}.tfrecord") for number in range(4)]
    for number, path in enumerate(paths):
        columns = _columns(ROW_WAY_ROWS // len(paths), number)
        with tf.io.TFRecordWriter(path) as writer:
            for visitor, item, event in zip(
                columns.visitor.tolist(), columns.item.tolist(), columns.event.tolist(), strict=True
            ):
                features = {"visitor": visitor, "item": item, "event": event}
                feature = {
                    name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
                    for name, value in features.items()
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return paths


def _textbook(paths: list[str]) -> tf.data.Dataset:
    spec = {name: tf.io.FixedLenFeature([], tf.int64) for name in ("visitor", "item", "event")}
    rows = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset, cycle_length=4, num_parallel_calls=4
    )
    batches = rows.shuffle(100_000).batch(BATCH)
    return batches.map(lambda serialized: tf.io.parse_example(serialized, spec), num_parallel_calls=2).prefetch(2)


def _read(batches: tf.data.Dataset) -> float:
    begin = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
