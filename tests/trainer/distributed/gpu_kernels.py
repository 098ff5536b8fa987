"""Finds the operations of a graph that do not run on a GPU, by TensorFlow's kernel registry. Needs no GPU."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import kernels

SMALL = 256
"""Number of elements that a tensor in host memory may have: enough for shapes, keys and scalars."""


def not_on_a_gpu(graph: tf.Graph) -> Iterator[str]:
    """Names the operations without a GPU kernel, and those with large tensors in host memory.

    A tensor of unknown size counts as large. Constants, and operations on constants alone, are not listed.
    """
    for operation in graph.get_operations():
        node = operation.node_def
        if not _kernels(node.op) or node.op in ("Const", "Placeholder"):
            continue
        found = [kernel for kernel in _kernels(node.op) if _fits(kernel, node)]
        on_gpu = [kernel for device in ("GPU", "DEFAULT") for kernel in found if kernel.device_type == device]
        if not on_gpu:
            yield f"{node.op} {operation.name}: no GPU kernel"
        elif large := [tensor.name for tensor in _in_host_memory(operation, on_gpu[0]) if _is_large(tensor)]:
            yield f"{node.op} {operation.name}: {large} in host memory"


@cache
def _kernels(name: str) -> list[Any]:
    return list(kernels.get_registered_kernels_for_op(name).kernel)


def _fits(kernel: Any, node: Any) -> bool:
    return all(_allows(constraint.allowed_values.list, node.attr[constraint.name]) for constraint in kernel.constraint)


def _allows(allowed: Any, value: Any) -> bool:
    """Whether a constraint of a kernel, on a type or a text, allows an attribute's value."""
    return value.s in allowed.s if allowed.s else value.type in allowed.type


def _in_host_memory(operation: tf.Operation, kernel: Any) -> Iterator[tf.Tensor]:
    definition = operation.op_def
    for arguments, tensors in ((definition.input_arg, operation.inputs), (definition.output_arg, operation.outputs)):
        left = list(tensors)
        for argument in arguments:
            if argument.type_list_attr:
                count = len(operation.get_attr(argument.type_list_attr))
            else:
                count = operation.get_attr(argument.number_attr) if argument.number_attr else 1
            own, left = left[:count], left[count:]
            if argument.name in kernel.host_memory_arg:
                yield from own


def _is_large(tensor: tf.Tensor) -> bool:
    size = tensor.shape.num_elements()
    is_small = size is not None and size <= SMALL
    return tensor.dtype != tf.resource and not is_small and tf.get_static_value(tensor) is None
