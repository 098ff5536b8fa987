"""Compares EASE with figures that were computed by hand and with a plain inverse."""

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from tests.trainer.models.test_walk import as_matrix
from tests.trainer.ranking.fakes import queries_of
from trainer.config.models import EaseConfig
from trainer.models import ease
from trainer.models.ease import ease_rows, row_counter
from trainer.models.item_neighbours import NeighbourInference
from trainer.runs.checkpoint import Weights

# timelines {0, 1} and {0}; item 2 is in none
BASKETS = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 0]], np.float32))


def plain_weights(baskets: np.ndarray, l2: float) -> np.ndarray:
    """Returns weights [I, I], computed by the formula."""
    inverse = np.linalg.inv(baskets.T.astype(np.float64) @ baskets + l2 * np.eye(baskets.shape[1]))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def random_baskets(num_timelines: int, num_items: int) -> np.ndarray:
    return (np.random.default_rng(3).random((num_timelines, num_items)) < 0.3).astype(np.float32)


def make_model(recency: float = 0.0, num_frequent_items: int = 2) -> NeighbourInference:
    config = EaseConfig(l2=(1.0,), recency_power=(recency,), num_neighbours=2, num_frequent_items=num_frequent_items)
    model = NeighbourInference(config, np.array([5, 3, 1]))
    (rows,) = row_counter(config, BASKETS)(0, 0, 1)
    model.fill(Weights(rows.tables, [np.array(config.combinations[0], np.float32)]))
    return model


def scores(model: NeighbourInference, *histories: list[int]) -> np.ndarray:
    found: np.ndarray = model.catalogue_scores(queries_of([0] * len(histories), histories)).numpy()
    return found


def test_the_weights_are_worked_out_by_hand() -> None:
    (rows,) = ease_rows(BASKETS[:, :2], 1.0, 2)
    # XᵀX + 1 is [[3, 1], [1, 2]], and its inverse [[2, -1], [-1, 3]] / 5
    np.testing.assert_allclose(as_matrix(rows.neighbour, rows.weight, 2), [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)
    np.testing.assert_allclose(rows.total_weight, [1 / 3, 1 / 2], rtol=1e-6)


@pytest.mark.parametrize("num_timelines", [10, 60])
def test_the_weights_equal_a_plain_inverse_in_any_blocks(num_timelines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    baskets = random_baskets(num_timelines, 25)
    monkeypatch.setattr(ease, "_BLOCK_ENTRIES", 25 * 7)
    blocks = list(ease_rows(sp.csr_matrix(baskets), 2.0, 25))
    assert [len(rows.weight) for rows in blocks] == [7, 7, 7, 4]
    found = np.concatenate([as_matrix(rows.neighbour, rows.weight, 25) for rows in blocks])
    np.testing.assert_allclose(found, plain_weights(baskets, 2.0), atol=2e-6)


def test_the_neighbours_are_the_items_with_the_largest_absolute_weights() -> None:
    baskets = random_baskets(60, 25)
    (rows,) = ease_rows(sp.csr_matrix(baskets), 2.0, 10)
    expected = plain_weights(baskets, 2.0)
    smallest = np.sort(np.abs(expected), axis=1)[:, -10]
    expected[np.abs(expected) < smallest[:, None]] = 0
    assert expected.min() < 0
    np.testing.assert_allclose(as_matrix(rows.neighbour, rows.weight, 25), expected, atol=2e-6)


def test_replicas_share_the_rows_of_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "_BLOCK_ENTRIES", 25 * 7)
    baskets, config = sp.csr_matrix(random_baskets(60, 25)), EaseConfig(num_neighbours=4)
    whole = np.concatenate([rows.weight for rows in ease_rows(baskets, config.l2[1], 4)])
    count = row_counter(config, baskets)
    for replica in range(3):
        owned = np.concatenate([rows.tables["weight"] for rows in count(1, replica, 3)])
        np.testing.assert_array_equal(owned, whole[replica::3])


def test_a_score_adds_the_weights_of_distinct_items_by_their_latest_entry() -> None:
    # item 0 leads to item 1 with 1 / 3, and item 1 to item 0 with 1 / 2
    np.testing.assert_allclose(scores(make_model(), [0, 1, 0])[0, :2], [1 / 2, 1 / 3], rtol=1e-6)
    # the latest entry of item 0 is one older than the latest of the history, which is unknown
    np.testing.assert_allclose(scores(make_model(recency=1.0), [0, 0, 9])[0, 1], 1 / 6, rtol=1e-6)


def test_items_without_weights_rank_last_by_popularity() -> None:
    # (events / 6) - 1 of items with 5, 3 and 1 events; item 2 is not among the two most frequent ones
    popularity = np.array([5 / 6, 3 / 6, 1 / 6]) - 1
    np.testing.assert_allclose(scores(make_model(), [], [2]), [popularity] * 2, rtol=1e-6)
    np.testing.assert_allclose(scores(make_model(), [0])[0, [0, 2]], popularity[[0, 2]], rtol=1e-6)
    similarities = make_model().item_similarities(tf.constant([2, 0], tf.int64))
    np.testing.assert_allclose(similarities, [[0, 0, 0], [0, 1 / 3, 0]], rtol=1e-6)


def test_weights_that_float32_cannot_solve_are_refused() -> None:
    twins = sp.csr_matrix(np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"EASE cannot be solved with model\.l2=1e-09 in float32; raise model\.l2"):
        list(ease_rows(twins, 1e-9, 2))
