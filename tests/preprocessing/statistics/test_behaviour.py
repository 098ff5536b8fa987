"""Compares the statistics of a few visitors' behaviour with figures that were counted by hand."""

import numpy as np
import pyarrow as pa

from contract.schema import DEFAULT_KINDS
from preprocessing.statistics.behaviour import Behaviour, describe_behaviour, measure_behaviour, merge_behaviours
from preprocessing.timelines import NEVER, Timelines, empty_timelines

VIEW, ADD_TO_CART, TRANSACTION = range(3)
MINUTE = 60_000
DAY = 24 * 60 * MINUTE


def timelines(*rows: tuple[int, int, int, int]) -> Timelines:
    """Builds timelines from rows of (visitor, item, event, ms), in order."""
    visitor, item, event, time = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    names = [
        pa.array([f"{name}{n}" for n in range(column.max() + 1)]) for name, column in (("v", visitor), ("i", item))
    ]
    never = np.full(len(names[0]), NEVER)
    weight = np.ones(len(rows), np.float32)
    return Timelines(names[0], visitor, time, event.astype(np.int8), names[1], item, weight, never)


def measure(rows: Timelines) -> Behaviour:
    return measure_behaviour(rows, len(DEFAULT_KINDS))


def test_the_funnel_counts_pairs_by_the_order_of_their_events():
    found = measure(
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
    assert describe_behaviour(found, DEFAULT_KINDS)["funnel"] == {
        "pairs": 5,
        "by_kind": {"view": 4, "addtocart": 4, "transaction": 3},
        "steps": [
            {"kind": "addtocart", "after_previous": 1, "after_first": 1, "after_all": 1},
            # v0-i0 and v2-i1 are bought after a cart, and after a view; only v0-i0 after a view and then a cart
            {"kind": "transaction", "after_previous": 2, "after_first": 2, "after_all": 1},
        ],
    }


def test_the_funnel_of_own_kinds_has_a_step_from_each_kind_to_the_next():
    kinds = ("look", "like", "cart", "buy")
    rows = timelines(
        (0, 0, 0, 0),  # v0-i0: look, like, buy, without a cart
        (0, 0, 1, 1),
        (0, 0, 3, 2),
        (1, 0, 1, 3),  # v1-i0: like, cart, buy, without a look
        (1, 0, 2, 4),
        (1, 0, 3, 5),
    )
    funnel = describe_behaviour(measure_behaviour(rows, len(kinds)), kinds)["funnel"]
    assert funnel["by_kind"] == {"look": 1, "like": 2, "cart": 1, "buy": 2}
    assert funnel["steps"] == [
        {"kind": "like", "after_previous": 1, "after_first": 1, "after_all": 1},
        {"kind": "cart", "after_previous": 1, "after_first": 0, "after_all": 0},  # v1-i0 was not looked at
        {"kind": "buy", "after_previous": 1, "after_first": 1, "after_all": 0},  # after a cart: v1-i0, a look: v0-i0
    ]


def test_the_funnel_of_one_kind_has_no_steps():
    found = measure_behaviour(timelines((0, 0, 0, 0), (0, 1, 0, 1)), 1)
    assert describe_behaviour(found, ("buy",))["funnel"] == {"pairs": 2, "by_kind": {"buy": 2}, "steps": []}


def test_a_pause_above_half_an_hour_ends_a_session():
    found = measure(
        timelines(
            (0, 0, VIEW, 0),
            (0, 0, VIEW, 30 * MINUTE),  # exactly half an hour: the same session, of 1800 s
            (0, 0, VIEW, 60 * MINUTE + 1),  # a millisecond more: the next session
            (1, 0, VIEW, 60 * MINUTE + 2),  # another visitor: another session
        )
    )
    described = describe_behaviour(found, DEFAULT_KINDS)
    assert described["sessions"]["sessions"] == 3
    assert described["sessions"]["events_per_session"]["histogram"] == {"1": 2, "2": 1}
    # two sessions of 0 s, one of 1800 s, which is in [1024, 2048)
    seconds = {second: count for second, count in described["sessions"]["seconds"].items() if count}
    assert seconds == {"0": 2, "1024": 1}
    # pauses of 1800 s and 1800.001 s; there is none between two visitors
    assert {second: count for second, count in described["gap_seconds"].items() if count} == {"1024": 2}


def test_a_visitor_is_new_on_the_day_of_the_first_event():
    found = measure(timelines((0, 0, VIEW, DAY - 1), (0, 0, VIEW, DAY), (1, 0, VIEW, DAY)))
    assert describe_behaviour(found, DEFAULT_KINDS)["new_visitors_by_day"] == {"1970-01-01": 1, "1970-01-02": 1}


def test_partitions_add_up():
    rows = [(0, 0, VIEW, 0), (0, 0, ADD_TO_CART, 1), (1, 0, VIEW, 5), (1, 1, VIEW, 3 * 60 * MINUTE)]
    whole = describe_behaviour(measure(timelines(*rows)), DEFAULT_KINDS)
    first = timelines(*rows[:2])
    second = timelines(*[(0, item, event, time) for _, item, event, time in rows[2:]])
    parts = [measure(first), measure(empty_timelines()), measure(second)]
    assert describe_behaviour(merge_behaviours(parts), DEFAULT_KINDS) == whole
    assert merge_behaviours([]).pairs == 0
