import numpy as np
import pytest

from contract.timelines import TimelineRows
from tests.trainer.dataset_builder import build_dataset
from trainer.data.baskets import baskets_of, training_baskets


def test_baskets_contain_known_items_once_and_are_ordered_by_the_end_of_the_timeline_latest_first():
    # two timelines: items 1, 1, 9 (unknown) until 30, and 0, 2 until 40
    columns = [(5, 0, 1, 0, 10, 1), (5, 1, 1, 0, 20, 1), (5, 2, 9, 0, 30, 1), (5, 0, 0, 0, 10, 1), (5, 1, 2, 0, 40, 1)]
    rows = TimelineRows(*np.array(columns, np.int64).T)
    np.testing.assert_array_equal(baskets_of(rows, 3).toarray(), [[1, 0, 1], [0, 1, 0]])
    assert baskets_of(TimelineRows.concatenate([]), 3).shape == (0, 3)


def test_only_the_latest_distinct_items_of_a_timeline_are_kept():
    # items 3, 1, 2, 3, 1 and then 2, 0: the last events of 2, 3, 1 are in this order, so 3 and 1 are the latest two
    item = [3, 1, 2, 3, 1, 2, 0]
    position, visitor = [0, 1, 2, 3, 4, 0, 1], [5, 5, 5, 5, 5, 6, 6]
    columns = [(v, p, i, 0, 10, 1) for v, p, i in zip(visitor, position, item, strict=True)]
    rows = TimelineRows(*np.array(columns, np.int64).T)
    expected = [[0, 1, 0, 1], [1, 0, 1, 0]]
    np.testing.assert_array_equal(baskets_of(rows, 4, max_items=2).toarray(), expected)
    np.testing.assert_array_equal(baskets_of(rows, 4, max_items=3).toarray(), [[0, 1, 1, 1], [1, 0, 1, 0]])


def test_neighbours_come_from_training_timelines_only(tmp_path):
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "a", "view", 1), ("bob", "b", "view", 2)],
        test=[("anna", "b", "view", 3)],
        visitors=["anna", "bob"],
        items=["a", "b"],
    )
    np.testing.assert_array_equal(training_baskets(dataset).toarray(), [[0, 1], [1, 0]])


def test_events_of_kinds_and_rows_with_a_weight_of_0_are_skipped(tmp_path):
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[
            ("anna", "a", "view", 1),
            ("anna", "b", "addtocart", 2),
            ("anna", "c", "view", 3, 0.0),
            ("bob", "b", "view", 9),
        ],
        visitors=["anna", "bob"],
        items=["a", "b", "c"],
    )
    np.testing.assert_array_equal(training_baskets(dataset, (1, 0, 0)).toarray(), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(training_baskets(dataset, (0, 0.5, 0)).toarray(), [[0, 0, 0], [0, 1, 0]])
    with pytest.raises(ValueError, match=r"no training event of .* has a weight above 0, .* raise loss.event_weights"):
        training_baskets(dataset, (0, 0, 1))
