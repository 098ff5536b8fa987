"""Measures training steps on a large table: milliseconds, exchanged bytes, and memory per replica.

Compares row-sharded tables with the best mirrored implementation, on 1, 2 and 4 replicas and on two workers. The
batches are like those of matrix factorization and of two towers. Also measures how much writing a full-size checkpoint
slows down training. The replicas are logical CPU devices, which share the machine's cores and memory. So more replicas
do not compute faster, and they exchange data by copying it in memory.

usage: python -m benchmarks.scaling [--loaded]
"""

import argparse
import itertools
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any, NamedTuple
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.harness import Load, peak_mib, refuse_load, report, resident_mib
from contract.schema import DEFAULT_KINDS
from trainer.config.models import TowersConfig
from trainer.config.optimizers import AdagradConfig
from trainer.distributed.all_to_all import CAPACITIES
from trainer.distributed.cluster import Cluster, join_cluster, tf_config
from trainer.distributed.embeddings import ShardedTable, initialize
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import Replicas, start_replicas
from trainer.models.towers import make_dense_variables
from trainer.runs import checkpoint_files
from trainer.runs.checkpoint import TrainState
from trainer.runs.checkpoint_writer import CheckpointWriter

ROWS, ITEMS, DIM = 1_400_000, 235_000, 64
WARM_UP_STEPS, STEPS = 3, 40
CHECKPOINT_PAIRS = 8
ROW_BYTES = DIM * 4
ID_BYTES = 8
OPTIMIZER = AdagradConfig()


class Ids(NamedTuple):
    """The ids of table rows that each of S steps looks up.

    `divided` [S, N]: N ids per step, divided among the replicas. `shared` [S, M]: M ids per step that every replica
    looks up. `dense`: number of values in the dense gradients.
    """

    divided: np.ndarray
    shared: np.ndarray
    dense: int = 0


def mf_ids() -> Ids:
    """Draws 8,192 visitor ids per step, few of them repeated, as matrix factorization looks them up."""
    generator = np.random.default_rng(0)
    return Ids(generator.integers(0, ROWS, (STEPS, 8192)), np.zeros((STEPS, 0), np.int64))


def popular_ids() -> Ids:
    """Draws 8,192 ids of popular items per step, mostly repeated. `Ids.shared` is empty."""
    return Ids(_items(np.random.default_rng(0), 8192), np.zeros((STEPS, 0), np.int64))


def nn_ids() -> Ids:
    """Draws the item ids that a two-tower model looks up.

    Per step: 8,192 histories of 20 items, and 1,024 candidates that the replicas share.
    """
    generator = np.random.default_rng(0)
    dense = make_dense_variables(TowersConfig(dim=DIM, history_length=20), len(DEFAULT_KINDS), seed=0)
    return Ids(_items(generator, 8192 * 20), _items(generator, 1024), sum(math.prod(weight.shape) for weight in dense))


def _items(generator: np.random.Generator, count: int) -> np.ndarray:
    """Draws `count` item ids for each step; a few items are very popular."""
    return np.minimum((generator.pareto(0.8, (STEPS, count)) * 30).astype(np.int64), ITEMS - 1)


BATCHES: dict[str, Callable[[], Ids]] = {"factorization": mf_ids, "popular": popular_ids, "towers": nn_ids}


def main() -> None:
    """Measures each combination of implementation, batch and number of replicas in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loaded", action="store_true", help="record the figures even if other programs use the cores")
    is_loaded = parser.parse_args().loaded
    before = Load()
    time.sleep(3)
    refuse_load(before.share(), is_allowed=is_loaded)
    load = Load()
    figures: dict[str, Any] = {batch: {} for batch in BATCHES}
    for batch, placement, way in itertools.product(BATCHES, _REPLICAS, _WAYS):
        measured = _measure_workers(batch, way) if placement == "workers" else _run_case(batch, way, placement)
        figures[batch].setdefault(placement, {})[way] = measured
    for batch, make in BATCHES.items():
        for placement, replicas in _REPLICAS.items():
            figures[batch][placement]["bytes_per_step"] = bytes_per_step(make(), replicas)
    figures["checkpoint"] = json.loads(_run("checkpoint"))
    share = load.share()
    if share is not None:  # the figures took long to measure, so they are printed even if they are not recorded
        print(json.dumps(figures, indent=2), file=sys.stderr)
    refuse_load(share, is_allowed=is_loaded)
    report("scaling", figures, load=share)


def bytes_per_step(ids: Ids, replicas: int) -> dict[str, int]:
    """Counts the bytes that all replicas send in a step, as a mean over the steps.

    Returns:
      `least`: the lower bound: each row that a replica needs from another is sent once, and one gradient is sent back.
      `sharded`: ids, rows and gradients of row-sharded tables, with padding.
      `all_reduce`: rows and gradients of all ids, by ring all-reduce.
      `mirrored`: every replica sends its ids and gradients to all others.
      `dense`: the loss and the dense gradients, which the other figures exclude.
    """
    totals = {"least": 0.0, "sharded": 0.0, "all_reduce": 0.0, "mirrored": 0.0, "dense": 0.0}
    for divided, shared in zip(ids.divided, ids.shared, strict=True):
        used = [np.concatenate([part, shared]) for part in np.split(divided, replicas)]
        rows = _rows_by_owner([np.unique(part) for part in used], replicas)
        # without shared ids, the gradient of each id is sent separately
        back = rows if len(shared) else _rows_by_owner(used, replicas)
        all_ids = len(divided) + len(shared)
        totals["least"] += 2 * (rows.sum() - rows.trace()) * ROW_BYTES
        totals["sharded"] += sum(_sent_rows(counts) for counts in (rows, back)) * ROW_BYTES
        totals["sharded"] += sum(_sent_rows(counts) for counts in ([rows] if len(shared) else [rows, back])) * ID_BYTES
        totals["all_reduce"] += 4 * (replicas - 1) * all_ids * ROW_BYTES
        totals["dense"] += 2 * (replicas - 1) * (ids.dense + 1) * 4
        totals["mirrored"] += (replicas - 1) * sum(map(len, used)) * (ROW_BYTES + ID_BYTES)
    return {name: round(total / STEPS) for name, total in totals.items()}


def _rows_by_owner(needed: list[np.ndarray], replicas: int) -> np.ndarray:
    """Returns counts [R, R]; entry [d, o] is the number of rows that replica d needs and replica o owns."""
    return np.stack([np.bincount(rows % replicas, minlength=replicas) for rows in needed])


def _sent_rows(counts: np.ndarray) -> int:
    """Counts the rows, including padding, that replicas send to each other. `counts`: see `_rows_by_owner`."""
    capacity = CAPACITIES[np.searchsorted(CAPACITIES, counts.max())]
    return int(capacity * (counts.size - len(counts)))


class Built(NamedTuple):
    """A table and its training step, in one implementation.

    `step` runs the training step on a batch, given the batch's number. `held_bytes` is the size of table and
    accumulator per replica; `resident_mib` is the memory that creating them took.
    """

    step: Callable[[int], Any]
    held_bytes: int
    resident_mib: float


def _sharded(replicas: Replicas, ids: Ids, *, has_compute: bool = True) -> Built:
    optimizer = row_optimizer(OPTIMIZER)
    before = resident_mib()
    table = ShardedTable(rows=ROWS, dim=DIM, replicas=replicas, optimizer=optimizer if has_compute else _NoUpdate())
    initialize(table, name="table", seed=0, stddev=0.1)
    resident = resident_mib() - before
    divided, shared = tf.constant(ids.divided), tf.constant(ids.shared)
    target = tf.constant(np.random.default_rng(1).normal(size=DIM), tf.float32)

    def on_replica(replica: int, number: tf.Tensor) -> tf.Tensor:
        given = tf.ensure_shape(shared[number], ids.shared.shape[1:]) if ids.shared.shape[1] else None
        size = ids.divided.shape[1] // replicas.count
        own = tf.ensure_shape(divided[number, replica * size : (replica + 1) * size], [size])
        lookup = table.lookup(replica, own, given)
        vectors = lookup.vectors()
        if not has_compute:
            table.update(replica, lookup, vectors, tf.constant(0, tf.int64))
            return _sum_with_dense(replicas, vectors[0, 0], ids.dense)
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            loss = tf.reduce_sum(tf.square(vectors - target)) / ids.divided.shape[1]
        table.update(replica, lookup, tape.gradient(loss, vectors), tf.constant(0, tf.int64))
        return _sum_with_dense(replicas, loss, ids.dense)

    step = tf.function(lambda number: replicas.run(on_replica, number))
    shards = [table.values, *table.slots.values()]
    held = sum(int(np.prod(part.shards[replicas.first].shape)) * 4 for part in shards)
    return Built(lambda number: step(tf.constant(number)), held, resident)


def _sum_with_dense(replicas: Replicas, loss: tf.Tensor, dense: int) -> tf.Tensor:
    """Returns the loss, summed over the replicas; also sums `dense` numbers, which cost as much as dense gradients."""
    return replicas.all_reduce_together([loss, tf.fill([dense], loss)])[0]


class _NoUpdate:
    slots: dict[str, Any] = {}  # noqa: RUF012 (never changed)

    def apply(self, *_: Any) -> None:
        """Does nothing."""


def _mirrored(replicas: Replicas, ids: Ids) -> Built:
    """Builds mirrored tables: every replica has whole tables, and applies the gradients of all replicas to them."""
    before = resident_mib()
    with replicas.strategy.scope():
        table = tf.Variable(tf.random.stateless_normal([ROWS, DIM], [0, 0], stddev=0.1))
        accumulator = tf.Variable(tf.fill([ROWS, DIM], OPTIMIZER.initial_accumulator))
    resident = resident_mib() - before
    divided, shared = tf.constant(ids.divided), tf.constant(ids.shared)
    target = tf.constant(np.random.default_rng(1).normal(size=DIM), tf.float32)

    def on_replica(replica: int, number: tf.Tensor) -> tf.Tensor:
        size = ids.divided.shape[1] // replicas.count
        own = tf.concat([divided[number][replica * size : (replica + 1) * size], shared[number]], axis=0)
        values, sums = _local(table), _local(accumulator)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(values.sparse_read(own) - target)) / ids.divided.shape[1]
        gradient = tape.gradient(loss, values)
        indices, moved = replicas.all_gather(gradient.indices), replicas.all_gather(gradient.values)
        rows, index = tf.unique(indices)
        tf.raw_ops.ResourceSparseApplyAdagradV2(
            var=values.handle,
            accum=sums.handle,
            lr=OPTIMIZER.learning_rate,
            epsilon=OPTIMIZER.epsilon,
            grad=tf.math.unsorted_segment_sum(moved, index, tf.size(rows)),
            indices=rows,
        )
        return _sum_with_dense(replicas, loss, ids.dense)

    step = tf.function(lambda number: replicas.run(on_replica, number))
    return Built(lambda number: step(tf.constant(number)), 2 * ROWS * ROW_BYTES, resident)


def _local(variable: Any) -> Any:
    """Returns this replica's copy of a mirrored variable."""
    return variable._get() if hasattr(variable, "_get") else variable


_REPLICAS = {"1": 1, "2": 2, "4": 4, "workers": 2}
_WAYS: dict[str, Callable[[Replicas, Ids], Built]] = {
    "sharded": _sharded,
    "exchange_alone": lambda replicas, ids: _sharded(replicas, ids, has_compute=False),
    "mirrored": _mirrored,
}


def measure(batch: str, way: str, placement: str) -> dict[str, Any]:
    """Measures the implementation `way` in this process. `placement`: number of replicas; `workers`: two workers."""
    replicas = start_replicas(1 if placement == "workers" else int(placement), join_cluster())
    ids = BATCHES[batch]()
    tf.zeros([]).numpy()  # TensorFlow allocates memory of its own, which must not count as the table's
    step, held, resident = _WAYS[way](replicas, ids)
    seconds = []
    for number in range(WARM_UP_STEPS + STEPS):
        begin = time.perf_counter()
        tf.nest.map_structure(lambda value: value.numpy(), step(number % STEPS))
        seconds.append(time.perf_counter() - begin)
    return {
        "ms_per_step": round(median(seconds[WARM_UP_STEPS:]) * 1000, 2),
        "table_mib_a_replica": round(held / 2**20, 1),
        "resident_mib_a_replica": round(resident / len(replicas.local), 1),
        "peak_mib_of_process": round(peak_mib()),
    }


def measure_checkpoint() -> dict[str, Any]:
    """Measures the checkpoints of a full-size factorization: size, time, and the slowdown of training."""
    replicas = start_replicas(1, None)
    tables = {
        name: ShardedTable(rows=rows, dim=DIM, replicas=replicas, optimizer=row_optimizer(OPTIMIZER))
        for name, rows in (("visitor", ROWS), ("item", ITEMS))
    }
    for name, table in tables.items():
        initialize(table, name=name, seed=0, stddev=0.1)
    parts = TrainState(tables, [], [])
    step = _sharded(replicas, mf_ids()).step
    paused, whole, lost = [], [], []
    with tempfile.TemporaryDirectory() as workdir, _timing_writes() as writing:
        writer = CheckpointWriter(workdir, parts, replicas, run="r", steps_per_epoch=1)
        for number in range(3):
            begin = time.perf_counter()
            writer.begin(number)
            writer.finish()
            whole.append(time.perf_counter() - begin)
        # long enough to write a checkpoint
        count = _steps_of(step, seconds=3 * median(whole))

        def save_and_train(number: int) -> float:
            begin = time.perf_counter()
            writer.begin(number)
            paused.append(time.perf_counter() - begin)
            _train(step, count, writer)
            writer.finish()
            return time.perf_counter() - begin

        for pair in range(CHECKPOINT_PAIRS):
            if pair % 2:  # alternating order, so that a machine that slows down favours neither
                with_saving, alone = save_and_train(100 + pair), _train(step, count, None)
            else:
                alone, with_saving = _train(step, count, None), save_and_train(100 + pair)
            lost.append(with_saving - alone)
    size = sum(shards.rows * shards.dim * 4 for shards in parts.arrays().values())
    low, middle, high = quantiles(lost, n=4)
    return {
        "mib": round(size / 2**20),
        "seconds_of_pause": round(median(paused), 2),
        "seconds_when_waited_for": round(median(whole), 2),
        "cpu_seconds_of_writing": round(median(writing), 2),
        "pairs": CHECKPOINT_PAIRS,
        "seconds_of_training_lost": {"median": round(middle, 2), "quartiles": [round(low, 2), round(high, 2)]},
        "slowdown_at_one_a_minute": round(middle / 60, 4),
        # upper bound: training makes no progress until the checkpoint is complete
        "slowdown_at_most": round(median(whole) / 60, 4),
    }


@contextmanager
def _timing_writes() -> Iterator[list[float]]:
    """Yields a list. Each checkpoint that is written inside the context appends its CPU seconds to the list."""
    seconds: list[float] = []
    write = checkpoint_files.write_files

    def timed(*arguments: Any) -> dict[str, str]:
        begin = time.thread_time()
        try:
            return write(*arguments)
        finally:
            seconds.append(time.thread_time() - begin)

    with mock.patch.object(checkpoint_files, "write_files", timed):
        yield seconds


def _train(step: Callable[[int], Any], count: int, writer: CheckpointWriter | None) -> float:
    begin = time.perf_counter()
    for number in range(count):
        tf.nest.map_structure(lambda value: value.numpy(), step(number % STEPS))
        if writer is not None:
            writer.poll()
    return time.perf_counter() - begin


def _steps_of(step: Callable[[int], Any], seconds: float) -> int:
    """Returns the number of steps that take about `seconds`."""
    _train(step, WARM_UP_STEPS, None)
    return max(1, round(seconds / (_train(step, STEPS, None) / STEPS)))


def _run_case(batch: str, way: str, placement: str) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(_run(batch, way, placement))
    return measured


def _run(*arguments: str) -> str:
    command = [sys.executable, "-m", __spec__.name, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _free_hosts() -> tuple[str, str]:
    """Returns two free addresses of this machine, as HOST:PORT."""
    with socket.socket() as first, socket.socket() as second:
        for free in (first, second):
            free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{first.getsockname()[1]}", f"127.0.0.1:{second.getsockname()[1]}"


def _measure_workers(batch: str, way: str) -> dict[str, Any]:
    """Measures the implementation `way` on two workers; returns the first worker's time, and the maximum memory."""
    hosts = _free_hosts()
    command = [sys.executable, "-m", __spec__.name, batch, way, "workers"]
    processes = [
        subprocess.Popen(
            command, env=os.environ | {"TF_CONFIG": tf_config(Cluster(hosts, index))}, stdout=subprocess.PIPE, text=True
        )
        for index in range(2)
    ]
    printed = [process.communicate(timeout=600)[0] for process in processes]
    if any(process.returncode for process in processes):
        statuses = " and ".join(str(process.returncode) for process in processes)
        raise RuntimeError(f"`{' '.join(command)}` failed on two workers, with exit statuses {statuses}")
    first_worker, second_worker = map(json.loads, printed)
    return {name: max(value, second_worker[name]) if "mib" in name else value for name, value in first_worker.items()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["checkpoint"]:
        print(json.dumps(measure_checkpoint()))
    elif sys.argv[1:2] and sys.argv[1] in BATCHES:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        main()
