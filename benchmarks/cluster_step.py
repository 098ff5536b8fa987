"""Builds the training step of `mf` and `nn` for any number of replicas, and traces or measures its parts.

The step is that of a real run, except that item counts and features are generated. Tracing needs only the
replicas of one worker, with small tables. For measuring the routing, `Loopback` simulates all replicas but one.

Shapes: R replicas, B rows of a global batch, b rows of a replica, H history, F features of an item, n ids of a lookup,
M rows that a replica receives for a lookup, I items.
"""

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.ops.while_v2 import _get_graph

from contract.schema import DEFAULT_KINDS
from contract.shards import Shard
from contract.timelines import TimelineRows, encode_blocks
from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.models import MatrixFactorizationConfig, TowersConfig
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.data.input_pipeline import Batch, Share, count_streams, training_batches
from trainer.data.negative_sampling import NegativeSampler
from trainer.data.training_events import TrainingEvents
from trainer.distributed.all_to_all import CAPACITIES, Route
from trainer.distributed.collectives import Collectives, LocalCollectives
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import dense_optimizer, row_optimizer
from trainer.distributed.replicas import Replicas, start_replicas
from trainer.models import matrix_factorization, towers
from trainer.models.item_features import ItemFeatures
from trainer.models.objectives import Objective, SampledSoftmaxObjective, Tables, TrainingModel, compute_dtype
from trainer.training.step import TrainingStep, compile_steps

ROWS = 8_192
"""Batch rows per replica, b."""
ITEMS, FEATURES = 1_000_000, 20_000
"""Rows of the item table and of the feature table."""
FEATURES_PER_ITEM = 8
"""Number of features per item, F. The features of an item are its categories, price and properties."""
GPUS_PER_HOST = 8
_TRACED_ITEMS, _TRACED_FEATURES = 10_000, 1_000
"""Rows of the item table and of the feature table in a traced step.

Small tables save memory, and the graph does not depend on their sizes.
"""
_ROUTING_STEPS = 8
_INPUT_ROWS, _EVENTS_PER_VISITOR, _FILES, _BLOCK_ROWS = 800_000, 8, 8, 1_024


def make_config(preset: str, replicas: int, rows: int = ROWS) -> RunConfig:
    """Returns the config of a preset, with a batch size of `rows` per replica."""
    config = PRESETS[preset]
    return replace(config, input=replace(config.input, batch_size=rows * replicas))


def table_columns(config: RunConfig) -> int:
    """Returns the number of columns of an embedding table: those of the vector, and one for the bias."""
    assert isinstance(config.model, MatrixFactorizationConfig | TowersConfig)
    return config.model.dim + 1


class IdCounts(NamedTuple):
    """Numbers of ids that a replica looks up in a table per step."""

    rows: int
    """Rows of the table."""
    own: int
    """Ids of the replica's batch rows: their histories, and their positives unless the positives are candidates."""
    shared: int
    """Ids that every replica looks up: in-batch and sampled candidates."""


def count_ids(config: RunConfig, replicas: int) -> dict[str, IdCounts]:
    """Counts, for each table, the ids that a replica looks up per training step."""
    assert isinstance(config.loss, SampledSoftmaxConfig)
    batch, most = config.input.batch_size, config.loss.max_in_batch_negatives
    own = batch // replicas * (config.history_length + (batch > most))
    shared = min(batch, most) + config.loss.num_negatives
    items = {"item": IdCounts(ITEMS, own, shared)}
    if isinstance(config.model, MatrixFactorizationConfig):
        return items
    return {**items, "feature": IdCounts(FEATURES, own * FEATURES_PER_ITEM, shared * FEATURES_PER_ITEM)}


def draw_ids(counts: IdCounts, replicas: int) -> Iterator[np.ndarray]:
    """Yields the ids that each replica looks up, in one array per replica: `counts.own` ids, then the shared ids."""
    generator = np.random.default_rng(0)

    def draw(count: int) -> np.ndarray:
        return _popular(generator, count, counts.rows)

    shared = draw(counts.shared)
    for _ in range(replicas):
        yield np.concatenate([draw(counts.own), shared])


def _popular(generator: np.random.Generator, count: int, rows: int) -> np.ndarray:
    """Draws ids [count] below `rows`. The most popular id has 0.13% of the draws, as in Retailrocket's log."""
    return np.minimum((generator.pareto(0.8, count) * 600).astype(np.int64), rows - 1)


def count_requests(counts: IdCounts, replicas: int) -> np.ndarray:
    """Returns counts [R, R]; entry [d, o] is the number of distinct rows that replica d requests from replica o."""
    requests = np.zeros((replicas, replicas), np.int64)
    for replica, ids in enumerate(draw_ids(counts, replicas)):
        is_used = np.zeros(counts.rows, bool)
        is_used[ids] = True
        requests[replica] = np.bincount(np.flatnonzero(is_used) % replicas, minlength=replicas)
    return requests


def capacity_of(requests: np.ndarray) -> int:
    """Returns the number of rows, with padding, in each message for one table. `requests`: see `count_requests`."""
    return int(CAPACITIES[np.searchsorted(CAPACITIES, requests.max())])


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


def _alone(count: int) -> Replicas:
    """Returns the first of `count` replicas; `Loopback` simulates the others."""
    if count == 1:
        return start_replicas(1, None)
    return Replicas(_mirrored(("CPU:0",)), count, ("CPU:0",), 0, count, Loopback(count))


def _mirrored(names: Sequence[str]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=tf.distribute.ReductionToOneDevice())


class Operation(NamedTuple):
    """An operation of a traced graph, on one device."""

    kind: str
    """TensorFlow's name of the operation."""
    moved_bytes: int
    """Bytes of its inputs and outputs."""
    flops: int
    """Multiplications and additions of a matrix product; 0 for other operations."""


class Message(NamedTuple):
    """The data that a collective operation of a traced graph sends."""

    kind: str
    """`gather`, `all_to_all` or `reduce`."""
    item_bytes: int
    """For an all-to-all, the bytes of one row; for other kinds, the bytes of the whole input."""


class Traced(NamedTuple):
    """The traced graph of a step or of its routing, on one worker."""

    nodes: int
    """Number of nodes."""
    nodes_per_replica: float
    """Number of nodes, divided by the number of the worker's replicas."""
    cpu_seconds: float
    """CPU time of tracing."""
    operations: list[Operation]
    """The operations of the last replica that run a kernel."""
    messages: list[Message]
    """The collective operations of the last replica, in order."""
    batch_bytes: int
    """Bytes of a machine's part of the batch. Each replica of the machine receives its own rows."""


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
    return _read_graph(body, replicas, received_rows, time.process_time() - begin, batch_bytes=batch_bytes)


def trace_routing(config: RunConfig, replicas: Replicas, received_rows: int) -> Traced:
    """Traces the routing alone, which finds the replica that owns each row. Arguments: see `trace_step`."""
    begin = time.process_time()
    counts = count_ids(config, replicas.count).values()
    specs = [tf.TensorSpec([len(replicas.local), table.own + table.shared], tf.int64) for table in counts]
    graph = _routing(replicas).get_concrete_function(*specs).graph
    return _read_graph(graph, replicas, received_rows, time.process_time() - begin)


def _read_graph(
    graph: tf.Graph, replicas: Replicas, received_rows: int, cpu_seconds: float, batch_bytes: int = 0
) -> Traced:
    nodes = graph.get_operations()
    # the first device also has the operations of the host
    own = [node for node in nodes if _is_on(node, replicas.devices[-1])]
    operations = [
        Operation(node.type, _moved_bytes(node, received_rows, replicas.count), _flops(node))
        for node in own
        if node.type not in _WITHOUT_KERNEL and not _is_constant(node)
    ]
    collectives = sorted(
        (node for node in own if node.type in _COLLECTIVES), key=lambda node: int(node.name.rpartition("_")[2])
    )
    messages = [Message(_COLLECTIVES[node.type], _item_bytes(node)) for node in collectives]
    share = len(nodes) / len(replicas.local)
    return Traced(len(nodes), share, cpu_seconds, operations, messages, batch_bytes)


_WITHOUT_KERNEL = {"Const", "Identity", "IdentityN", "NoOp", "Placeholder", "Shape", "ShapeN", "Reshape", "ExpandDims"}
_WITHOUT_KERNEL |= {"Squeeze", "ReadVariableOp", "StopGradient", "IteratorGetNext", "TensorListSetItem", "Size"}
"""Operations that copy nothing on a GPU, or run on the host."""
_COLLECTIVES = {"CollectiveGatherV2": "gather", "CollectiveAllToAllV2": "all_to_all", "CollectiveReduceV2": "reduce"}


def _is_on(node: tf.Operation, device: str) -> bool:
    return node.device.endswith(device)


def _is_constant(node: tf.Operation) -> bool:
    """Whether TensorFlow knows the values of all outputs of a node before the step runs."""
    return bool(node.outputs) and all(tf.get_static_value(output) is not None for output in node.outputs)


def _moved_bytes(node: tf.Operation, received_rows: int, replicas: int) -> int:
    inputs, outputs = ([_bytes(x, received_rows, replicas) for x in tensors] for tensors in (node.inputs, node.outputs))
    if "Gather" in node.type:  # reads only the requested rows
        return 2 * sum(outputs)
    if node.type == "ResourceSparseApplyAdagradV2":  # reads gradient, row and accumulator; writes the last two
        return 5 * max(inputs)
    return sum(inputs) + sum(outputs)


def _bytes(tensor: tf.Tensor, received_rows: int, replicas: int) -> int:
    if tensor.dtype in (tf.resource, tf.variant) or tensor.shape.rank is None:
        return 0
    dims = tensor.shape.as_list()
    size = tensor.dtype.size * math.prod(dim for dim in dims if dim is not None)
    if None not in dims:
        return int(size)
    by_replica = len(dims) > 1 and dims[0] == replicas  # messages: [R, capacity, …]
    return int(size * (received_rows // replicas if by_replica else received_rows))


def _flops(node: tf.Operation) -> int:
    """Returns the number of floating-point operations of a matrix product; 0 for other nodes and unknown shapes."""
    if node.type not in ("MatMul", "BatchMatMulV2", "Einsum"):
        return 0
    if not all(x.shape.is_fully_defined() for x in node.inputs):
        return 0
    shapes = [x.shape.as_list() for x in node.inputs]
    if node.type == "Einsum":
        labels = node.get_attr("equation").decode().replace(" ", "").partition("->")[0].split(",")
        sizes = [dict(zip(label, shape, strict=True)) for label, shape in zip(labels, shapes, strict=True)]
        return 2 * math.prod({**sizes[0], **sizes[-1]}.values())
    is_transposed = node.get_attr("transpose_a" if node.type == "MatMul" else "adj_x")
    return 2 * math.prod(node.outputs[0].shape.as_list()) * shapes[0][-2 if is_transposed else -1]


def _item_bytes(node: tf.Operation) -> int:
    value = node.inputs[0]
    skipped = 2 if node.type == "CollectiveAllToAllV2" else 0
    return int(value.dtype.size * math.prod(value.shape.as_list()[skipped:]))


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
        item=_popular(generator, _INPUT_ROWS, ITEMS),
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
