import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from trainer.config.run import MatrixFactorizationConfig
from trainer.models.interface import Queries
from trainer.models.matrix_factorization import MatrixFactorization, MatrixFactorizationInference, item_width
from trainer.runs.checkpoint import Weights

COUNTS = np.array([100, 10, 1])
"""Training events of three items."""


def make_model(
    *, item_counts: np.ndarray | None = COUNTS, similarity: str = "cosine", has_item_bias: bool = True
) -> MatrixFactorizationInference:
    """2 visitors and 3 items known, one bucket of each, 2 columns."""
    config = MatrixFactorizationConfig(dim=2, similarity=similarity, scale=10.0, has_item_bias=has_item_bias)
    items = np.array([[1, 0, 5], [0, 2, -2.5], [3, 4, 0], [7, 7, 7]], np.float32)
    visitors = np.array([[2, 0], [0, 0.1], [5, 5]], np.float32)
    model = MatrixFactorizationInference(
        config, num_visitors=2, visitor_rows=3, num_items=3, item_rows=4, item_counts=item_counts
    )
    model.fill(Weights({"visitor": visitors, "item": items[:, : item_width(config)]}, []))
    return model


def catalogue(model: MatrixFactorizationInference, visitors: list[int]) -> np.ndarray:
    visitor = tf.constant(visitors, tf.int64)
    scores: np.ndarray = model.catalogue_scores(
        Queries.of_items(visitor, tf.zeros([len(visitors), 0], tf.int64), tf.zeros_like(visitor))
    ).numpy()
    return scores


def test_a_score_is_the_scaled_cosine_plus_the_bias_of_the_item() -> None:
    # the table's last column is ten times the bias
    # visitor 0 points along the first axis, visitor 1 along the second, item 2 is (0.6, 0.8)
    expected = [[10 + 0.5, -0.25, 6], [0.5, 10 - 0.25, 8]]
    np.testing.assert_allclose(catalogue(make_model(), [0, 1]), expected, rtol=1e-6, atol=1e-6)


def test_a_dot_product_keeps_the_lengths() -> None:
    model = make_model(similarity="dot", has_item_bias=False)
    # 10 × (2, 0) and 10 × (0, 0.1) times (1, 0), (0, 2), (3, 4)
    np.testing.assert_allclose(catalogue(model, [0, 1]), [[20, 0, 60], [0, 2, 4]], rtol=1e-6)


def test_an_unknown_visitor_gets_the_popular_items() -> None:
    expected = np.tile(np.log1p(COUNTS), (2, 1))
    np.testing.assert_allclose(catalogue(make_model(), [2, 99]), expected, rtol=1e-6)


def test_without_counts_a_bucket_scores_with_its_own_row() -> None:
    # (5, 5) is at 45 degrees to both axes, and at cosine 1.4 × 0.7071 to (0.6, 0.8)
    root = np.sqrt(0.5)
    expected = [[10 * root + 0.5, 10 * root - 0.25, 14 * root]]
    np.testing.assert_allclose(catalogue(make_model(item_counts=None), [2]), expected, rtol=1e-6)


@pytest.mark.parametrize("item_counts", [COUNTS, None], ids=["ranks by popularity", "buckets"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("has_item_bias", [True, False])
def test_a_pair_scores_as_in_the_catalogue(
    item_counts: np.ndarray | None, similarity: str, has_item_bias: bool
) -> None:
    model = make_model(item_counts=item_counts, similarity=similarity, has_item_bias=has_item_bias)
    visitors, items = np.meshgrid([0, 1, 2, 99], [0, 1, 2], indexing="ij")
    pairs = model.pair_scores(tf.constant(visitors.ravel()), tf.constant(items.ravel())).numpy()
    np.testing.assert_allclose(pairs.reshape(4, 3), catalogue(model, [0, 1, 2, 99]), rtol=1e-6, atol=1e-6)


def test_an_unknown_item_scores_like_the_least_popular_one_without_similarity() -> None:
    scores = make_model().pair_scores(tf.constant([0, 1, 2]), tf.constant([3, 99, 3]))
    # the lowest bias is -0.25; for the unknown visitor an item without events has log1p(0)
    np.testing.assert_allclose(scores, [-0.25, -0.25, 0.0], atol=1e-6)


def test_an_item_without_events_scores_as_an_unknown_one_for_it_was_drawn_but_never_learnt() -> None:
    scores = catalogue(make_model(item_counts=np.array([100, 0, 0])), [0, 1])
    np.testing.assert_allclose(scores, [[10.5, 0.5, 0.5], [0.5, 0.5, 0.5]], atol=1e-6)


def test_without_counts_an_unknown_item_scores_with_its_own_row() -> None:
    model = make_model(item_counts=None, similarity="dot", has_item_bias=False)
    # 10 × 2 × 7; an index beyond the buckets takes the last of them
    np.testing.assert_allclose(model.pair_scores(tf.constant([0, 0]), tf.constant([3, 99])), [140.0, 140.0])


def test_item_vectors_are_those_of_the_vocabulary() -> None:
    np.testing.assert_allclose(make_model().item_vectors(), [[1, 0], [0, 1], [0.6, 0.8]], rtol=1e-6)


def test_a_vector_of_zeros_has_a_score() -> None:
    model = MatrixFactorization(MatrixFactorizationConfig(dim=2))
    vectors, biases = model.place_items(tf.zeros([1, 3]))
    np.testing.assert_array_equal(
        model.candidate_scores(model.place_visitors(tf.zeros([1, 2])), vectors, biases), [[0]]
    )


def test_products_in_bfloat16_are_near_those_in_float32() -> None:
    config = MatrixFactorizationConfig(dim=16)
    generator = np.random.default_rng(0)
    visitors, items = (tf.constant(generator.normal(size=(5, width)).astype(np.float32)) for width in (16, 17))
    scores = []
    for dtype in (tf.float32, tf.bfloat16):
        model = MatrixFactorization(config, dtype)
        scores.append(model.candidate_scores(model.place_visitors(visitors), *model.place_items(items)))
        assert scores[-1].dtype == tf.float32
    # scores of up to 10 with 8 bits
    np.testing.assert_allclose(scores[0], scores[1], atol=0.1)
    assert not np.array_equal(scores[0], scores[1])


def make_composed() -> MatrixFactorizationInference:
    """Items (1, 0), (0, 1) and (0.6, 0.8); in training visitor 0 touched the first two, visitor 1 nothing known."""
    config = MatrixFactorizationConfig(dim=2, has_item_bias=False, history_length=5)
    items = np.array([[1, 0], [0, 2], [3, 4], [7, 7]], np.float32)
    model = MatrixFactorizationInference(
        config,
        num_visitors=2,
        visitor_rows=2,
        visitor_items=sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 0]])),
        num_items=3,
        item_rows=4,
        item_counts=COUNTS,
    )
    model.fill(Weights({"item": items}, []))
    return model


def test_a_visitor_is_served_from_his_history_whether_he_was_known_or_not() -> None:
    history, lengths = tf.constant([[2, 9], [0, 3], [1, 1], [3, 2]], tf.int64), tf.constant([1, 2, 2, 1], tf.int64)
    found = make_composed().catalogue_scores(Queries.of_items(tf.constant([0, 1, 9, 9], tf.int64), history, lengths))
    # of item 2; of item 0 and an unknown one; of item 1, twice; nothing known: by popularity
    expected = [[6, 8, 10], [10, 0, 6], [0, 10, 8], np.log1p(COUNTS)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def test_pieces_of_the_catalogue_score_as_the_whole_does() -> None:
    queries = Queries.of_items(
        tf.constant([0, 9], tf.int64), tf.constant([[2], [3]], tf.int64), tf.constant([1, 1], tf.int64)
    )
    score = make_composed().piece_scores(queries)
    # of item 2; nothing known: by popularity
    whole = np.stack([[6, 8, 10], np.log1p(COUNTS)])
    np.testing.assert_allclose(score(0, 2), whole[:, :2], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(score(tf.constant(1), 2), whole[:, 1:], rtol=1e-6, atol=1e-5)


def test_without_a_history_a_visitor_is_what_he_touched_in_training() -> None:
    root = np.sqrt(0.5)
    # 45 degrees; who touched nothing scores 0; unknown: by popularity
    expected = [[10 * root, 10 * root, 14 * root], [0, 0, 0], np.log1p(COUNTS)]
    np.testing.assert_allclose(catalogue(make_composed(), [0, 1, 2]), expected, rtol=1e-6)
    pairs = make_composed().pair_scores(tf.constant([0, 0]), tf.constant([1, 2]))
    np.testing.assert_allclose(pairs, [10 * root, 14 * root], rtol=1e-6)


def test_a_learnt_scale_is_the_exponential_of_the_weight() -> None:
    config = MatrixFactorizationConfig(dim=2, has_item_bias=False, is_scale_learnt=True)
    model = MatrixFactorizationInference(
        config, num_visitors=1, visitor_rows=1, num_items=1, item_rows=2, item_counts=None
    )
    tables = {"visitor": np.ones((1, 2), np.float32), "item": np.ones((2, 2), np.float32)}
    model.fill(Weights(tables, [np.array(np.log(4), np.float32)]))
    np.testing.assert_allclose(catalogue(model, [0]), [[4.0]], rtol=1e-6)
