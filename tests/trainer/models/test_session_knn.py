"""Compares session kNN with figures computed by hand, with plain loops, and with the peer of the benchmarks."""

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from benchmarks.neighbours import NeighboursConfig, TimelineNeighbours
from tests.trainer.ranking.fakes import queries_of
from trainer.config.models import SessionKnnConfig
from trainer.models import similar_timelines
from trainer.models.session_knn import SessionKnnInference, count_session_knn
from trainer.models.similar_timelines import sampled_entries

# the latest timeline first: {0, 1}, {0, 1, 2}, {2}; item 3 is in none
BASKETS = sp.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]], np.float32))
COUNTS = np.array([5, 3, 1, 0])
HISTORIES: list[list[int]] = [[], [3], [1, 0, 32, 7], [5, 9, 5], [2] * 4, list(range(20))]


def make_config(item: float = 0.0, length: float = 0.5, recency: float = 1.0, **settings: int) -> SessionKnnConfig:
    return SessionKnnConfig(item_power=(item,), length_power=(length,), recency_power=(recency,), **settings)


def make_model(config: SessionKnnConfig, baskets: sp.csr_matrix, counts: np.ndarray) -> SessionKnnInference:
    # three items more than needed, as a run reserves a row for each event
    model = SessionKnnInference(config, counts, baskets.shape[0], baskets.nnz + 3)
    model.fill(count_session_knn(config, baskets, 0))
    return model


def scores(model: SessionKnnInference, *histories: list[int]) -> np.ndarray:
    found: np.ndarray = model.catalogue_scores(queries_of([0] * len(histories), list(histories))).numpy()
    return found


def plain_scores(baskets: np.ndarray, history: list[int], config: SessionKnnConfig) -> np.ndarray:
    """Returns sums [I], computed by the formula, one timeline at a time; -1 for items without a similar timeline."""
    (powers,), num_items = config.combinations, baskets.shape[1]
    counts = baskets.sum(axis=0)
    latest = {item: np.flatnonzero(baskets[:, item])[: config.max_timelines] for item in range(num_items)}
    similarity = np.zeros(len(baskets))
    for age, item in enumerate(history[::-1][: config.max_entries]):
        for timeline in latest.get(item, ()):
            similarity[timeline] += counts[item] ** -powers.item * (1 + age) ** -powers.recency
    similarity /= np.maximum(baskets.sum(axis=1), 1) ** powers.length
    sums = np.zeros(num_items)
    for timeline in np.argsort(-similarity, kind="stable")[: config.num_neighbours]:
        sums += similarity[timeline] * baskets[timeline]
    return np.where(sums > 0, sums, -1)


@pytest.fixture(params=["few timelines", "many timelines"])
def any_number(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with each of the two ways to find the most similar timelines."""
    if request.param == "many timelines":
        monkeypatch.setattr(similar_timelines, "_MAX_DENSE_TIMELINES", 0)


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize(
    "config",
    [
        make_config(num_neighbours=4),
        make_config(item=0.5, length=1.0, recency=0.3, num_neighbours=7),
        make_config(recency=0.0, length=0.0),
        make_config(item=0.1, recency=0.7, num_neighbours=5, max_timelines=3, max_entries=6),
    ],
)
def test_session_knn_equals_plain_loops(config: SessionKnnConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = (np.random.default_rng(4).random((50, 30)) < 0.2).astype(np.float32)
    monkeypatch.setattr(similar_timelines, "_MAX_PAIRS", 0)  # blocks of one query
    in_blocks = scores(make_model(config, sp.csr_matrix(dense), np.zeros(30)), *HISTORIES)
    monkeypatch.undo()
    at_once = scores(make_model(config, sp.csr_matrix(dense), np.zeros(30)), *HISTORIES)
    expected = [plain_scores(dense, history, config) for history in HISTORIES]
    np.testing.assert_allclose(in_blocks, expected, rtol=1e-5)
    np.testing.assert_array_equal(in_blocks, at_once)


@pytest.mark.usefixtures("any_number")
def test_the_first_combination_without_limits_is_the_cosine_peer() -> None:
    random = sp.csr_matrix((np.random.default_rng(5).random((60, 30)) < 0.2).astype(np.float32))
    config, peer = make_config(num_neighbours=9), NeighboursConfig(num_neighbours=9)
    assert SessionKnnConfig().combinations[0] == config.combinations[0]
    counts = np.arange(30)
    expected = TimelineNeighbours(random, counts, peer).catalogue_scores(queries_of([0] * 6, HISTORIES))
    np.testing.assert_allclose(scores(make_model(config, random, counts), *HISTORIES), expected, rtol=1e-5)


@pytest.mark.usefixtures("any_number")
def test_a_score_adds_the_similarities_of_the_timelines_with_the_item() -> None:
    # history 0, 2: item 2 has age 0 and weight 1, item 0 has 1 / 2; divided by the roots of the lengths
    first, second, third = 0.5 / 2**0.5, 1.5 / 3**0.5, 1.0
    found = scores(make_model(make_config(), BASKETS, COUNTS), [0, 2])
    np.testing.assert_allclose(found, [[first + second, first + second, second + third, -1]], rtol=1e-6)
    # the two most similar are the third and the second
    found = scores(make_model(make_config(num_neighbours=2), BASKETS, COUNTS), [0, 2])
    np.testing.assert_allclose(found, [[second, second, second + third, -1]], rtol=1e-6)


@pytest.mark.usefixtures("any_number")
def test_the_later_of_equally_similar_timelines_is_used() -> None:
    baskets = sp.csr_matrix(np.array([[0, 0, 0], [1, 0, 1], [1, 1, 0]], np.float32))
    found = scores(make_model(make_config(num_neighbours=1), baskets, np.zeros(3)), [0])
    assert (found[0] > 0).tolist() == [True, False, True]


def test_the_latest_timelines_of_an_item_are_sampled() -> None:
    # in order of the timelines 0 1 | 0 1 2 | 2
    assert sampled_entries(BASKETS, 1).tolist() == [True, True, False, False, True, False]
    assert sampled_entries(BASKETS, 2).all()


def test_items_of_no_similar_timeline_rank_last_by_popularity() -> None:
    model = make_model(make_config(), BASKETS, COUNTS)
    # (events / 6) - 1 of items with 5, 3, 1 and 0 events
    popularity = np.array([5 / 6, 3 / 6, 1 / 6, 0]) - 1
    np.testing.assert_allclose(scores(model, [], [9]), [popularity] * 2, rtol=1e-6)
    pairs = model.pair_scores(tf.constant([0, 7, 0], tf.int64), tf.constant([1, 1, 9], tf.int64))
    np.testing.assert_allclose(pairs, [-0.5, -0.5, -1], rtol=1e-6)
    assert scores(model).shape == (0, 4)


def test_the_similarity_of_items_is_that_of_their_timelines() -> None:
    found = make_model(make_config(), BASKETS, COUNTS).item_similarities(tf.constant([2, 0], tf.int64))
    third, second = 3**-0.5, 2**-0.5
    np.testing.assert_allclose(
        found, [[third, third, third + 1, 0], [third + second, third + second, third, 0]], rtol=1e-6
    )
