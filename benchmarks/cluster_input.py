"""Measures the CPU time that a machine needs to read its rows of a training step."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from benchmarks.cluster_requests import GPUS_PER_HOST, ITEMS, draw_popular, make_config
from contract.shards import Shard
from contract.timelines import TimelineRows, encode_blocks
from trainer.config.run import RunConfig
from trainer.data.input_pipeline import Share, count_streams, training_batches
from trainer.data.training_events import TrainingEvents

_INPUT_ROWS, _EVENTS_PER_VISITOR, _FILES, _BLOCK_ROWS = 800_000, 8, 8, 1_024


def measure_input(preset: str, replicas: Sequence[int]) -> dict[int, float]:
    """Returns, for each number of replicas, the CPU milliseconds that a machine needs to read its rows of a batch."""
    columns = _timelines()
    with tempfile.TemporaryDirectory() as folder:
        events = TrainingEvents([Shard(path, "") for path in _write_blocks(columns, folder)])
        return {count: _input_ms(make_config(preset, count), events, count) for count in replicas}


def _input_ms(config: RunConfig, events: TrainingEvents, replicas: int) -> float:
    """Returns the CPU milliseconds that the first machine needs to read its rows of a step, without the start-up."""
    streams = count_streams(events, config.input, config.history_length, config.is_sequential)
    workers = -(-replicas // GPUS_PER_HOST)

    def cpu_seconds(epochs: int) -> float:
        begin = time.process_time()
        batches = training_batches(
            events,
            config.input,
            seed=0,
            epochs=epochs,
            history_length=config.history_length,
            is_sequential=config.is_sequential,
            event_weights=[1.0, 1.0, 1.0],
            share=Share(0, workers),
            streams=streams,
        )
        for _ in batches:
            pass
        return time.process_time() - begin

    cpu_seconds(1)  # files are in the cache, and TensorFlow's threads have started
    seconds = (cpu_seconds(1 + 2 * workers) - cpu_seconds(1)) / (2 * workers)
    return seconds * 1000 * config.input.batch_size / streams.num_rows


def _timelines() -> TimelineRows:
    """Generates timelines. The popularity of items is as skewed as in a shop."""
    generator = np.random.default_rng(0)
    visitor = np.sort(generator.integers(0, _INPUT_ROWS // _EVENTS_PER_VISITOR, _INPUT_ROWS))
    return TimelineRows(
        visitor=visitor,
        position=np.arange(_INPUT_ROWS) - np.searchsorted(visitor, visitor),
        item=draw_popular(generator, _INPUT_ROWS, ITEMS),
        event=(generator.random(_INPUT_ROWS) > 0.967).astype(np.int64),
        timestamp_ms=1_430_000_000_000 + np.arange(_INPUT_ROWS),
        is_target=np.ones(_INPUT_ROWS, np.int64),
    )


def _write_blocks(columns: TimelineRows, folder: str) -> list[str]:
    """Writes the timelines to several files, without splitting any; returns the paths."""
    starts = np.flatnonzero(columns.position == 0)
    cuts = [*starts[:: -(-len(starts) // _FILES)], len(columns)]
    paths = [str(Path(folder) / f"{number}.tfrecord") for number in range(len(cuts) - 1)]
    for path, begin, end in zip(paths, cuts[:-1], cuts[1:], strict=True):
        with tf.io.TFRecordWriter(path) as writer:
            for block in encode_blocks(columns[begin:end], _BLOCK_ROWS):
                writer.write(block)
    return paths
