"""Assembly, splitting and encoding of timelines."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from contract.schema import Split
from preprocessing.config import SplitConfig
from preprocessing.splits import TEST, TRAIN, VALIDATION, Cuts
from preprocessing.timelines import (
    NEVER,
    Timelines,
    assemble_timelines,
    compute_gaps,
    decode_timelines,
    encode_timelines,
    find_human_rows,
    select_split,
    select_unknown_ids,
    split_rows,
    split_timelines,
)

DAY_MS = 86_400_000


def table_of(*rows, weights=None) -> pa.Table:
    visitor, times, event, item, transaction = zip(*rows, strict=True)
    return pa.table(
        {
            "visitor": visitor,
            "timestamp_ms": pa.array(times, pa.int64()),
            "event": pa.array(event, pa.int8()),
            "item": item,
            "transaction": transaction,
            "weight": pa.array(weights or [1] * len(rows), pa.float32()),
        }
    )


def as_rows(timelines: Timelines) -> list[tuple]:
    visitors, items = timelines.visitors.to_pylist(), timelines.items.to_pylist()
    columns = (timelines.visitor_code, timelines.timestamp_ms, timelines.event, timelines.item_code)
    return [(visitors[v], int(t), int(e), items[i]) for v, t, e, i in zip(*columns, strict=True)]


def rows_of(timelines: Timelines, visitor: str) -> list[tuple]:
    return [row[1:] for row in as_rows(timelines) if row[0] == visitor]


def test_a_visitors_rows_are_contiguous_in_time_then_file_order():
    rows = [("a", 7, 0, "y"), ("b", 2, 0, "y"), ("a", 5, 1, "z"), ("a", 5, 0, "x"), ("b", 1, 0, "x")]
    timelines, _ = assemble_timelines(table_of(*((*row, "") for row in rows)), 200)
    assert rows_of(timelines, "a") == [(5, 1, "z"), (5, 0, "x"), (7, 0, "y")]  # in the file, z comes before x at time 5
    assert rows_of(timelines, "b") == [(1, 0, "x"), (2, 0, "y")]
    assert (np.diff(timelines.visitor_code) >= 0).all()


def test_only_exact_duplicates_are_dropped_and_all_are_counted():
    rows = [
        ("a", 5, 2, "x", "t1"),
        ("a", 5, 0, "y", ""),
        ("a", 5, 2, "x", "t1"),  # a duplicate, though not adjacent
        ("a", 5, 2, "x", "t2"),  # another transaction
        ("a", 6, 2, "x", "t1"),  # another time
        ("b", 5, 2, "x", "t1"),  # another visitor
        ("a", 5, 2, "x", "t1"),
    ]
    timelines, cleaning = assemble_timelines(table_of(*rows), 200)
    assert cleaning.duplicates == 2
    assert len(timelines) == 5


def test_rows_that_differ_only_in_their_weight_are_two_events():
    rows = [("a", 5, 2, "x", ""), ("a", 5, 2, "x", ""), ("a", 5, 2, "x", ""), ("a", 4, 0, "y", "")]
    timelines, cleaning = assemble_timelines(table_of(*rows, weights=[2, 3, 2, 0.5]), 200)
    assert cleaning.duplicates == 1
    assert timelines.weight.tolist() == [0.5, 2, 3], "in the order of time"


def test_a_visitor_is_a_robot_from_the_first_event_above_the_limit_of_a_day():
    busy = [("robot", 3 * DAY_MS + n, 0, "x", "") for n in range(4)] + [("robot", 1, 0, "x", "")]
    steady = [("person", n * DAY_MS, 0, "x", "") for n in range(3)] + [("person", 1, 0, "x", "")]
    timelines, cleaning = assemble_timelines(table_of(*busy, *steady), 2)
    from_ms = dict(zip(timelines.visitors.to_pylist(), timelines.robot_from_ms.tolist(), strict=True))
    # the third event of day 3 is 2 ms after its start
    assert from_ms == {"robot": 3 * DAY_MS + 2, "person": NEVER}
    assert cleaning.robot_visitors == 1
    assert len(timelines) == 9
    assert find_human_rows(timelines).sum() == 4


def test_duplicates_do_not_make_a_robot():
    rows = [("a", 1, 0, "x", "")] * 5
    timelines, cleaning = assemble_timelines(table_of(*rows), 2)
    assert (len(timelines), cleaning.robot_visitors, cleaning.duplicates) == (1, 0, 4)


@pytest.mark.parametrize(
    ("robot_from_ms", "kept"),
    # visitor a has events at 1, 5 and 9, in training, validation and test (cuts at 4 and 8)
    [(NEVER, [1, 5, 9]), (9, [1, 5]), (8, [1, 5]), (7, [1]), (4, [1]), (3, [])],
)
def test_a_robot_is_excluded_from_the_split_in_which_it_becomes_one_and_not_before(robot_from_ms, kept):
    timelines = replace(two_visitors(), robot_from_ms=np.array([robot_from_ms, NEVER]))
    rows, splits, robot_events = split_timelines(timelines, Cuts(4, 8), SplitConfig())
    assert robot_events == 3 - len(kept)
    assert [times for _, times, _, _ in as_rows(rows)] == [*kept, 2, 3]
    assert splits.tolist() == [{1: TRAIN, 5: VALIDATION, 9: TEST}[time] for time in kept] + [TRAIN, TRAIN]
    assert rows.visitors.to_pylist() == (["a", "b"] if kept else ["b"])
    assert rows.weight.tolist() == [{1: 1, 5: 2, 9: 3}[time] for time in kept] + [4, 5]


def test_without_cuts_a_robot_is_excluded_altogether():
    timelines = replace(two_visitors(), robot_from_ms=np.array([9, NEVER]))
    rows = split_timelines(timelines, None, SplitConfig(method="none"))
    assert [row[0] for row in as_rows(rows.timelines)] == ["b", "b"]


def two_visitors() -> Timelines:
    return Timelines(
        visitors=pa.array(["a", "b"]),
        visitor_code=np.array([0, 0, 0, 1, 1]),
        timestamp_ms=np.array([1, 5, 9, 2, 3]),
        event=np.zeros(5, np.int8),
        items=pa.array(["x", "y"]),
        item_code=np.array([0, 1, 0, 1, 1]),
        weight=np.array([1, 2, 3, 4, 5], np.float32),
        robot_from_ms=np.array([NEVER, NEVER]),
    )


def test_a_split_contains_the_earlier_rows_of_its_visitors_as_context():
    splits = split_rows(two_visitors(), Cuts(4, 8), SplitConfig())
    assert splits.tolist() == [TRAIN, VALIDATION, TEST, TRAIN, TRAIN]
    indices = np.array([10, 11]), np.array([20, 21])
    train = select_split(two_visitors(), splits, Split.TRAIN, *indices)
    test = select_split(two_visitors(), splits, Split.TEST, *indices)
    assert train.visitor.tolist() == [10, 11, 11]
    assert train.is_target.tolist() == [1, 1, 1]
    assert train.position.tolist() == [0, 0, 1]
    # only visitor a has a test row; their two earlier rows precede it as context
    assert test.visitor.tolist() == [10, 10, 10]
    assert test.is_target.tolist() == [0, 0, 1]
    assert test.item.tolist() == [20, 21, 20]
    assert (train.weight.tolist(), test.weight.tolist()) == ([1, 4, 5], [1, 2, 3])
    assert test.weight.dtype == np.float32


def test_the_ids_of_visitors_outside_the_vocabulary_are_selected_in_the_order_of_the_timelines():
    splits = np.array([TRAIN, VALIDATION, TEST, VALIDATION, VALIDATION], np.int8)
    # the vocabulary has three visitors; b has index 3, an out-of-vocabulary bucket
    ids = [select_unknown_ids(two_visitors(), splits, split, np.array([0, 3]), 3) for split in Split]
    assert ids == [[""], ["", "b"], [""]]


def test_adjacent_visitors_with_the_same_index_have_two_timelines():
    splits = np.zeros(5, np.int8)
    rows = select_split(two_visitors(), splits, Split.TRAIN, np.array([7, 7]), np.array([0, 1]))
    assert rows.visitor.tolist() == [7] * 5
    assert rows.position.tolist() == [0, 1, 2, 0, 1]


def test_a_random_split_depends_on_the_seed_only():
    many = Timelines(
        pa.array([f"v{n}" for n in range(500)]),
        np.arange(500),
        np.full(500, 7),
        np.zeros(500, np.int8),
        pa.array(["x"]),
        np.zeros(500, np.int64),
        np.ones(500, np.float32),
        np.full(500, NEVER),
    )
    first = split_rows(many, None, SplitConfig(method="random"))
    assert first.tolist() == split_rows(many, None, SplitConfig(method="random")).tolist()
    assert first.tolist() != split_rows(many, None, SplitConfig(method="random", seed=1)).tolist()
    # 500 draws at 0.8: 400 with a standard deviation of 9
    assert 360 < (first == TRAIN).sum() < 440


def test_encoded_timelines_are_decoded_exactly():
    timelines = replace(two_visitors(), robot_from_ms=np.array([7, NEVER]))
    found = decode_timelines(encode_timelines(timelines))
    assert as_rows(found) == as_rows(timelines)
    assert found.robot_from_ms.tolist() == [7, NEVER]
    assert found.weight.tolist() == [1, 2, 3, 4, 5]


def test_gaps_are_between_consecutive_events_of_a_visitor():
    rows = np.array([True, True, True, True, False])
    gaps = compute_gaps(two_visitors(), rows)
    np.testing.assert_allclose(gaps, [0.004, 0.004])
