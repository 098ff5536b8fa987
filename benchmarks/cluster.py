"""Projects how a training step of `mf` and `nn` scales to 64 GPUs. Needs no GPU.

Traces the step for 1 to 64 replicas, and measures the CPU time of routing the ids and of the input pipeline. Then
computes the time of a step on 8 GPUs and on 8 machines with 8 GPUs each, from the traced operations and messages and
from the rates in HARDWARE. Real steps are slower, because HARDWARE has peak rates. The projection shows the bottleneck
of a step, and how the costs grow with the number of replicas.

usage: python -m benchmarks.cluster
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from benchmarks.cluster_graph import Message, Operation, Traced
from benchmarks.cluster_input import measure_input
from benchmarks.cluster_requests import (
    FEATURES,
    GPUS_PER_HOST,
    ITEMS,
    ROWS,
    capacity_of,
    count_ids,
    count_requests,
    make_config,
    table_columns,
)
from benchmarks.cluster_step import first_worker, measure_routing, routing_replicas, trace_routing, trace_step
from benchmarks.harness import Load, report
from k8s.sizing import ModelSize, gpu_memory, train_memory
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.distributed.replicas import start_replicas

LARGE_ROWS = 32_768
"""Batch rows per replica of a large batch, for the bytes of its messages."""


class Figure(NamedTuple):
    """A property of the hardware: a rate, a latency or a number of threads."""

    value: float
    """The value, in bytes/s, operations/s, seconds or threads."""
    text: str
    """The value and its unit, for readers."""
    source: str
    """Where the value comes from."""


H100 = "NVIDIA H100 Tensor Core GPU datasheet, H100 SXM"
LAUNCHES = "Getting Started with CUDA Graphs, NVIDIA Technical Blog (kernels of 2.9 µs on a V100)"
HARDWARE = {
    "GPU memory": Figure(3.35e12, "3.35 TB/s", H100),
    "matrix products": Figure(
        494.5e12, "494.5 TFLOP/s (TF32, TensorFlow's default)", f"{H100}: 989 if sparse, half if dense"
    ),
    "NVLink": Figure(450e9, "450 GB/s each way", f"{H100}: 900 GB/s, both ways"),
    "PCIe": Figure(64e9, "64 GB/s each way", f"{H100}: PCIe Gen5, 128 GB/s, both ways"),
    "100 Gb/s": Figure(12.5e9, "12.5 GB/s each way", "one card per machine: 100 Gb/s / 8 bits"),
    "400 Gb/s": Figure(50e9, "50 GB/s each way", "one card per GPU, as in NVIDIA DGX H100: 400 Gb/s / 8 bits"),
    "kernel launch": Figure(3.8e-6, "3.8 µs", f"{LAUNCHES}: launches that overlap"),
    "launch and wait": Figure(9.6e-6, "9.6 µs", f"{LAUNCHES}: the host waits for each"),
    "NVLink latency": Figure(30e-6, "30 µs", "assumed, as for the larger table below"),
    "network latency": Figure(100e-6, "100 µs", "assumed, as for the larger table below"),
    "input threads": Figure(8, "8", "the most that the input pipeline uses; a machine needs as many cores for it"),
}
"""Peak rates of GPUs, machines and networks, and assumed latencies."""

REPLICAS = (1, 2, 4, 8, 16, 64)
VISITORS = 10_000_000
WAITS = ("Unique", "Where", "UniqueV2")
"""Operations with an output size that depends on the input values. The host waits for this size."""


class Layout(NamedTuple):
    """A cluster: machines with GPUs, and the network between the machines."""

    hosts: int
    gpus: int
    """GPUs per machine."""
    network: str | None = None
    """Key of the network's rate in HARDWARE; None: a single machine."""
    cards: int = 1
    """Network cards per machine."""

    @property
    def replicas(self) -> int:
        """The number of replicas on all machines, R."""
        return self.hosts * self.gpus


LAYOUTS = {
    "1 × 8, NVLink": Layout(1, 8),
    "8 × 8, 100 Gb/s per machine": Layout(8, 8, "100 Gb/s"),
    "8 × 8, 400 Gb/s per GPU": Layout(8, 8, "400 Gb/s", cards=8),
}


class Compute(NamedTuple):
    """Seconds of GPU time, summed by bottleneck.

    An operation takes as long as its slowest part: memory transfers, matrix products or the launch. Its time is added
    to the field of that part.
    """

    memory: float = 0.0
    products: float = 0.0
    launches: float = 0.0

    @property
    def total(self) -> float:
        return self.memory + self.products + self.launches


def compute_seconds(operations: Sequence[Operation]) -> Compute:
    """Returns the GPU time of `operations`, run in sequence."""
    seconds = dict.fromkeys(Compute._fields, 0.0)
    for operation in operations:
        limits = {
            "launches": HARDWARE["launch and wait" if operation.kind in WAITS else "kernel launch"].value,
            "memory": operation.moved_bytes / HARDWARE["GPU memory"].value,
            "products": operation.flops / HARDWARE["matrix products"].value,
        }
        slowest = max(limits, key=limits.__getitem__)
        seconds[slowest] += limits[slowest]
    return Compute(**seconds)


def row_bytes(messages: Sequence[Message], tables: int) -> list[int]:
    """Returns, for each table, the bytes that a step sends per requested row.

    Args:
      messages: those of all lookups (a gather and two all-to-alls each), then those of all updates (one all-to-all).
      tables: number of tables. A step looks up and updates each table once.

    Raises:
      ValueError: a message is missing or unexpected.
    """
    found = [0] * tables
    sent = [message for message in messages if message.kind == "all_to_all"]
    if len(sent) != 3 * tables:
        kinds = [message.kind for message in messages]
        raise ValueError(f"expected three all-to-alls for each of {tables} tables, found {kinds}")
    for number, message in enumerate(sent):
        found[number // 2 if number < 2 * tables else number - 2 * tables] += message.item_bytes
    return found


class Traffic(NamedTuple):
    """Bytes that a GPU sends in a step."""

    near: float
    """Bytes sent to GPUs of the same machine."""
    far: float
    """Bytes that the GPU's network card sends to other machines, including bytes of other GPUs that use the card."""


def count_traffic(messages: Sequence[Message], capacities: Sequence[int], layout: Layout) -> Traffic:
    """Counts the bytes that a GPU sends in a step.

    All-gathers and reductions use rings, in which only one GPU of a machine sends to another machine. `capacities` has,
    for each table, the number of rows in a message, see `capacity_of`.
    """
    replicas, near, far = layout.replicas, 0.0, 0.0
    sharing = layout.gpus / layout.cards
    for size, capacity in zip(row_bytes(messages, len(capacities)), capacities, strict=True):
        near += (layout.gpus - 1) * capacity * size
        far += (replicas - layout.gpus) * capacity * size * sharing
    for message in messages:
        if message.kind == "all_to_all":
            continue
        parts = replicas - 1 if message.kind == "gather" else 2 * (replicas - 1) / replicas
        near += parts * message.item_bytes
        far += parts * message.item_bytes / layout.cards if layout.network else 0
    return Traffic(near, far)


def least_bytes(requests: np.ndarray, row_size: int) -> float:
    """Returns the minimum number of bytes that a replica sends in a step, averaged over the replicas.

    A row is sent once to each other replica that uses it, and each of these sends back one gradient.

    Args:
      requests: [R, R], the requests for the rows of a table, from `count_requests`.
      row_size: bytes of a row.
    """
    return float(2 * (requests.sum() - requests.trace()) * row_size / len(requests))


def link_seconds(messages: Sequence[Message], traffic: Traffic, layout: Layout) -> float:
    """Returns the seconds that a GPU communicates in a step: the latencies plus the transfer time.

    Transfers within a machine and between machines overlap, so only the longer of the two is added.
    """
    latency = HARDWARE["network latency" if layout.network else "NVLink latency"].value
    far = traffic.far / HARDWARE[layout.network].value if layout.network else 0
    return len(messages) * latency + max(traffic.near / HARDWARE["NVLink"].value, far)


def host_gib(preset: str, replicas: int) -> dict[str, float]:
    """Returns the GiB of memory that training needs, per machine (`host`) and per GPU (`gpu`).

    docs/operations.md explains the memory of a machine.
    """
    size = ModelSize(
        table_rows=ITEMS if preset == "mf" else ITEMS + FEATURES,
        ranked_rows=VISITORS + ITEMS if preset == "mf" else ITEMS,
        dim=table_columns(PRESETS[preset]) - 1,
    )
    hosts, gpus = -(-replicas // GPUS_PER_HOST), min(replicas, GPUS_PER_HOST)
    return {"host": train_memory(size, gpus=gpus, nodes=hosts), "gpu": gpu_memory(size, replicas=replicas)}


def project(
    step: Traced, routing: Traced, capacities: Sequence[int], layout: Layout, *, input_cpu_ms: float
) -> dict[str, Any]:
    """Projects the milliseconds of a step on GPUs, and names its bottleneck.

    The GPU works while the host reads the next batch. The slower of the two determines the time of a step.

    Args:
      step: the traced step, including its routing.
      routing: the traced routing alone.
      capacities: for each table, the number of rows in a message.
      layout: machines and their network.
      input_cpu_ms: CPU milliseconds that a machine needs to read its rows of a global batch, see `measure_input`.

    Returns:
      `ms`: milliseconds of each part of the step.
      `gpu_ms`: milliseconds of all parts on the GPU.
      `step_ms`, `examples_per_second`: time of a step, and the resulting speed.
      `limit`: the bottleneck: "host input", or the longest part on the GPU.
    """
    whole, routes = compute_seconds(step.operations), compute_seconds(routing.operations)
    rest = Compute(*(max(0.0, of_step - of_routes) for of_step, of_routes in zip(whole, routes, strict=True)))
    parts = {
        "memory bandwidth": rest.memory,
        "matrix products": rest.products,
        "kernel launches": rest.launches,
        "routing": routes.total,
        "links": link_seconds(step.messages, count_traffic(step.messages, capacities, layout), layout),
        "copy of the batch": step.batch_bytes / layout.gpus / HARDWARE["PCIe"].value,
    }
    device = sum(parts.values())
    host = input_cpu_ms / 1000 / HARDWARE["input threads"].value
    seconds = max(device, host)
    limit = "host input" if host >= device else max(parts, key=parts.__getitem__)
    return {
        "ms": {name: round(1000 * part, 2) for name, part in {**parts, "host input": host}.items()},
        "gpu_ms": round(1000 * device, 2),
        "step_ms": round(1000 * seconds, 2),
        "examples_per_second": round(ROWS * layout.replicas / seconds),
        "limit": limit,
    }


def measure(preset: str, replicas: int, input_cpu_ms: float) -> dict[str, Any]:
    """Traces a step of `preset`, and projects how long it takes on each of the `LAYOUTS` with `replicas` GPUs.

    `input_cpu_ms`: CPU milliseconds that a machine needs to read its rows of a global batch, see `measure_input`.
    """
    config = make_config(preset, replicas)
    requests = requests_of(config, replicas)
    capacities = [capacity_of(table) for table in requests] if replicas > 1 else []
    received = replicas * max(capacities) if capacities else max(int(table.sum()) for table in requests)
    worker = first_worker(replicas)
    step, routing = (trace(config, worker, received) for trace in (trace_step, trace_routing))
    layout = Layout(-(-replicas // GPUS_PER_HOST), min(replicas, GPUS_PER_HOST), "100 Gb/s" if replicas > 8 else None)
    traffic = count_traffic(step.messages, capacities, layout)
    routing_ms = {way: round(measure_routing(config, run), 2) for way, run in routing_replicas(replicas).items()}
    return {
        "nodes": step.nodes,
        "nodes_per_replica": round(step.nodes_per_replica, 1),
        "trace_cpu_seconds": round(step.cpu_seconds, 2),
        "kernels": len(step.operations),
        "routing_kernels": len(routing.operations),
        "routing_cpu_ms": routing_ms,
        "input_cpu_ms": round(input_cpu_ms, 2),
        "batch_mb": round(step.batch_bytes / 1e6, 2),
        "sent_mb": {"same_machine": round(traffic.near / 1e6, 3), "network_card": round(traffic.far / 1e6, 3)},
        "sent_to_least": sent_to_least(step.messages, requests, config),
        "sent_to_least_in_large_batches": sent_to_least(
            step.messages, requests_of(make_config(preset, replicas, LARGE_ROWS), replicas), config
        ),
        "gib": {name: round(size, 2) for name, size in host_gib(preset, replicas).items()},
        "projected": {
            name: project(step, routing, capacities, case, input_cpu_ms=input_cpu_ms)
            for name, case in LAYOUTS.items()
            if case.replicas == replicas
        },
    }


def requests_of(config: RunConfig, replicas: int) -> list[np.ndarray]:
    """Counts the rows that replicas request from each other in a step, for each table; see `count_requests`."""
    return [count_requests(counts, replicas) for counts in count_ids(config, replicas).values()]


def sent_to_least(messages: Sequence[Message], requests: Sequence[np.ndarray], config: RunConfig) -> float | None:
    """Returns the bytes that a replica sends, divided by the minimum; None: there is only one replica.

    Args:
      messages: the collective operations of a step.
      requests: for each table, the rows that replicas request from each other, see `count_requests`.
      config: determines the size of a row.
    """
    others = len(requests[0]) - 1
    if not others:
        return None
    sizes, capacities = row_bytes(messages, len(requests)), map(capacity_of, requests)
    sent = others * sum(size * capacity for size, capacity in zip(sizes, capacities, strict=True))
    least = sum(least_bytes(table, table_columns(config) * 4) for table in requests)
    return round(sent / least, 3)


def print_table(figures: Mapping[str, Any]) -> None:
    """Prints the main measurements and projected times for each number of replicas."""
    names = ["nodes", "nodes_per_replica", "trace_cpu_seconds", "routing_cpu_ms", "input_cpu_ms"]
    names += ["sent_to_least", "sent_to_least_in_large_batches"]
    for preset, by_replicas in figures.items():
        print("preset", "R", *names, sep="\t")
        for replicas, found in by_replicas.items():
            print(preset, replicas, *(found[name] for name in names), sep="\t")
        for found in by_replicas.values():
            for layout, projected in found["projected"].items():
                print(preset, layout, projected, sep="\t")


def main() -> None:
    """Measures the presets `mf` and `nn`, and records the figures."""
    load = Load()
    start_replicas(GPUS_PER_HOST, None)  # before TensorFlow starts with fewer logical devices
    figures: dict[str, Any] = {}
    for preset in ("mf", "nn"):
        inputs = measure_input(preset, REPLICAS)
        figures[preset] = {str(count): measure(preset, count, inputs[count]) for count in REPLICAS}
    print_table(figures)
    hardware = {name: [figure.text, figure.source] for name, figure in HARDWARE.items()}
    report(
        "cluster",
        {**figures, "hardware": hardware, "rows": ROWS, "large_rows": LARGE_ROWS},
        quiet=True,
        load=load.share(),
    )


if __name__ == "__main__":
    main()
