"""Finds operations in graphs that make a function fail if several threads call it at the same time."""

from collections.abc import Callable
from typing import Any

from trainer.doctor.placement import record_graphs


def large_sums(call: Callable[[], Any]) -> list[str]:
    """Calls a function; returns the sums of three or more tensors in the TensorFlow functions that ran the first time.

    Sums are those after TensorFlow's optimizations; see `models.sums` for their danger.
    """
    found = []
    for recorded in record_graphs(call):
        graph = recorded.post_optimization_graph
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        found += [node.name for node in nodes if node.op in ("AddN", "AccumulateNV2") and len(node.input) > 2]
    return found
