"""Tests the arithmetic of `benchmarks.cluster`, and a traced step of two replicas."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.cluster import (
    Compute,
    Layout,
    Traffic,
    compute_seconds,
    count_traffic,
    host_gib,
    least_bytes,
    link_seconds,
    project,
    row_bytes,
)
from benchmarks.cluster_graph import Message, Operation, Traced
from benchmarks.cluster_requests import IdCounts, capacity_of, count_ids, count_requests, draw_ids, make_config
from benchmarks.cluster_step import Loopback, first_worker, trace_step
from trainer.distributed.all_to_all import Route
from trainer.distributed.replicas import Replicas

ROWS = 256

# a lookup and an update of one table of 3 columns, then a vector of 10 numbers
MESSAGES = [
    Message("gather", 32),
    Message("all_to_all", 8),
    Message("all_to_all", 12),
    Message("all_to_all", 12),
    Message("reduce", 40),
]
TWO_BY_TWO = Layout(2, 2, "100 Gb/s")


def test_an_operation_takes_as_long_as_its_bytes_its_products_or_its_launch():
    operations = [
        Operation("Mul", moved_bytes=3_350_000_000, flops=0),  # 3.35e9 bytes at 3.35 TB/s: 1 ms
        Operation("MatMul", moved_bytes=3_350_000, flops=989 * 10**9),  # at 494.5 TFLOP/s: 2 ms
        Operation("Add", moved_bytes=8, flops=0),  # 3.8 µs
        Operation("Unique", moved_bytes=8, flops=0),  # 9.6 µs
    ]
    assert compute_seconds(operations) == pytest.approx(Compute(0.001, 0.002, 13.4e-6))


def test_bytes_are_counted_by_link():
    # a row is sent as an id and as 3 numbers, and its gradient comes back: 8 + 12 + 12
    assert row_bytes(MESSAGES, 1) == [32]
    # a GPU sends 3 messages of 5 rows: 160 bytes to the other GPU of its machine, and 320 bytes to the other machine,
    # over a card that two GPUs share; a ring sends the gather's 32 bytes 3 times, and the 40 bytes 2 × 3 / 4 times: 156
    assert count_traffic(MESSAGES, [5], TWO_BY_TWO) == (160 + 156, 640 + 156)
    # with a card each, half of everything passes through one
    assert count_traffic(MESSAGES, [5], TWO_BY_TWO._replace(cards=2)) == (160 + 156, 320 + 78)
    # on one machine of four, all three messages are near
    assert count_traffic(MESSAGES, [5], Layout(1, 4)) == (480 + 156, 0)


def test_the_rows_of_two_tables_are_looked_up_before_any_is_updated():
    lookups = [Message("gather", 32), *(Message("all_to_all", size) for size in (8, 100))]
    lookups += [Message("gather", 32), *(Message("all_to_all", size) for size in (8, 10))]
    updates = [Message("all_to_all", size) for size in (100, 10)]
    assert row_bytes(lookups + updates, 2) == [208, 28]
    with pytest.raises(ValueError, match="three all-to-alls for each of"):
        row_bytes(lookups, 2)


def test_the_slower_link_and_the_latencies_determine_the_time_of_messages():
    traffic = Traffic(near=450e6, far=25e6)  # 1 ms over NVLink, 2 ms over the card
    assert link_seconds(MESSAGES, traffic, TWO_BY_TWO) == pytest.approx(5 * 100e-6 + 0.002)


def test_the_lower_bound_sends_each_row_once_to_every_other_replica_that_uses_it_and_its_gradient_back():
    # each of the two replicas requests 3 and 5 rows of 4 bytes from the other: 2 × (3 + 5) × 4 / 2
    requests = np.array([[7, 3], [5, 7]])
    assert least_bytes(requests, 4) == 32
    assert capacity_of(requests) == 16  # the smallest size of a message


def test_a_projection_names_the_longest_part_unless_the_host_is_slower():
    operations = [Operation("Mul", moved_bytes=3_350_000_000, flops=0)]
    step = Traced(1, 1.0, 0.0, operations, MESSAGES, batch_bytes=512_000_000)
    routing = Traced(1, 1.0, 0.0, [], [], batch_bytes=0)
    projected = project(step, routing, [5], Layout(1, 8), input_cpu_ms=8)
    # 1 ms of memory, 5 × 30 µs of messages, an eighth of 512 MB at 64 GB/s; the host needs 8 ms with 8 threads
    assert projected["gpu_ms"] == projected["step_ms"] == 2.15
    assert projected["limit"] == "memory bandwidth"
    assert projected["examples_per_second"] == pytest.approx(8 * 8192 / 0.00215, rel=1e-4)
    projected = project(step, routing, [5], Layout(1, 8), input_cpu_ms=80)
    assert (projected["step_ms"], projected["limit"]) == (10, "host input")


def test_host_memory_equals_the_examples_of_the_operations_page():
    # the examples of docs/operations.md: a machine with one GPU, and a GPU of one and of four
    assert host_gib("mf", 1) == pytest.approx({"host": 11.33, "gpu": 2.96}, abs=0.01)
    assert host_gib("mf", 4)["gpu"] == pytest.approx(2.24, abs=0.01)
    # 5% of 0.96 of tables on two machines, 5.29 of vectors, and 4 + 2 × 8
    assert host_gib("mf", 16)["host"] == pytest.approx(25.31, abs=0.01)


def test_a_traced_step_of_two_replicas_has_its_messages_and_matrix_products():
    config = make_config("mf", 2, rows=ROWS)
    traced = trace_step(config, first_worker(2), received_rows=1000)
    assert [message.kind for message in traced.messages] == ["gather"] * 2 + ["all_to_all"] * 3 + ["reduce"]
    # 256 candidates and three sums; counts for two owners; ids, rows and gradients; the loss
    assert [message.item_bytes for message in traced.messages] == [259 * 8, 16, 8, 129 * 4, 129 * 4, 4]
    assert traced.nodes_per_replica == traced.nodes / 2
    # scores of 256 rows and 2 × 256 + 512 candidates, and both gradients
    products = [operation.flops for operation in traced.operations if operation.kind == "MatMul"]
    assert products == [2 * 256 * 1024 * 128] * 3
    # 512 rows of 3 indices, a time, a weight and a flag, and 12 entries of 2 indices, an age and a flag
    assert traced.batch_bytes == 512 * (3 * 4 + 8 + 4 + 1 + 12 * (2 * 4 + 8 + 1))


def test_a_replica_looks_up_its_history_and_the_candidates():
    # nn: histories of 10, and 256 × 2 in-batch and 1,024 sampled candidates; each has 8 features
    counts = count_ids(make_config("nn", 2, rows=ROWS), 2)
    assert [table[1:] for table in counts.values()] == [(2560, 1536), (2560 * 8, 1536 * 8)]
    # above 8,192 rows, each row looks up its own positive too
    assert count_ids(make_config("mf", 64), 64)["item"][1:] == (8192 * 13, 8192 + 512)


def test_a_replica_alone_routes_its_ids_as_if_all_replicas_requested_the_same_numbers_of_rows():
    counts, strategy = IdCounts(rows=1000, own=100, shared=20), tf.distribute.get_strategy()
    replicas = Replicas(strategy, 4, ("CPU:0",), 0, 4, Loopback(4))
    (ids,) = draw_ids(counts, 1)
    route = Route.by_row(replicas, 0, tf.constant(ids))
    own = np.bincount(np.unique(ids) % 4, minlength=4)
    assert count_requests(counts, 1) == own.sum()
    gathered = route.messages.counts.numpy()
    np.testing.assert_array_equal(gathered[0], own)
    np.testing.assert_array_equal(gathered[:, 0], own)
    # the messages of ids come back, so the other replicas request the rows that this one requests from them
    distinct = np.array(list(dict.fromkeys(ids.tolist())))
    by_owner = [distinct[distinct % 4 == owner] // 4 for owner in range(4)]
    np.testing.assert_array_equal(route.served, np.concatenate(by_owner))
