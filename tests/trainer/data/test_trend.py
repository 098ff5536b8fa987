"""Trends equal figures that were computed by hand, do not see the future, and can be updated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.dataset_builder import build_dataset
from trainer.data.trend import DAY_MS, ItemEvents, advance_trends, count_trends, moments_of, read_item_events


def events_of(*pairs: tuple[float, int], num_items: int = 3) -> ItemEvents:
    """Builds events from pairs (day, item), in order of time."""
    days, items = zip(*pairs, strict=True)
    return ItemEvents((np.array(days) * DAY_MS).astype(np.int64), np.array(items, np.int64), num_items)


def test_an_event_counts_half_after_the_half_life() -> None:
    # at day 4 with a half-life of 2 days, an event of day 0 counts 1/4 and one of day 2 counts 1/2
    trends = count_trends(events_of((0, 0), (2, 0), (2, 1)), np.array([4 * DAY_MS]), 2.0)
    np.testing.assert_allclose(trends.recent, [[0.75, 0.5, 0.0]])
    np.testing.assert_allclose(trends.total, [[2, 1, 0]])
    expected = [np.log(0.8 / 2.25), np.log(0.55 / 1.25), np.log(0.05 / 0.25)]
    np.testing.assert_allclose(trends.values, [expected], rtol=1e-6)


def test_an_event_at_the_moment_itself_is_not_counted() -> None:
    trends = count_trends(events_of((1, 0), (2, 0)), np.array([DAY_MS, 2 * DAY_MS, 3 * DAY_MS]), 7.0)
    assert trends.total[:, 0].tolist() == [0, 1, 2]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), max_size=10),
    st.integers(1, 40),
)
def test_no_later_event_changes_a_trend(past: list, future: list, day: int) -> None:
    moment = np.array([day * DAY_MS])
    before = [pair for pair in past if pair[0] < day] or [(0, 0)]
    after = [(max(when, day), item) for when, item in future]
    alone = count_trends(events_of(*sorted(before)), moment, 3.0)
    together = count_trends(events_of(*sorted(before + after)), moment, 3.0)
    np.testing.assert_array_equal(alone.values, together.values)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=1, max_size=30), st.integers(1, 20))
def test_the_trends_of_several_moments_equal_those_of_single_moments(pairs: list, step: int) -> None:
    events, moments = events_of(*sorted(pairs)), np.arange(0, 45, step) * DAY_MS
    together = count_trends(events, moments, 5.0)
    for row, moment in enumerate(moments):
        alone = count_trends(events, np.array([moment]), 5.0)
        np.testing.assert_allclose(together.recent[row], alone.recent[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(together.total[row], alone.total[0])


def test_newer_events_advance_a_trend_as_if_all_were_counted_at_once() -> None:
    events = events_of((0, 0), (1, 1), (3, 0), (6, 2), (6, 0))
    earlier = count_trends(events, np.array([2 * DAY_MS]), 4.0)
    advanced = advance_trends(earlier, events)
    whole = count_trends(events, events.timestamp_ms[-1:] + 1, 4.0)
    np.testing.assert_allclose(advanced.recent, whole.recent, rtol=1e-6)
    np.testing.assert_array_equal(advanced.total, whole.total)
    assert advanced.moment_ms.tolist() == [6 * DAY_MS + 1]
    assert advance_trends(advanced, events) is advanced  # nothing is newer


def test_moments_are_days_and_few_for_a_large_catalogue() -> None:
    week = np.array([10, 17]) * DAY_MS
    assert moments_of(week, 100).tolist() == (np.arange(10, 18) * DAY_MS).tolist()
    year = np.array([0, 365]) * DAY_MS
    assert len(moments_of(year, 100)) == 64
    assert len(moments_of(year, 2**23)) == 2
    assert moments_of(np.array([5, 5]), 100).tolist() == [5]


def test_the_events_of_all_splits_are_read_in_order_of_time(tmp_path) -> None:
    dataset = build_dataset(
        str(tmp_path),
        train=[("anna", "a", "view", 30), ("bob", "b", "view", 10)],
        validation=[("anna", "b", "view", 40)],
        test=[("bob", "a", "view", 60), ("bob", "unknown", "view", 70)],
        visitors=["anna", "bob"],
        items=["a", "b"],
    )
    events = read_item_events(dataset)
    assert events.timestamp_ms.tolist() == [10, 30, 40, 60]
    assert events.item.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("days", [1.0, 30.0])
def test_an_item_without_events_has_the_trend_of_no_events(days: float) -> None:
    trends = count_trends(events_of((0, 0)), np.array([DAY_MS]), days)
    np.testing.assert_allclose(trends.values[0, 1:], np.log(0.2), rtol=1e-6)
