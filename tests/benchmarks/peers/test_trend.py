"""Tests the trend of items at a moment, and how scores are prepared for adding it."""

import numpy as np
import pytest

from benchmarks.peers.trend import EventLog, link_scores
from trainer.data.trend import DAY_MS


def log_of(*events):
    """Builds a log from pairs (day, item)."""
    events = sorted(events)
    times = np.array([day * DAY_MS for day, _ in events], np.int64)
    return EventLog(times, np.array([item for _, item in events]), 3)


def test_an_event_has_half_the_weight_after_each_half_life():
    # as of day 10, half-life 2: item 0 at days 8 and 4: 1/2 + 1/8; item 1 at day 9: 2^-½
    log = log_of((8, 0), (4, 0), (9, 1))
    np.testing.assert_allclose(log.recent(2.0, 10 * DAY_MS), [0.625, 0.5**0.5, 0], rtol=1e-6)


def test_the_trend_compares_recent_events_with_all():
    log = log_of((8, 0), (8, 0), (6, 1))
    expected = np.log([(1 + 0.05) / (2 + 0.25), (0.25 + 0.05) / (1 + 0.25), 0.05 / 0.25])
    np.testing.assert_allclose(log.trends(2.0, np.array([10 * DAY_MS])), [expected], rtol=1e-5)


def test_the_trend_of_a_moment_does_not_depend_on_what_follows():
    generator = np.random.default_rng(0)
    events = [
        (int(day), int(item))
        for day, item in zip(generator.integers(0, 50, 200), generator.integers(0, 3, 200), strict=True)
    ]
    for moment in (1, 10, 49):
        past = log_of(*(event for event in events if event[0] < moment))
        trends = [log.trends(7.0, np.array([moment * DAY_MS])) for log in (log_of(*events), past)]
        np.testing.assert_array_equal(*trends)


@pytest.mark.parametrize("link", ["log", "linear"])
def test_linked_scores_keep_the_order_and_do_not_depend_on_the_scale(link):
    scores = np.random.default_rng(0).random((4, 30)).astype(np.float32)
    linked = link_scores(scores, link)
    np.testing.assert_array_equal(np.argsort(linked, axis=1), np.argsort(scores, axis=1))
    np.testing.assert_allclose(link_scores(1000 * scores, link), linked, rtol=1e-4, atol=1e-5)


def test_the_tenth_best_score_is_the_unit():
    scores = np.arange(20, dtype=np.float32)[None]  # the tenth best is 10
    np.testing.assert_allclose(link_scores(scores, "log")[0, [0, 10]], np.log([0.02, 1.02]), rtol=1e-5)
    np.testing.assert_allclose(link_scores(scores, "linear")[0, [0, 10]], [0, 5], rtol=1e-6)


def test_scores_without_a_positive_one_stay_finite():
    scores = -np.ones((1, 20), np.float32)
    assert all(np.isfinite(link_scores(scores, link)).all() for link in ("log", "linear"))
