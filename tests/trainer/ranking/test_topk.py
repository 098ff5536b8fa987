import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.ranking.fakes import TableScorer, histories_of, queries_of
from trainer.models.interface import Queries
from trainer.models.top_items import TopItems, add_items, top_k
from trainer.ranking.topk import chunk_size, query_chunks, visible_scores


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_best_of_a_part_and_the_other_items_are_the_best_of_all(levels):
    """Scores have both signs and ties, also between -0.0 and 0.0. The last two of the other items are padding."""
    generator = np.random.default_rng(levels)
    scores = (generator.integers(-levels, levels + 1, (40, 30)) / 7).astype(np.float32)
    scores[generator.random((40, 30)) < 0.2] = -0.0
    others = np.stack([generator.permutation(30)[:8] for _ in range(40)])
    part = scores.copy()
    np.put_along_axis(part, others, -np.inf, axis=1)
    other_scores = np.take_along_axis(scores, others, axis=1)
    other_scores[:, 6:] = -np.inf
    np.put_along_axis(scores, others[:, 6:], -np.inf, axis=1)
    top = add_items(top_k(tf.constant(part), 6), tf.constant(others), tf.constant(other_scores))
    expected = np.lexsort([np.tile(np.arange(30), (40, 1)), -scores])[:, :6]
    np.testing.assert_array_equal(top.item, expected)
    np.testing.assert_array_equal(top.score, np.take_along_axis(scores, expected, axis=1))


def test_among_the_best_of_a_part_items_with_equal_scores_keep_the_order_of_the_catalogue():
    part = TopItems(tf.constant([[4, 9]], tf.int64), tf.constant([[1.0, 1.0]]))
    top = add_items(part, tf.constant([[5, 2]], tf.int64), tf.constant([[1.0, 1.0]]))
    assert top.item.numpy().tolist() == [[2, 4]]


def test_only_items_of_the_history_are_hidden():
    scorer = TableScorer(np.ones((2, 4)))
    # item 9 is not in the catalogue; the second history is shorter, and its padding is not part of it
    scores = visible_scores(scorer, queries_of([0, 1], [[2, 9, 2], [3]]), is_seen_hidden=True)
    np.testing.assert_array_equal(np.isinf(scores), [[0, 0, 1, 0], [0, 0, 0, 1]])


def test_padding_may_contain_any_index():
    queries = Queries.of_items(
        tf.constant([0], tf.int64), tf.constant([[1, 0, -1]], tf.int64), tf.constant([1], tf.int64)
    )
    scores = visible_scores(TableScorer(np.ones((1, 3))), queries, is_seen_hidden=True)
    np.testing.assert_array_equal(np.isinf(scores), [[0, 1, 0]])


def test_seen_items_are_shown_on_request():
    scores = visible_scores(TableScorer(np.ones((1, 4))), queries_of([0], [[2]]), is_seen_hidden=False)
    np.testing.assert_array_equal(scores, np.ones((1, 4)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_raise(bad):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
        visible_scores(TableScorer(np.array([[1.0, bad]])), queries_of([0]), is_seen_hidden=True)


def test_a_chunk_has_as_many_visitors_as_scores_fit_in_memory():
    # 1,000 items of 4 bytes: 4,000 bytes per visitor
    assert chunk_size(1000, scores_bytes=12_500) == 3
    assert chunk_size(1000, scores_bytes=1) == 1


def test_chunks_have_the_same_size_and_the_last_is_padded():
    history = histories_of([[5], [6, 7], []])
    chunks = list(query_chunks(np.array([10, 11, 12]), history, np.array([20, 21, 22]), 2))
    assert [chunk for chunk, _ in chunks] == [slice(0, 2), slice(2, 3)]
    np.testing.assert_array_equal(chunks[0][1].history, [[5, 0], [6, 7]])
    np.testing.assert_array_equal(chunks[0][1].history_length, [1, 2])
    np.testing.assert_array_equal(chunks[0][1].history_timestamp_ms, [[0, 0], [0, 1]])
    np.testing.assert_array_equal(chunks[0][1].timestamp_ms, [20, 21])
    np.testing.assert_array_equal(chunks[1][1].visitor, [12, 0])
    np.testing.assert_array_equal(chunks[1][1].history_length, [0, 0])
