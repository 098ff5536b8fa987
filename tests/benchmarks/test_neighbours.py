import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks.neighbours import ItemNeighbours, NeighboursConfig, TimelineNeighbours, item_similarity
from tests.trainer.ranking.fakes import queries_of
from trainer.models import item_products


def baskets(*rows):
    return sp.csr_matrix(np.array(rows, np.float32))


# three timelines over items 0 … 3: {0, 1}, {0, 1, 2}, {2}; item 3 is in none
BASKETS = baskets([1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 0])


def test_cosine_divides_common_timelines_by_the_root_of_the_product_of_both_items_timelines():
    similarity = item_similarity(BASKETS, is_tfidf=False).toarray()
    # 0 and 1 have two each and share both; 0 and 2 have two each and share one: 1 / sqrt(2 × 2)
    np.testing.assert_allclose(similarity, [[1, 1, 0.5, 0], [1, 1, 0.5, 0], [0.5, 0.5, 1, 0], [0, 0, 0, 0]], atol=1e-6)


def test_shrinkage_is_added_to_the_product_of_the_norms():
    similarity = item_similarity(BASKETS, is_tfidf=False, config=NeighboursConfig(shrinkage=2.0)).toarray()
    # 0 and 1: 2 / (2 + 2); 0 and 2: 1 / (2 + 2)
    np.testing.assert_allclose(similarity[0], [0.5, 0.5, 0.25, 0], atol=1e-6)


def test_tfidf_gives_shorter_timelines_more_weight():
    similarity = item_similarity(BASKETS, is_tfidf=True).toarray()
    # weights ln(1 + 4/2), ln(1 + 4/3), ln(1 + 4/1) of the three timelines
    first, second, third = np.log(3), np.log(7 / 3), np.log(5)
    expected = second**2 / np.sqrt((first**2 + second**2) * (second**2 + third**2))
    assert similarity[0, 2] == pytest.approx(expected, abs=1e-6)
    assert similarity[0, 0] == pytest.approx(1, abs=1e-6)


def test_similarities_computed_in_blocks_equal_those_computed_at_once(monkeypatch):
    random = sp.random(60, 40, density=0.1, format="csr", rng=np.random.default_rng(0), dtype=np.float32)
    random.data[:] = 1
    five = NeighboursConfig(num_neighbours=5)
    at_once = item_similarity(random, is_tfidf=True, config=five)
    monkeypatch.setattr(item_products, "_BLOCK_ENTRIES", 30)
    in_blocks = item_similarity(random, is_tfidf=True, config=five)
    np.testing.assert_allclose(in_blocks.toarray(), at_once.toarray(), atol=1e-6)
    assert np.diff(at_once.indptr).max() == 5


def test_older_items_of_the_history_have_less_weight():
    similarity = sp.csr_matrix(np.array([[1, 0.5, 0], [0, 1, 0.4], [0, 0, 1]], np.float32))
    scorer = ItemNeighbours(similarity, np.array([5, 3, 1]))
    # history 0, 1: weights 1/2 and 1: 0.5, 0.5 × 0.5 + 1, 0.4
    scores = scorer.catalogue_scores(queries_of([0, 1], [[0, 1], [2]])).numpy()
    np.testing.assert_allclose(scores[0], [0.5, 1.25, 0.4], atol=1e-6)
    # history 2: it has no other neighbour, so the others rank last by popularity: 5/6 - 1 and 3/6 - 1
    np.testing.assert_allclose(scores[1], [-1 / 6, -1 / 2, 1], atol=1e-6)


def test_with_a_half_life_the_weight_of_an_item_halves_per_half_life():
    identity, counts = sp.csr_matrix(np.eye(3, dtype=np.float32)), np.array([1, 1, 1])
    scorer = ItemNeighbours(identity, counts, NeighboursConfig(half_life_rows=2.0))
    # ages 2, 1 and 0: 1/2, 1/√2 and 1
    scores = scorer.catalogue_scores(queries_of([0], [[0, 1, 2]])).numpy()
    np.testing.assert_allclose(scores, [[0.5, np.sqrt(0.5), 1]], atol=1e-6)


def test_the_weights_of_repeated_items_add_up_and_unknown_items_only_count_as_rows():
    scorer = ItemNeighbours(sp.csr_matrix(np.eye(2, dtype=np.float32)), np.array([1, 1]))
    # 0, unknown, 0, 1: 1/4 + 1/2 for item 0, 1 for item 1
    scores = scorer.catalogue_scores(queries_of([0], [[0, 7, 0, 1]])).numpy()
    np.testing.assert_allclose(scores, [[0.75, 1]], atol=1e-6)


def test_without_a_known_item_in_the_history_popular_items_come_first():
    for scorer in (
        ItemNeighbours(BASKETS.T @ BASKETS, np.array([4, 2, 9, 0])),
        TimelineNeighbours(BASKETS, np.array([4, 2, 9, 0])),
    ):
        scores = scorer.catalogue_scores(queries_of([0, 1], [[], [8]])).numpy()
        assert np.argsort(-scores, axis=1).tolist() == [[2, 0, 1, 3]] * 2


def test_items_are_scored_by_the_similarity_of_the_timelines_that_contain_them():
    scorer = TimelineNeighbours(BASKETS, np.array([1, 1, 1, 0]))
    # history 2: similarity 1 / sqrt(3) to the second timeline and 1 to the third
    scores = scorer.catalogue_scores(queries_of([0], [[2]])).numpy()[0]
    root = 1 / np.sqrt(3)
    np.testing.assert_allclose(scores, [root, root, 1 + root, -1], atol=1e-6)
    # with one neighbour, only the third
    one = TimelineNeighbours(BASKETS, np.array([1, 1, 1, 0]), NeighboursConfig(num_neighbours=1))
    np.testing.assert_allclose(one.catalogue_scores(queries_of([0], [[2]])).numpy()[0], [-0.5, -0.5, 1, -1], atol=1e-6)
