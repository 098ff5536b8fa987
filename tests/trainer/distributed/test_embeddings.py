from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.optimizers import AdagradConfig
from trainer.distributed import embeddings
from trainer.distributed.collectives import Collectives
from trainer.distributed.embeddings import RowShards, ShardedTable, initialize
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.random_rows import normal_rows
from trainer.distributed.replicas import Replicas, start_replicas

# plain gradient descent with a rate of 1: the accumulator is huge compared with gradients, the rate offsets its root
PLAIN = AdagradConfig(learning_rate=1e4, initial_accumulator=1e8)


def start(count: int, operations: str) -> Replicas:
    """Starts replicas on logical CPUs, which copy messages, or use collective operations like GPUs and workers."""
    replicas = start_replicas(count, None)
    if operations == "copies" or count == 1:
        return replicas
    return replace(replicas, collectives=Collectives(dict(enumerate(replicas.devices)), count))


def make_table(replicas: Replicas, rows: int = 10, dim: int = 2) -> ShardedTable:
    return ShardedTable(rows=rows, dim=dim, replicas=replicas, optimizer=row_optimizer(PLAIN))


def whole(shards: RowShards) -> np.ndarray:
    values = np.empty((shards.rows, shards.dim), np.float32)
    for replica, shard in shards.shards.items():
        values[replica :: len(shards.shards)] = shard.numpy()
    return values


@pytest.mark.parametrize("count", [1, 2, 4])
def test_rows_are_assigned_and_read_in_chunks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 2 * 2 * 4)  # two rows
    table = make_table(start_replicas(count, None))
    expected = np.arange(20, dtype=np.float32).reshape(10, 2)
    for start, stop in [(0, 3), (3, 4), (4, 10)]:
        table.values.assign(start, expected[start:stop])
    np.testing.assert_array_equal(whole(table.values), expected)
    for replica in range(count):
        np.testing.assert_array_equal(np.concatenate(list(table.values.chunks(replica))), expected[replica::count])


@pytest.mark.parametrize(("count", "held"), [(1, [10]), (2, [5, 5]), (4, [3, 3, 2, 2])])
def test_a_replica_stores_its_share_of_rows_and_slots_on_its_device(count: int, held: list[int]) -> None:
    table = make_table(start_replicas(count, None), rows=10, dim=2)
    for shards in (table.values, table.slots["accumulator"]):
        assert [shards.shards[replica].shape.as_list() for replica in range(count)] == [[rows, 2] for rows in held]
        assert [shards.shards[replica].device[-6:] for replica in range(count)] == [f":CPU:{k}" for k in range(count)]


DIVIDED, SHARED = [9, 0, 3, 3, 9, 1, 2, 9], [3, 7, 7]


def own_ids(replica: int, count: int) -> tf.Tensor:
    """A replica's part of DIVIDED."""
    size = 8 // count
    return tf.constant(DIVIDED[replica * size : (replica + 1) * size], tf.int64)


@pytest.mark.parametrize("operations", ["copies", "collectives"])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("shared", [None, SHARED])
def test_a_lookup_returns_the_row_of_each_id(count: int, operations: str, shared: list[int] | None) -> None:
    replicas = start(count, operations)
    table = make_table(replicas)
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    table.values.assign(0, values)
    shared_ids = None if shared is None else tf.constant(shared, tf.int64)

    def on_replica(replica: int) -> tf.Tensor:
        return replicas.all_gather(table.lookup(replica, own_ids(replica, count), shared_ids).vectors())

    found = tf.function(lambda: replicas.run(on_replica))().numpy()
    size = 8 // count
    expected = [[*DIVIDED[k * size : (k + 1) * size], *(shared or [])] for k in range(count)]
    np.testing.assert_array_equal(found, values[np.concatenate(expected)])


@pytest.mark.parametrize("operations", ["copies", "collectives"])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("shared", [None, SHARED])
def test_an_update_sums_the_gradients_of_a_row(count: int, operations: str, shared: list[int] | None) -> None:
    replicas = start(count, operations)
    table = make_table(replicas, dim=1)
    shared_ids = None if shared is None else tf.constant(shared, tf.int64)
    gradients = tf.constant([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0], [64.0], [128.0]])
    of_shared = tf.constant([[256.0], [16.0], [32.0]]) / count  # each replica has its share

    def on_replica(replica: int) -> tf.Tensor:
        lookup = table.lookup(replica, own_ids(replica, count), shared_ids)
        size = 8 // count
        own = gradients[replica * size : (replica + 1) * size]
        table.update(
            replica, lookup, own if shared_ids is None else tf.concat([own, of_shared], axis=0), tf.constant(0)
        )
        return tf.zeros([])

    tf.function(lambda: replicas.run(on_replica))()
    # row 9: 1 + 16 + 128; row 3: 4 + 8, plus 256 if shared; row 7: 16 + 32
    row_3, row_7 = (12, 0) if shared is None else (268, 48)
    expected = -np.array([[2], [32], [64], [row_3], [0], [0], [0], [row_7], [0], [145]], np.float32)
    np.testing.assert_allclose(whole(table.values), expected, rtol=1e-3)
    np.testing.assert_array_equal(whole(table.slots["accumulator"])[4:7], np.full((3, 1), 1e8))


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("shared", [None, SHARED])
def test_a_row_is_sent_once_to_each_replica_that_needs_it(count: int, shared: list[int] | None) -> None:
    replicas = start_replicas(count, None)
    table = make_table(replicas)
    shared_ids = None if shared is None else tf.constant(shared, tf.int64)

    def on_replica(replica: int) -> tf.Tensor:
        return table.lookup(replica, own_ids(replica, count), shared_ids).route.messages.counts

    sent = tf.function(lambda: replicas.run(on_replica))().numpy()
    size = 8 // count
    needed = [{*DIVIDED[k * size : (k + 1) * size], *(shared or [])} for k in range(count)]
    np.testing.assert_array_equal(
        sent, [[sum(row % count == owner for row in rows) for owner in range(count)] for rows in needed]
    )


@pytest.mark.parametrize("operations", ["copies", "collectives"])
def test_replicas_without_rows_of_a_small_table_serve_none(operations: str) -> None:
    replicas = start(4, operations)
    table = make_table(replicas, rows=2, dim=1)

    def on_replica(replica: int) -> tf.Tensor:
        lookup = table.lookup(replica, tf.constant([min(replica, 1)], tf.int64))
        table.update(replica, lookup, tf.ones([1, 1]), tf.constant(0))
        return replicas.all_gather(lookup.vectors())

    np.testing.assert_array_equal(tf.function(lambda: replicas.run(on_replica))(), np.zeros((4, 1)))
    np.testing.assert_allclose(table.values.shards[0], [[-1]], rtol=1e-3)
    np.testing.assert_allclose(table.values.shards[1], [[-3]], rtol=1e-3)


def test_initial_values_do_not_depend_on_the_number_of_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    for count, chunk_rows in ((1, 4096), (2, 3), (4, 1)):
        monkeypatch.setattr(embeddings, "_COMPUTED_ROWS", chunk_rows)
        table = make_table(start_replicas(count, None))
        initialize(table, name="visitor", seed=3, stddev=0.5)
        tables.append(whole(table.values))
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[0], tables[2])


def test_a_worker_computes_the_initial_values_of_its_own_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replica 2 of 4 owns the rows 2, 6 and 10 of 11; it reports progress after every chunk of two rows."""
    computed: list[list[int]] = []

    def record(rows: np.ndarray, dim: int, **settings: Any) -> np.ndarray:
        computed.append(rows.tolist())
        return normal_rows(rows, dim, **settings)

    monkeypatch.setattr(embeddings, "_COMPUTED_ROWS", 2)
    monkeypatch.setattr(embeddings, "normal_rows", record)
    worker = Replicas(tf.distribute.get_strategy(), 4, ("CPU:0",), 2, 4)
    pings: list[int] = []
    table = make_table(worker, rows=11)
    initialize(table, name="visitor", seed=3, stddev=0.5, on_progress=lambda: pings.append(len(computed)))
    assert computed == [[2, 6], [10]]
    assert pings == [1, 2]
    alone = make_table(start_replicas(1, None), rows=11)
    initialize(alone, name="visitor", seed=3, stddev=0.5)
    np.testing.assert_array_equal(table.values.shards[2], whole(alone.values)[2::4])


def test_initial_values_differ_by_row_table_and_seed_and_have_the_requested_deviation() -> None:
    def draw(name: str, seed: int) -> np.ndarray:
        table = make_table(start_replicas(1, None), rows=5_000, dim=4)
        initialize(table, name=name, seed=seed, stddev=0.5)
        return whole(table.values)

    values = draw("visitor", 0)
    # 20,000 values: their mean has a standard deviation of 0.0035, their deviation one of 0.0025
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 0.5) < 0.015
    assert len(np.unique(values)) > 19_900
    # 20,000 of 2^24 possible values each: some coincide
    assert np.isin(values, draw("item", 0)).sum() < 200
    assert np.isin(values, draw("visitor", 1)).sum() < 200
