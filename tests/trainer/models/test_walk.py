"""Compares the walk with figures that were computed by hand and with plain loops."""

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import queries_of
from trainer.config.models import SessionKnnConfig, WalkConfig, WalkPowers
from trainer.models import item_products, session_knn, table_rows, walk
from trainer.models.item_neighbours import NeighbourInference
from trainer.models.walk import count_walk, walk_rows

POWERS = WalkPowers(item=0.5, neighbour=0.25, visitor=0.5, recency=1.0)
# three timelines over items 0 … 3: {0, 1}, {0, 1, 2}, {2}; item 3 is in none
BASKETS = sp.csr_matrix(np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0]], np.float32))


def plain_walk(baskets: np.ndarray, powers: WalkPowers) -> np.ndarray:
    """Returns weights [I, I], computed by the formula, one visitor at a time."""
    item_visitors, visitor_items = baskets.sum(axis=0), baskets.sum(axis=1)
    weights = np.zeros((baskets.shape[1],) * 2)
    for visitor, items in enumerate(map(np.flatnonzero, baskets)):
        for i in items:
            for j in items:
                weights[i, j] += visitor_items[visitor] ** -powers.visitor
    for i, j in zip(*weights.nonzero(), strict=True):
        weights[i, j] *= item_visitors[i] ** -powers.item * item_visitors[j] ** -powers.neighbour
    return weights


def as_matrix(neighbour: np.ndarray, weight: np.ndarray, num_items: int) -> np.ndarray:
    """Returns the weights [n, I] of the tables' rows as a matrix."""
    matrix = np.zeros((len(weight), num_items))
    np.add.at(matrix, (np.arange(len(weight))[:, None], neighbour.astype(int)), weight)
    return matrix


def make_model(baskets: sp.csr_matrix, powers: WalkPowers = POWERS, **settings: int) -> NeighbourInference:
    config = WalkConfig(**settings)
    model = NeighbourInference(config, np.array([5, 3, 1, 0]))
    model.fill(count_walk(baskets, powers, config.num_neighbours))
    return model


def scores(model: NeighbourInference, *histories: list[int]) -> np.ndarray:
    found: np.ndarray = model.catalogue_scores(queries_of([0] * len(histories), histories)).numpy()
    return found


def test_a_weight_combines_the_common_visitors_and_the_powers_of_all_counts() -> None:
    (rows,) = walk_rows(BASKETS, POWERS, 4, np.arange(4))
    # all items have two visitors: 2 ** -.5 × 2 ** -.25; the visitors have two, three and one items
    factor, two, three = 2**-0.75, 2**-0.5, 3**-0.5
    expected = factor * np.array(
        [[two + three, two + three, three, 0], [two + three, two + three, three, 0], [three, three, three + 1, 0]]
    )
    found = as_matrix(rows.neighbour, rows.weight, 4)
    np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
    assert not found[3].any()
    np.testing.assert_allclose(rows.total_weight, [*expected.sum(axis=1), 0], rtol=1e-6)


@pytest.mark.parametrize(
    "powers", [POWERS, WalkPowers(0.5, 0.5, 0, 0), WalkPowers(0, 0, 0, 0), WalkPowers(1, 0.3, 2, 0)]
)
def test_the_walk_equals_plain_loops_in_any_blocks(powers: WalkPowers, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    dense = (generator.random((40, 25)) < 0.2).astype(np.float32)
    monkeypatch.setattr(item_products, "_BLOCK_ENTRIES", 60)
    blocks = list(walk_rows(sp.csr_matrix(dense), powers, 25, np.arange(25)))
    assert len(blocks) > 3
    found = np.concatenate([as_matrix(rows.neighbour, rows.weight, 25) for rows in blocks])
    np.testing.assert_allclose(found, plain_walk(dense, powers), rtol=1e-5)


def test_only_the_items_with_the_largest_weights_are_neighbours_and_ties_go_to_the_lower_index() -> None:
    # by 1 / visitors of the neighbour: item 0 leads to itself, 1 and 2 with the same weight
    baskets = sp.csr_matrix(np.array([[1, 1, 1]], np.float32))
    (rows,) = walk_rows(baskets, WalkPowers(0, 1, 0, 0), 2, np.array([2]))
    assert rows.neighbour.tolist() == [[0, 1]]
    assert rows.weight.tolist() == [[1, 1]]
    assert rows.total_weight.tolist() == [3]


def test_a_score_adds_the_weights_of_the_history_by_age() -> None:
    model, matrix = make_model(BASKETS), plain_walk(BASKETS.toarray(), POWERS)
    # the history 0, 9, 2 has an unknown item: item 2 has age 0 and weight 1, item 0 has age 2 and weight 1 / 3
    np.testing.assert_allclose(scores(model, [0, 9, 2])[0, :3], matrix[2, :3] + matrix[0, :3] / 3, rtol=1e-6)
    equal = make_model(BASKETS, POWERS._replace(recency=0.0))
    # a repeated item adds up
    np.testing.assert_allclose(scores(equal, [0, 2, 0])[0, :3], 2 * matrix[0, :3] + matrix[2, :3], rtol=1e-6)


def test_only_the_latest_entries_of_a_history_are_used() -> None:
    np.testing.assert_array_equal(
        scores(make_model(BASKETS, max_items=1), [0, 2]), scores(make_model(BASKETS, max_items=1), [2])
    )


def test_items_that_nothing_leads_to_rank_last_by_popularity() -> None:
    model = make_model(BASKETS)
    # (events / 6) - 1 of items with 5, 3, 1 and 0 events
    popularity = np.array([5 / 6, 3 / 6, 1 / 6, 0]) - 1
    np.testing.assert_allclose(scores(model, [], [9]), [popularity] * 2, rtol=1e-6)
    assert scores(model, [2])[0, 3] == -1
    pairs = model.pair_scores(tf.constant([0, 7, 0], tf.int64), tf.constant([1, 1, 9], tf.int64))
    np.testing.assert_allclose(pairs, [-0.5, -0.5, -1], rtol=1e-6)


def test_the_similarity_of_items_is_the_weight_of_the_step() -> None:
    found = make_model(BASKETS).item_similarities(tf.constant([2, 0], tf.int64))
    np.testing.assert_allclose(found, plain_walk(BASKETS.toarray(), POWERS)[[2, 0]], rtol=1e-6)


def test_a_vocabulary_whose_indices_are_no_float32_is_refused(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build_dataset(str(tmp_path), train=[("anna", "a")], visitors=["anna"], items=["a", "b", "c"])
    monkeypatch.setattr(table_rows, "_MAX_ITEMS", 2)
    message = r"can have at most 2 items, but the dataset has 3; prepare it with a higher items\.min_count"
    with pytest.raises(ValueError, match=f"the walk {message}"):
        walk.table_rows(WalkConfig(), dataset)
    with pytest.raises(ValueError, match=f"session kNN {message}"):
        session_knn.table_rows(SessionKnnConfig(), dataset)
