"""Tests the helpers of peers: weights of a history, training timelines, and the order of items without a score."""

import numpy as np

from benchmarks.peers.interface import break_ties, fill_up, history_weights, timelines_of
from contract.timelines import TimelineRows
from tests.benchmarks.peers.requests import requests_of


def test_repeated_items_add_up_by_age_or_have_the_weight_of_the_latest_row():
    requests = requests_of([[0, 1, 0], [2, 9]])  # ages 2, 1, 0 and 1, 0; item 9 is unknown
    added = history_weights(requests, 3, 1.0).toarray()
    np.testing.assert_allclose(added, [[1 / 3 + 1, 1 / 2, 0], [0, 0, 1 / 2]], rtol=1e-6)
    latest = history_weights(requests, 3, 1.0, is_distinct=True).toarray()
    np.testing.assert_allclose(latest, [[1, 1 / 2, 0], [0, 0, 1 / 2]], rtol=1e-6)


def test_without_recency_all_rows_have_the_same_weight():
    assert history_weights(requests_of([[0, 1, 0]]), 2, 0.0).toarray().tolist() == [[2, 1]]


def test_a_timeline_has_each_item_once_at_its_latest_row():
    # visitor 0: items 1, 0, 1; visitor 1: items 2, 5 (unknown)
    columns = [(0, 0, 1, 0, 10, 1), (0, 1, 0, 0, 20, 1), (0, 2, 1, 0, 30, 1), (1, 0, 2, 0, 5, 1), (1, 1, 5, 0, 6, 1)]
    timelines = timelines_of(TimelineRows(*np.array(columns, np.int64).T), 3)
    assert timelines.baskets.toarray().tolist() == [[1, 1, 0], [0, 0, 1]]
    assert timelines.positions.toarray().tolist() == [[2, 3, 0], [0, 0, 1]]
    assert timelines.end_ms.tolist() == [30, 6]


def test_items_without_a_score_rank_last_by_popularity():
    scores = fill_up(np.array([[0.0, 0.001, 0.0, 2.0]], np.float32), np.array([1, 1, 5, 0]))
    assert np.argsort(-scores[0]).tolist() == [3, 1, 2, 0]


def test_equal_scores_are_ordered_by_popularity():
    scores = break_ties(np.array([[0.5, 0.5, 0.6]], np.float32), np.array([1, 3, 0]))
    assert np.argsort(-scores[0]).tolist() == [2, 1, 0]
