import dataclasses

import numpy as np

from tests.trainer.ranking.fakes import cases_of
from trainer.evaluation.groups import item_groups, pair_groups


def test_head_middle_and_tail_items_start_in_the_first_second_and_last_third_of_the_training_events():
    # descending: item 1 (6), item 3 (3), item 0 (2), item 4 (1) of 12; events before each: 0, 6, 9, 11.
    # thirds start at 0, 4 and 8: item 1 is head, item 3 middle, the others tail; item 2 has no event
    np.testing.assert_array_equal(item_groups(np.array([2, 6, 0, 3, 1])), [2, 0, 3, 1, 2])


def test_without_training_events_all_items_are_cold():
    np.testing.assert_array_equal(item_groups(np.zeros(2, np.int64)), [3, 3])


def test_each_pair_is_in_the_groups_of_its_events_its_visitor_and_its_item():
    cases = dataclasses.replace(
        cases_of([[0], [0, 1], [0] * 9, [0] * 10], [[1, 2], [0], [1], [2]], num_items=3),
        is_kind=np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 0]], bool),
    )
    # five pairs: case 0 has two. Items 0, 1, 2 are head, middle, tail: 3 events each
    groups = pair_groups(cases, np.array([3, 3, 3]), num_visitors=2)
    assert {name: np.flatnonzero(is_member).tolist() for name, is_member in groups.items()} == {
        "view events": [0, 2, 3, 4],
        "addtocart events": [1, 2],
        "transaction events": [1],
        "history 1": [0, 1],
        "history 2-4": [2],
        "history 5-9": [3],
        "history 10+": [4],
        "known visitors": [0, 1, 2],
        "cold visitors": [3, 4],
        "head items": [2],
        "middle items": [0, 3],
        "tail items": [1, 4],
    }
