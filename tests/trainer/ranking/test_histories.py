import numpy as np

from trainer.ranking.histories import Histories

HISTORIES = Histories(
    item=np.array([7, 8, 9]),
    event=np.array([0, 1, 2]),
    timestamp_ms=np.array([10, 20, 30]),
    begins=np.array([0, 0, 3, 1]),
    ends=np.array([1, 2, 3, 3]),
)


def test_histories_share_their_rows_and_are_padded_on_the_right():
    item, event, timestamp_ms = HISTORIES.padded(0, 4)
    np.testing.assert_array_equal(item, [[7, 0], [7, 8], [0, 0], [8, 9]])
    np.testing.assert_array_equal(event, [[0, 0], [0, 1], [0, 0], [1, 2]])
    np.testing.assert_array_equal(timestamp_ms, [[10, 0], [10, 20], [0, 0], [20, 30]])
    assert HISTORIES.padded(2, 3)[0].shape == (1, 0)


def test_histories_are_taken_in_the_requested_order():
    taken = HISTORIES.take(np.array([3, 0]))
    np.testing.assert_array_equal(taken.lengths, [2, 1])
    np.testing.assert_array_equal(taken.padded(0, 2)[0], [[8, 9], [7, 0]])


def test_distinct_items_are_those_of_each_history_alone():
    """Item 7 occurs three times in the rows; 12 is not in the vocabulary of 10 items."""
    rows = np.array([7, 8, 7, 12, 9, 7])
    begins, ends = np.array([0, 1, 4, 2, 0]), np.array([3, 3, 4, 6, 6])
    histories = Histories(item=rows, event=rows, timestamp_ms=rows, begins=begins, ends=ends)
    distinct = histories.distinct_items(0, 5, num_items=10)
    assert [sorted(distinct.padded(v, v + 1)[0].tolist()) for v in range(5)] == [[7, 8], [7, 8], [], [7, 9], [7, 8, 9]]
    assert distinct.lengths.tolist() == [2, 2, 0, 2, 3]
    assert sorted(histories.distinct_items(3, 4, num_items=9).values.tolist()) == [7]
