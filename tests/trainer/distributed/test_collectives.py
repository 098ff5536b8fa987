"""Tests the order of collective operations in the traced graph of a step, with two workers of two devices each."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import tensorflow as tf

from tests.trainer.tiny_runs import checkerboard_dataset, first_epoch, make_config
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import Batch, Share
from trainer.distributed.collectives import Collectives
from trainer.distributed.replicas import Replicas
from trainer.models.build import build_training_model
from trainer.training.sgd import _make_dense_optimizer
from trainer.training.step import TrainingStep, compile_steps

DEVICES = ("CPU:0", "CPU:1")
LOOKUP = ["all_gather", "all_to_all", "all_to_all"]
"""Collective operations of a lookup: of the counts, the ids and the rows."""
UPDATE = ["all_to_all"]
"""Collective operations of an update, which sends the gradients by the route of the lookup."""
UPDATE_BY_ID = ["all_gather", "all_to_all", "all_to_all"]
"""Collective operations of an update without shared ids, which sends counts, ids and the gradient of each id."""
Nodes = Mapping[str, Any]
"""The nodes of a function, by name."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard_dataset(str(tmp_path_factory.mktemp("dataset")))


def first_worker_of_two() -> Replicas:
    """Returns the first of two workers. Its graph can be traced without the other one, but not run."""
    strategy = tf.distribute.MirroredStrategy(
        list(DEVICES), cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(num_packs=1)
    )
    return Replicas(strategy, 4, DEVICES, 0, 2, Collectives(dict(enumerate(DEVICES)), 4))


def trace_loop_body(config: RunConfig, dataset: Dataset, replicas: Replicas | None = None) -> tuple[Any, Nodes]:
    """Returns the function of one step, the body of the loop of a compiled call."""
    replicas = replicas or first_worker_of_two()
    model = build_training_model(config, dataset, replicas)
    optimizer = _make_dense_optimizer(config.dense_optimizer, model.dense, replicas)
    steps = compile_steps(TrainingStep(model, replicas, optimizer=optimizer, jit_compile=False), replicas)
    batches = first_epoch(config, dataset, Share(replicas.worker, replicas.workers))
    traced = steps.get_concrete_function(iter(batches), tf.constant(0, tf.int64), tf.constant(1))
    graph = traced.graph.as_graph_def()
    (loop,) = [node for node in graph.node if node.op in ("While", "StatelessWhile")]
    (body,) = [
        function for function in graph.library.function if function.signature.name == loop.attr["body"].func.name
    ]
    return body, {node.name: node for node in body.node_def}


def ancestors(nodes: Nodes, references: Iterable[str]) -> set[str]:
    """Returns the names of the nodes that run before a node with these inputs, by data and control edges."""
    found: set[str] = set()
    pending = list(references)
    while pending:
        name = pending.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in found:
            found.add(name)
            pending.extend(nodes[name].input)
    return found


def collectives_by_device(nodes: Nodes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {device: [] for device in DEVICES}
    for name, node in nodes.items():
        if node.op.startswith("Collective"):
            found[node.device[-5:]].append(name)
    return found


def in_order(nodes: Nodes, names: list[str]) -> Iterator[str]:
    """Returns the names in the order of execution; each node must be an ancestor of the next one."""
    before = {name: ancestors(nodes, nodes[name].input) for name in names}
    ordered = sorted(names, key=lambda name: len(before[name].intersection(names)))
    for number, name in enumerate(ordered):
        assert before[name].intersection(names) == set(ordered[:number])
        yield re.sub(r".*/", "", name)


@pytest.mark.parametrize(
    ("preset", "settings", "expected"),
    [
        # candidates and sums of the global batch, a lookup and an update of each table, the loss with dense gradients
        ("notebook-nn", [], [*LOOKUP * 2, "all_gather", *UPDATE_BY_ID * 2, "all_reduce"]),
        ("mf", [], ["all_gather", *LOOKUP, *UPDATE, "all_reduce"]),
        ("mf", ["model.history_length=0"], ["all_gather", *LOOKUP * 2, *UPDATE, *UPDATE_BY_ID, "all_reduce"]),
        ("nn", [], ["all_gather", *LOOKUP * 3, *UPDATE * 2, *UPDATE_BY_ID, "all_reduce"]),
    ],
)
def test_all_collective_operations_of_a_step_run_in_one_order_on_all_devices(
    preset: str, settings: list[str], expected: list[str], dataset: Dataset
) -> None:
    _, nodes = trace_loop_body(make_config(preset, *settings), dataset)
    first, second = (list(in_order(nodes, names)) for names in collectives_by_device(nodes).values())
    # names end in the operation's key, so the same names are the same operations
    assert first == second
    assert [name.rpartition("_")[0] for name in first] == expected


def test_a_device_starts_its_operations_without_waiting_for_another_device(dataset: Dataset) -> None:
    _, nodes = trace_loop_body(make_config("nn"), dataset)
    first, second = collectives_by_device(nodes).values()
    for own, others in ((first, second), (second, first)):
        for name in own:
            assert not ancestors(nodes, nodes[name].input).intersection(others)


def test_a_device_receives_only_its_own_rows_of_the_batch(dataset: Dataset) -> None:
    _, nodes = trace_loop_body(make_config("nn"), dataset)
    (batch,) = [name for name, node in nodes.items() if node.op == "IteratorGetNext"]
    uses = [node for node in nodes.values() if any(source.startswith(f"{batch}:") for source in node.input)]
    columns = len(Batch._fields)
    assert [(node.op, node.device[-5:]) for node in uses if node.op != "Identity"] == (
        [("StridedSlice", "CPU:0")] * columns * len(DEVICES)
    )


@pytest.mark.parametrize("preset", ["mf", "nn"])
def test_a_step_starts_after_all_collective_operations_of_the_step_before(preset: str, dataset: Dataset) -> None:
    body, nodes = trace_loop_body(make_config(preset), dataset)
    expected = {name for names in collectives_by_device(nodes).values() for name in names}
    results = [body.ret[output.name].partition(":")[0] for output in body.signature.output_arg]
    computed = [name for name in results if name in nodes]  # the others pass an argument on
    assert len(computed) == 4  # TensorFlow's own counter and limit, the number of the step, the losses
    for name in computed:
        assert expected <= ancestors(nodes, [name])
