"""Reads the operations and messages of a traced training step from its graph."""

import math
from typing import NamedTuple

import tensorflow as tf

from trainer.distributed.replicas import Replicas


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


def read_graph(
    graph: tf.Graph, replicas: Replicas, received_rows: int, cpu_seconds: float, batch_bytes: int = 0
) -> Traced:
    """Reads the operations and messages of the last replica.

    Args:
      graph: the body of a traced step, or its traced routing.
      replicas: the replicas of one worker, for which the graph was traced.
      received_rows: size to assume for a dimension of unknown size.
      cpu_seconds: CPU time of tracing.
      batch_bytes: bytes of a machine's part of the batch; 0: the graph reads no batch.
    """
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
