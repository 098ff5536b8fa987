"""Tests the peers that rank by counts."""

import numpy as np

from benchmarks.peers.popularity import OwnFrequency, Popular, Trending
from tests.benchmarks.peers.requests import data_of, requests_of
from trainer.data.trend import DAY_MS


def test_popular_items_are_the_same_for_all():
    scores = Popular(data_of([[0, 1, 1], [2, 1, 2]], 3)).scores(requests_of([[0], [1]]))
    assert scores.tolist() == [[1, 3, 2]] * 2


def test_trending_items_are_those_before_each_request():
    data = data_of([[0, 0, 0], [1, 1]], 2, ends_ms=[0, 10 * DAY_MS])
    requests = requests_of([[0], [0]])._replace(timestamp_ms=np.array([DAY_MS, 11 * DAY_MS]))
    scores = Trending(data=data, half_life_days=1.0).scores(requests)
    # at day 1, item 0 has half of three events; at day 11, it has 3 · 2^-11, and item 1 has half of two
    np.testing.assert_allclose(scores, [[1.5, 0], [3 / 2048, 1]], rtol=1e-6)


def test_own_items_come_first_by_frequency_then_popular_ones():
    data = data_of([[3, 3, 3, 2, 2], [0, 1]], 4)
    scores = OwnFrequency(data=data, recency=0.0).scores(requests_of([[1, 0, 1]]))
    assert np.argsort(-scores[0]).tolist() == [1, 0, 3, 2]
    assert OwnFrequency(data=data, recency=2.0).scores(requests_of([[1, 1, 0]]))[0].argmax() == 0
