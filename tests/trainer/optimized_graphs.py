"""Finds operations in graphs that make a function fail if several threads call it at the same time."""

from collections.abc import Iterator
from contextlib import contextmanager

from tensorflow.python.eager import context  # tf.summary.trace_on writes the same records to a file


@contextmanager
def record_large_sums() -> Iterator[list[str]]:
    """Yields a list, which at the end has the sums of three or more tensors in all functions called for the first time.

    Sums are those after TensorFlow's optimizations; see `models.sums` for their danger.
    """
    found: list[str] = []
    context.enable_run_metadata()
    try:
        yield found
        for recorded in context.export_run_metadata().function_graphs:
            graph = recorded.post_optimization_graph
            nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
            found += [node.name for node in nodes if node.op in ("AddN", "AccumulateNV2") and len(node.input) > 2]
    finally:
        context.disable_run_metadata()
