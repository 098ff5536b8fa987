"""Builds the training step of `mf` and `nn` for any number of replicas, and traces or measures its parts.

The step is that of a real run, except that item counts and features are generated. Tracing needs only the
replicas of one worker, with small tables. For measuring the routing, `Loopback` simulates all replicas but one.

Shapes: R replicas.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.while_v2 import _get_graph

from benchmarks.cluster_graph import Traced, read_graph
from benchmarks.cluster_requests import FEATURES_PER_ITEM, GPUS_PER_HOST, count_ids, draw_ids, table_columns
from contract.schema import DEFAULT_KINDS
from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.models import MatrixFactorizationConfig, TowersConfig
from trainer.config.run import RunConfig
from trainer.data.input_pipeline import Batch
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.all_to_all import Route
from trainer.distributed.collectives import Collectives, LocalCollectives
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import dense_optimizer, row_optimizer
from trainer.distributed.replicas import Replicas, start_replicas
from trainer.models import matrix_factorization, towers
from trainer.models.item_features import ItemFeatures
from trainer.models.objectives import Objective, SampledSoftmaxObjective, Tables, TrainingModel, compute_dtype
from trainer.training.step import TrainingStep, compile_steps

_TRACED_ITEMS, _TRACED_FEATURES = 10_000, 1_000
"""Rows of the item table and of the feature table in a traced step.

Small tables save memory, and the graph does not depend on their sizes.
"""
_ROUTING_STEPS = 8


class Loopback(Collectives):
    """Simulates all replicas but one. Each simulated replica sends back the messages that it receives."""

    def __init__(self, count: int) -> None:
        self._count = count

    def all_reduce(self, replica: int, value: tf.Tensor) -> tf.Tensor:  # noqa: ARG002
        return value

    def all_gather(self, replica: int, value: tf.Tensor) -> tf.Tensor:
        """Returns a flattened simulated matrix: [R · R]. Its row and its column `replica` are both `value` [R]."""
        ranks = tf.range(self._count)
        return tf.reshape(tf.gather(value, (ranks[None, :] + ranks[:, None] - replica) % self._count), [-1])

    def all_to_all(self, replica: int, pieces: tf.Tensor, variant: tf.Tensor, num_variants: int) -> tf.Tensor:  # noqa: ARG002
        return pieces


def first_worker(count: int) -> Replicas:
    """Returns those of `count` replicas that are on the first worker; they can trace a graph, but not run it."""
    if count == 1:
        return start_replicas(1, None)
    local = min(count, GPUS_PER_HOST)
    names = start_replicas(local, None).devices
    collectives = Collectives(dict(enumerate(names)), count)
    return Replicas(_mirrored(names), count, names, 0, count // local, collectives)


def routing_replicas(count: int) -> Mapping[str, Replicas]:
    """Returns the implementations of `Replicas` on which the routing is measured, by name.

    `alone`: one of `count` replicas; the others are simulated. `logical`, only if `count` is 2 to 4: all replicas, each
    on its own logical CPU device.
    """
    ways = {"alone": _alone(count)}
    if 1 < count <= 4:
        names = start_replicas(count, None).devices
        ways["logical"] = Replicas(_mirrored(names), count, names, 0, 1, LocalCollectives())
    return ways


def _alone(count: int) -> Replicas:
    """Returns the first of `count` replicas; `Loopback` simulates the others."""
    if count == 1:
        return start_replicas(1, None)
    return Replicas(_mirrored(("CPU:0",)), count, ("CPU:0",), 0, count, Loopback(count))


def _mirrored(names: Sequence[str]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=tf.distribute.ReductionToOneDevice())


def trace_step(config: RunConfig, replicas: Replicas, received_rows: int) -> Traced:
    """Traces a training step of `mf` or `nn`. A dimension of unknown size gets the size `received_rows`."""
    begin = time.process_time()
    model = _training_model(config, replicas)
    with replicas.strategy.scope():
        optimizer = dense_optimizer(config.dense_optimizer) if model.dense else None
        if optimizer is not None:
            optimizer.build(model.dense)
    steps: Any = compile_steps(TrainingStep(model, replicas, optimizer=optimizer, jit_compile=False), replicas)
    spec = _batch_spec(config, replicas.workers)
    scalars = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int32)
    traced = steps.get_concrete_function(tf.data.IteratorSpec(spec), *scalars)
    (loop,) = [node for node in traced.graph.get_operations() if node.type in ("While", "StatelessWhile")]
    # unlike a graph that is rebuilt from the function's definition, it has all shapes
    body = _get_graph(loop, "body", "_body_graph")
    batch_bytes = sum(column.dtype.size * column.shape.num_elements() for column in spec)
    return read_graph(body, replicas, received_rows, time.process_time() - begin, batch_bytes=batch_bytes)


def trace_routing(config: RunConfig, replicas: Replicas, received_rows: int) -> Traced:
    """Traces the routing alone, which finds the replica that owns each row. Arguments: see `trace_step`."""
    begin = time.process_time()
    counts = count_ids(config, replicas.count).values()
    specs = [tf.TensorSpec([len(replicas.local), table.own + table.shared], tf.int64) for table in counts]
    graph = _routing(replicas).get_concrete_function(*specs).graph
    return read_graph(graph, replicas, received_rows, time.process_time() - begin)


def measure_routing(config: RunConfig, replicas: Replicas) -> float:
    """Returns the CPU milliseconds for routing the ids of a step, per replica."""
    local = len(replicas.local)
    ids = [
        tf.constant(np.stack([row for row, _ in zip(draw_ids(counts, local), range(local), strict=True)]))
        for counts in count_ids(config, replicas.count).values()
    ]
    route = _routing(replicas)
    route(*ids).numpy()
    begin = time.process_time()
    for _ in range(_ROUTING_STEPS):
        route(*ids).numpy()
    return (time.process_time() - begin) * 1000 / _ROUTING_STEPS / local


def _routing(replicas: Replicas) -> Any:
    """Returns a function that routes ids. Its arguments are the ids of each table: [local replicas, ids].

    The function returns a sum of all results, because TensorFlow skips unused computations.
    """

    def on_replica(replica: int, *tables: tf.Tensor) -> tf.Tensor:
        sums = []
        for ids in tables:
            route = Route.by_row(replicas, replica, ids[replica - replicas.first])
            rows = route.served if replicas.count == 1 else tf.unique(route.served).y
            sums += [tf.reduce_sum(route.positions), tf.reduce_sum(rows)]
        return tf.add_n([tf.cast(each, tf.int64) for each in sums])

    return tf.function(lambda *tables: replicas.run(on_replica, *tables), autograph=False)


def _training_model(config: RunConfig, replicas: Replicas) -> TrainingModel:
    rows = {"item": _TRACED_ITEMS} | ({"feature": _TRACED_FEATURES} if isinstance(config.model, TowersConfig) else {})
    optimizer = row_optimizer(config.optimizer)
    tables = {
        name: ShardedTable(rows=count, dim=table_columns(config), replicas=replicas, optimizer=optimizer)
        for name, count in rows.items()
    }
    build = _factorization if isinstance(config.model, MatrixFactorizationConfig) else _towers
    with replicas.strategy.scope():
        dense, objective = build(config, tables, replicas)
    return TrainingModel(tables, dense, objective)


def _factorization(config: RunConfig, tables: Tables, replicas: Replicas) -> tuple[list[Any], Objective[Any]]:
    model, loss = config.model, config.loss
    assert isinstance(model, MatrixFactorizationConfig)
    assert isinstance(loss, SampledSoftmaxConfig)
    factors = matrix_factorization.MatrixFactorization(model, compute_dtype(config))
    objective = SampledSoftmaxObjective(loss, tables, replicas, factors, _sampler(loss), config.seed)
    return matrix_factorization.make_dense_variables(model), objective


def _towers(config: RunConfig, tables: Tables, replicas: Replicas) -> tuple[list[Any], Objective[Any]]:
    model, loss = config.model, config.loss
    assert isinstance(model, TowersConfig)
    assert isinstance(loss, SampledSoftmaxConfig)
    both = towers.Towers(model, compute_dtype(config))
    objective = towers.NextItemObjective(loss, tables, replicas, both, _sampler(loss), _features(), config.seed)
    return towers.make_dense_variables(model, len(DEFAULT_KINDS), config.seed), objective


def _sampler(loss: SampledSoftmaxConfig) -> NegativeSampler:
    counts = 1 + _TRACED_ITEMS // (1 + np.arange(_TRACED_ITEMS))
    return NegativeSampler(counts, num_negatives=loss.num_negatives, negative_power=loss.negative_power, seed=0)


def _features() -> ItemFeatures:
    feature = np.arange(_TRACED_ITEMS * FEATURES_PER_ITEM).reshape(-1, FEATURES_PER_ITEM) % _TRACED_FEATURES
    weight = np.full(feature.shape, FEATURES_PER_ITEM**-0.5, np.float32)
    return ItemFeatures(feature, weight, [str(number) for number in range(_TRACED_FEATURES)])


def _batch_spec(config: RunConfig, workers: int) -> Batch:
    size = config.input.batch_size // workers
    columns = dict.fromkeys(Batch._fields, ([size], tf.int32))
    columns |= dict.fromkeys(("history", "history_event"), ([size, config.history_length], tf.int32))
    columns |= {"history_age_ms": ([size, config.history_length], tf.int64), "timestamp_ms": ([size], tf.int64)}
    columns |= {"is_history": ([size, config.history_length], tf.bool)}
    columns |= {"weight": ([size], tf.float32), "is_row": ([size], tf.bool)}
    return Batch(**{name: tf.TensorSpec(shape, dtype) for name, (shape, dtype) in columns.items()})
