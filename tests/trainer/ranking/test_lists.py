import numpy as np

from trainer.ranking.lists import Lists

LISTS = Lists(np.array([7, 8, 9, 5]), np.array([0, 2, 2, 4]))  # [7, 8], [], [9, 5]


def test_pairs_become_lists_and_an_owner_without_entries_gets_an_empty_list():
    lists = Lists.from_pairs(np.array([0, 0, 2, 2]), np.array([7, 8, 9, 5]), num_lists=3)
    np.testing.assert_array_equal(lists.starts, LISTS.starts)
    np.testing.assert_array_equal(lists.lengths, [2, 0, 2])
    np.testing.assert_array_equal(lists.owner, [0, 0, 2, 2])


def test_lists_are_taken_in_the_requested_order():
    taken = LISTS.take(np.array([2, 1, 0]))
    np.testing.assert_array_equal(taken.values, [9, 5, 7, 8])
    np.testing.assert_array_equal(taken.lengths, [2, 0, 2])


def test_taking_no_lists_gives_no_lists():
    assert len(LISTS.take(np.array([], np.int64))) == 0


def test_lists_are_padded_on_the_right_to_the_longest_of_the_range():
    np.testing.assert_array_equal(LISTS.padded(0, 3), [[7, 8], [0, 0], [9, 5]])
    assert LISTS.padded(1, 2).shape == (1, 0)
