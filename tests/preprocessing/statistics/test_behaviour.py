"""Behaviour of visitors with a few events, counted by hand."""

import numpy as np
import pyarrow as pa

from contract.schema import ADD_TO_CART, TRANSACTION, VIEW
from preprocessing.statistics.behaviour import describe_behaviour, measure_behaviour, merge_behaviours
from preprocessing.timelines import NEVER, Timelines, empty_timelines

MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def timelines(*rows: tuple[int, int, int, int]) -> Timelines:
    """Rows of (visitor, item, event, ms), in order."""
    visitor, item, event, time = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    names = [
        pa.array([f"{name}{n}" for n in range(column.max() + 1)]) for name, column in (("v", visitor), ("i", item))
    ]
    never = np.full(len(names[0]), NEVER)
    return Timelines(names[0], visitor, time, event.astype(np.int8), names[1], item, never)


def test_the_funnel_counts_pairs_by_the_order_of_their_events():
    found = measure_behaviour(
        timelines(
            (0, 0, VIEW, 0),  # pair v0-i0: view, cart, purchase
            (0, 0, ADD_TO_CART, 1),
            (0, 0, TRANSACTION, 2),
            (0, 1, ADD_TO_CART, 3),  # v0-i1: the cart is before the first view
            (0, 1, VIEW, 4),
            (1, 0, VIEW, 5),  # v1-i0: views only
            (1, 0, VIEW, 6),
            (1, 1, TRANSACTION, 7),  # v1-i1: bought before it was carted
            (1, 1, ADD_TO_CART, 8),
            (2, 1, ADD_TO_CART, 9),  # v2-i1: carted, viewed, bought: after a view and a cart, but not in that order
            (2, 1, VIEW, 10),
            (2, 1, TRANSACTION, 11),
        )
    )
    assert describe_behaviour(found)["funnel"] == {
        "pairs": 5,
        "by_kind": {"view": 4, "addtocart": 4, "transaction": 3},
        "carted_after_view": 1,
        "bought_after_view": 2,
        "bought_after_cart": 2,
        "bought_after_view_and_cart": 1,
    }


def test_a_pause_above_half_an_hour_ends_a_session():
    found = measure_behaviour(
        timelines(
            (0, 0, VIEW, 0),
            (0, 0, VIEW, 30 * MINUTE),  # exactly half an hour: the same session, of 1800 s
            (0, 0, VIEW, 60 * MINUTE + 1),  # a millisecond more: the next session
            (1, 0, VIEW, 60 * MINUTE + 2),  # another visitor: another session
        )
    )
    described = describe_behaviour(found)
    assert described["sessions"]["sessions"] == 3
    assert described["sessions"]["events_per_session"]["histogram"] == {"1": 2, "2": 1}
    # two sessions of 0 s, one of 1800 s, which is in [1024, 2048)
    seconds = {second: count for second, count in described["sessions"]["seconds"].items() if count}
    assert seconds == {"0": 2, "1024": 1}
    # pauses of 1800 s and 1800.001 s; there is none between two visitors
    assert {second: count for second, count in described["gap_seconds"].items() if count} == {"1024": 2}


def test_a_visitor_is_new_on_the_day_of_the_first_event():
    found = measure_behaviour(timelines((0, 0, VIEW, DAY - 1), (0, 0, VIEW, DAY), (1, 0, VIEW, DAY)))
    assert describe_behaviour(found)["new_visitors_by_day"] == {"1970-01-01": 1, "1970-01-02": 1}


def test_partitions_add_up():
    rows = [(0, 0, VIEW, 0), (0, 0, ADD_TO_CART, 1), (1, 0, VIEW, 5), (1, 1, VIEW, 3 * 60 * MINUTE)]
    whole = describe_behaviour(measure_behaviour(timelines(*rows)))
    first = timelines(*rows[:2])
    second = timelines(*[(0, item, event, time) for _, item, event, time in rows[2:]])
    parts = [measure_behaviour(first), measure_behaviour(empty_timelines()), measure_behaviour(second)]
    assert describe_behaviour(merge_behaviours(parts)) == whole
    assert describe_behaviour(merge_behaviours([]))["funnel"]["pairs"] == 0
