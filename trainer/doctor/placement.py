"""Checks that a training step runs on the GPU: reads the graph after TensorFlow has placed and partitioned it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tensorflow.python.eager import context

from trainer.doctor.bench import Bench, make_config, start_training
from trainer.doctor.findings import Result, State

_ON_ANY_DEVICE = {
    *("_Arg", "_DeviceArg", "_Retval", "_DeviceRetval", "_Send", "_Recv", "_HostSend", "_HostRecv"),
    *("Const", "HostConst", "Identity", "IdentityN", "NoOp", "IteratorGetNext"),
    *("Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch"),
}
"""Operations that feed the step, move its values between devices, or control the loop over steps."""
_SHOWN = 3
"""Number of misplaced operations that a finding lists."""


def check_kernels(bench: Bench, preset: str) -> Result:
    """Runs a training step; TensorFlow must have placed its operations on the device."""
    replicas = bench.accelerator
    with start_training(bench, make_config(preset), replicas) as trainer:
        nodes = record_nodes(lambda: trainer.advance(0, 1))
    return judge_placement(nodes, replicas.devices[0])


def record_nodes(call: Callable[[], Any]) -> list[Any]:
    """Calls a function; returns the placed nodes of the largest graph that ran, with all inner functions inlined."""
    graphs = [[node for graph in function.partition_graphs for node in graph.node] for function in record_graphs(call)]
    return max(graphs, key=len, default=[])


def record_graphs(call: Callable[[], Any]) -> Sequence[Any]:
    """Calls a function; returns the graphs of the TensorFlow functions that ran for the first time.

    These are the `RunMetadata.FunctionGraphs` of tensorflow/core/protobuf/config.proto.
    """
    context.enable_run_metadata()
    try:
        context.export_run_metadata()  # drops graphs that functions of earlier recordings added later
        call()
    finally:
        metadata = context.export_run_metadata()
        context.disable_run_metadata()
    return metadata.function_graphs


def judge_placement(nodes: Sequence[Any], device: str) -> Result:
    """Returns a failed result if there are no nodes, or an operation of the step is not on `device`, such as GPU:0."""
    if not nodes:
        return Result("TensorFlow reported no graph", State.FAILED, "use the TensorFlow of constraints.txt")
    elsewhere = list(_misplaced(nodes, device))
    if elsewhere:
        others = f" and {len(elsewhere) - _SHOWN} others" if len(elsewhere) > _SHOWN else ""
        return Result(
            f"{len(elsewhere)} of {len(nodes)} operations are not on {device}: {', '.join(elsewhere[:_SHOWN])}{others}",
            State.FAILED,
            "use the TensorFlow of constraints.txt; if it is installed, report these operations as a bug of Cartwheel",
        )
    on_device = sum(node.device.endswith(device) for node in nodes)
    return Result(
        f"{on_device} operations on {device}, and {len(nodes) - on_device} elsewhere, which feed and control the loop"
    )


def _misplaced(nodes: Sequence[Any], device: str) -> Iterator[str]:
    for node in nodes:
        if node.op not in _ON_ANY_DEVICE and not node.device.endswith(device):
            name, found = node.name.rpartition("/")[2], node.device.rpartition("device:")[2] or "no device"
            yield f"{node.op} ({name}, on {found})"
