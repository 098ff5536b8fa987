"""Session kNN equals a plain implementation, for all settings."""

import numpy as np
import pytest

from benchmarks.peers.sessions import SessionNeighbours
from tests.benchmarks.peers.requests import data_of, requests_of
from trainer.data.trend import DAY_MS

TIMELINES = [[0, 1, 2], [1, 3], [0, 4, 1, 5, 5], [2, 5, 0], [6, 4]]
HISTORIES = [[0, 1], [5, 2], [3, 0, 3]]
ENDS_MS = [10 * DAY_MS, 9 * DAY_MS, 8 * DAY_MS, 3 * DAY_MS, 10 * DAY_MS]


def plain(
    *, recency, num_neighbours, length_power, idf_power, timeline_half_life_days=None, position_decay=None, num_items=7
):
    """Returns scores [B, I], computed with loops."""
    scores = np.zeros((len(HISTORIES), num_items))
    for row, history in enumerate(HISTORIES):
        age = {item: len(history) - 1 - position for position, item in enumerate(history)}  # of the latest row
        near = []
        for t, items in enumerate(TIMELINES):
            similarity = sum((1 + age[i]) ** -recency for i in set(items) & set(age)) / len(set(items)) ** length_power
            if timeline_half_life_days is not None:
                similarity *= 0.5 ** ((max(ENDS_MS) - ENDS_MS[t]) / DAY_MS / timeline_half_life_days)
            near.append((-similarity, t))
        for negative, t in sorted(near)[:num_neighbours]:
            shared = set(TIMELINES[t]) & set(age)
            if not shared:
                continue
            last = {item: position for position, item in enumerate(TIMELINES[t])}
            anchor = last[min(shared, key=age.__getitem__)]
            for j, position in last.items():
                decay = 1 if position_decay is None else np.exp(-abs(position - anchor) / position_decay)
                scores[row, j] += -negative * decay
    frequency = [sum(j in items for items in TIMELINES) for j in range(num_items)]
    return scores * np.log((len(TIMELINES) + 1) / np.maximum(frequency, 1)) ** idf_power


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recency": 0.0, "length_power": 0.0, "num_neighbours": 2},
        {"idf_power": 1.0},
        {"timeline_half_life_days": 3.0},
        {"position_decay": 1.5},
        {"position_decay": 1.5, "timeline_half_life_days": 3.0, "num_neighbours": 2, "idf_power": 0.5},
    ],
)
def test_session_knn_equals_a_plain_implementation(changes):
    settings = {"recency": 1.0, "num_neighbours": 3, "length_power": 0.5, "idf_power": 0.0} | changes
    data = data_of(TIMELINES, 7, ENDS_MS)
    scores = SessionNeighbours(data=data, **settings).scores(requests_of(HISTORIES))
    expected = plain(**settings)
    np.testing.assert_allclose(np.where(expected > 0, scores, 0), expected, rtol=1e-5)
    assert (scores[expected == 0] < 0).all()  # by popularity, below all others


def test_a_history_without_known_items_gets_popular_items():
    peer = SessionNeighbours(
        data=data_of(TIMELINES, 7), recency=1.0, num_neighbours=3, length_power=0.5, idf_power=0.0, position_decay=1.0
    )
    scores = peer.scores(requests_of([[9]]))
    assert np.isfinite(scores).all()
    assert scores[0].argmax() in (0, 1, 5)  # three events each
