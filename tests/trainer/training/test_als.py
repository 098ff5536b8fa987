"""Compares the solver with dense normal equations; tests of `train` cover several replicas."""

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from tests.trainer.distributed.gpu_kernels import not_on_a_gpu
from trainer.config.optimizers import AlternatingConfig
from trainer.distributed import embeddings
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.replicas import start_replicas
from trainer.training.als import AlternatingSolver

VISITORS, ITEMS, DIM = 9, 7, 3


def make_tables(generator: np.random.Generator) -> dict[str, ShardedTable]:
    """Makes tables with one row of unknown ids after the vocabulary."""
    replicas = start_replicas(1, None)
    tables = {}
    for name, rows in (("visitor", VISITORS + 1), ("item", ITEMS + 1)):
        tables[name] = ShardedTable(rows=rows, dim=DIM, replicas=replicas, optimizer=None)
        tables[name].values.assign(0, generator.normal(size=(rows, DIM)).astype(np.float32))
    return tables


def values_of(table: ShardedTable, rows: int) -> np.ndarray:
    return np.concatenate(list(table.values.chunks(0)))[:rows].astype(np.float64)


def solve_densely(matrix: np.ndarray, others: np.ndarray, config: AlternatingConfig) -> np.ndarray:
    """Solves each row of one side by its normal equations over all vectors of the other side."""
    solved = []
    for weights in matrix:
        confidence = weights + config.unobserved_weight
        l2 = config.l2 * (np.count_nonzero(weights) + config.unobserved_weight * len(others)) ** config.l2_power
        system = others.T @ (confidence[:, None] * others) + l2 * np.eye(DIM)
        solved.append(np.linalg.solve(system, others.T @ (confidence * (weights > 0))))
    return np.array(solved)


def objective(matrix: np.ndarray, visitors: np.ndarray, items: np.ndarray, config: AlternatingConfig) -> float:
    total = ((matrix + config.unobserved_weight) * ((matrix > 0) - visitors @ items.T) ** 2).sum()
    for weights, vectors in ((matrix, visitors), (matrix.T, items)):
        size = np.count_nonzero(weights, axis=1) + config.unobserved_weight * weights.shape[1]
        total += (config.l2 * size**config.l2_power * (vectors**2).sum(axis=1)).sum()
    return float(total)


@pytest.mark.parametrize(("l2_power", "chunk_bytes"), [(0.0, 1 << 20), (1.0, 4 * DIM * 4)])
def test_sweeps_match_dense_normal_equations_and_return_their_objective(
    l2_power: float, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", chunk_bytes)
    generator = np.random.default_rng(1)
    matrix = np.where(generator.random((VISITORS, ITEMS)) < 0.5, generator.integers(1, 4, (VISITORS, ITEMS)), 0)
    matrix[4] = 0  # a visitor without events
    config = AlternatingConfig(unobserved_weight=0.2, l2=0.05, l2_power=l2_power, batch_entries=8)
    tables = make_tables(generator)
    items = values_of(tables["item"], ITEMS)
    solver = AlternatingSolver(config, sp.csr_matrix(matrix, dtype=np.float32), tables, start_replicas(1, None))
    losses = []
    for _ in range(3):
        visitors = solve_densely(matrix, items, config)
        items = solve_densely(matrix.T, visitors, config)
        losses.append(solver.sweep())
        # the solver rotates the vectors, which does not change the scores
        scores = values_of(tables["visitor"], VISITORS) @ values_of(tables["item"], ITEMS).T
        np.testing.assert_allclose(scores, visitors @ items.T, atol=1e-4)
        zero_loss = ((matrix + 0.2) * (matrix > 0)).sum()
        assert losses[-1] == pytest.approx(objective(matrix, visitors, items, config) / zero_loss, rel=1e-4)
    assert losses == sorted(losses, reverse=True)
    np.testing.assert_array_equal(values_of(tables["visitor"], VISITORS)[4], [0, 0, 0])


def test_a_sweep_reads_shards_in_chunks_only() -> None:
    """A sweep that reads whole variables copies them, and needs three times the memory of a shard."""
    matrix = sp.csr_matrix(np.eye(VISITORS, ITEMS, dtype=np.float32))
    tables = make_tables(np.random.default_rng(1))
    solver = AlternatingSolver(AlternatingConfig(batch_entries=8), matrix, tables, start_replicas(1, None))
    with tf.init_scope():
        graph = solver._visitors._rotate.get_concrete_function().graph.as_graph_def()
    operations = {node.op for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes}
    assert {"ResourceGather", "ResourceScatterUpdate"} <= operations
    assert not operations & {"ReadVariableOp", "AssignVariableOp"}


def test_a_sweep_runs_on_gpus() -> None:
    """All operations have GPU kernels, and large tensors stay on the GPU."""
    matrix = sp.csr_matrix(np.eye(VISITORS, ITEMS, dtype=np.float32))
    solver = AlternatingSolver(
        AlternatingConfig(), matrix, make_tables(np.random.default_rng(1)), start_replicas(1, None)
    )
    side = solver._visitors
    for compiled in (side._rotate, *side._solve.values()):
        with tf.init_scope():
            graph = compiled.get_concrete_function().graph
        functions = [function_def_to_graph(function) for function in graph.as_graph_def().library.function]
        assert [found for part in (graph, *functions) for found in not_on_a_gpu(part)] == []
