import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from trainer.config.models import MatrixFactorizationConfig
from trainer.models.interface import Queries
from trainer.models.matrix_factorization import MatrixFactorization, MatrixFactorizationInference, item_width
from trainer.runs.checkpoint import Weights

COUNTS = np.array([100, 10, 1])
"""Training events of three items."""


def make_model(
    *, item_counts: np.ndarray | None = COUNTS, similarity: str = "cosine", has_item_bias: bool = True
) -> MatrixFactorizationInference:
    """Builds a model with 2 columns, 2 known visitors, 3 known items, and an out-of-vocabulary bucket for each."""
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
    # normalised, visitor 0 is (1, 0), visitor 1 is (0, 1), and item 2 is (0.6, 0.8)
    expected = [[10 + 0.5, -0.25, 6], [0.5, 10 - 0.25, 8]]
    np.testing.assert_allclose(catalogue(make_model(), [0, 1]), expected, rtol=1e-6, atol=1e-6)


def test_a_dot_product_does_not_normalise() -> None:
    model = make_model(similarity="dot", has_item_bias=False)
    # 10 × (2, 0) and 10 × (0, 0.1) times (1, 0), (0, 2), (3, 4)
    np.testing.assert_allclose(catalogue(model, [0, 1]), [[20, 0, 60], [0, 2, 4]], rtol=1e-6)


def test_an_unknown_visitor_gets_popular_items() -> None:
    expected = np.tile(np.log1p(COUNTS), (2, 1))
    np.testing.assert_allclose(catalogue(make_model(), [2, 99]), expected, rtol=1e-6)


def test_without_item_counts_buckets_have_their_own_rows() -> None:
    # (5, 5) has cosine 0.7071 with both axes, and 1.4 × 0.7071 with (0.6, 0.8)
    root = np.sqrt(0.5)
    expected = [[10 * root + 0.5, 10 * root - 0.25, 14 * root]]
    np.testing.assert_allclose(catalogue(make_model(item_counts=None), [2]), expected, rtol=1e-6)


@pytest.mark.parametrize("item_counts", [COUNTS, None], ids=["popularity", "buckets"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("has_item_bias", [True, False])
def test_pair_scores_equal_catalogue_scores(
    item_counts: np.ndarray | None, similarity: str, has_item_bias: bool
) -> None:
    model = make_model(item_counts=item_counts, similarity=similarity, has_item_bias=has_item_bias)
    visitors, items = np.meshgrid([0, 1, 2, 99], [0, 1, 2], indexing="ij")
    pairs = model.pair_scores(tf.constant(visitors.ravel()), tf.constant(items.ravel())).numpy()
    np.testing.assert_allclose(pairs.reshape(4, 3), catalogue(model, [0, 1, 2, 99]), rtol=1e-6, atol=1e-6)


def test_an_unknown_item_has_the_lowest_bias_and_a_zero_vector() -> None:
    scores = make_model().pair_scores(tf.constant([0, 1, 2]), tf.constant([3, 99, 3]))
    # the lowest bias is -0.25; the unknown visitor gets log1p(0), as for an item without events
    np.testing.assert_allclose(scores, [-0.25, -0.25, 0.0], atol=1e-6)


def test_an_item_without_events_scores_like_an_unknown_item() -> None:
    scores = catalogue(make_model(item_counts=np.array([100, 0, 0])), [0, 1])
    np.testing.assert_allclose(scores, [[10.5, 0.5, 0.5], [0.5, 0.5, 0.5]], atol=1e-6)


def test_without_item_counts_an_unknown_item_has_its_own_row() -> None:
    model = make_model(item_counts=None, similarity="dot", has_item_bias=False)
    # 10 × 2 × 7; an index after the buckets gets the last of them
    np.testing.assert_allclose(model.pair_scores(tf.constant([0, 0]), tf.constant([3, 99])), [140.0, 140.0])


def test_the_similarity_of_items_is_the_cosine_of_their_vectors() -> None:
    # the vectors (1, 0), (0, 1) and (0.6, 0.8)
    found = make_model().item_similarities(tf.constant([2, 0]))
    np.testing.assert_allclose(found, [[0.6, 0.8, 1], [1, 0, 0.6]], rtol=1e-6)


def test_a_vector_of_zeros_has_a_score() -> None:
    model = MatrixFactorization(MatrixFactorizationConfig(dim=2))
    vectors, biases = model.embed_items(tf.zeros([1, 3]))
    np.testing.assert_array_equal(
        model.candidate_scores(model.embed_visitors(tf.zeros([1, 2])), vectors, biases), [[0]]
    )


def test_scores_in_bfloat16_are_close_to_those_in_float32() -> None:
    config = MatrixFactorizationConfig(dim=16)
    generator = np.random.default_rng(0)
    visitors, items = (tf.constant(generator.normal(size=(5, width)).astype(np.float32)) for width in (16, 17))
    scores = []
    for dtype in (tf.float32, tf.bfloat16):
        model = MatrixFactorization(config, dtype)
        scores.append(model.candidate_scores(model.embed_visitors(visitors), *model.embed_items(items)))
        assert scores[-1].dtype == tf.float32
    # scores of up to 10 with 8 bits of precision
    np.testing.assert_allclose(scores[0], scores[1], atol=0.1)
    assert not np.array_equal(scores[0], scores[1])


def make_history_model() -> MatrixFactorizationInference:
    """Items are (1, 0), (0, 1), (0.6, 0.8). In training, visitor 0 had the first two, and visitor 1 no known item."""
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


def test_a_history_replaces_the_items_from_training() -> None:
    history, lengths = tf.constant([[2, 9], [0, 3], [1, 1], [3, 2]], tf.int64), tf.constant([1, 2, 2, 1], tf.int64)
    found = make_history_model().catalogue_scores(
        Queries.of_items(tf.constant([0, 1, 9, 9], tf.int64), history, lengths)
    )
    # histories of item 2; item 0 and an unknown one; item 1 twice; no known item, so by popularity
    expected = [[6, 8, 10], [10, 0, 6], [0, 10, 8], np.log1p(COUNTS)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)


def test_piece_scores_equal_catalogue_scores() -> None:
    queries = Queries.of_items(
        tf.constant([0, 9], tf.int64), tf.constant([[2], [3]], tf.int64), tf.constant([1, 1], tf.int64)
    )
    score = make_history_model().piece_scores(queries)
    # histories of item 2; no known item, so by popularity
    whole = np.stack([[6, 8, 10], np.log1p(COUNTS)])
    np.testing.assert_allclose(score(0, 2), whole[:, :2], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(score(tf.constant(1), 2), whole[:, 1:], rtol=1e-6, atol=1e-5)


def test_without_a_history_a_visitor_is_the_sum_of_their_training_items() -> None:
    root = np.sqrt(0.5)
    # the sum of the first two items; an empty sum scores 0; an unknown visitor: by popularity
    expected = [[10 * root, 10 * root, 14 * root], [0, 0, 0], np.log1p(COUNTS)]
    np.testing.assert_allclose(catalogue(make_history_model(), [0, 1, 2]), expected, rtol=1e-6)
    pairs = make_history_model().pair_scores(tf.constant([0, 0]), tf.constant([1, 2]))
    np.testing.assert_allclose(pairs, [10 * root, 14 * root], rtol=1e-6)


def test_a_learnt_scale_is_the_exponential_of_its_weight() -> None:
    config = MatrixFactorizationConfig(dim=2, has_item_bias=False, is_scale_learnt=True)
    model = MatrixFactorizationInference(
        config, num_visitors=1, visitor_rows=1, num_items=1, item_rows=2, item_counts=None
    )
    tables = {"visitor": np.ones((1, 2), np.float32), "item": np.ones((2, 2), np.float32)}
    model.fill(Weights(tables, [np.array(np.log(4), np.float32)]))
    np.testing.assert_allclose(catalogue(model, [0]), [[4.0]], rtol=1e-6)
