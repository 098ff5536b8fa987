import numpy as np
import pytest
import tensorflow as tf

from trainer.models.top_items import top_k


def test_the_best_items_are_first_and_ties_are_in_catalogue_order():
    top = top_k(tf.constant([[1.0, 3.0, 2.0, 3.0]]), 3)
    np.testing.assert_array_equal(top.item, [[1, 3, 2]])
    np.testing.assert_array_equal(top.score, [[3, 3, 2]])


@pytest.mark.parametrize("num_items", [5 * 256, 2000, 2047])
@pytest.mark.parametrize("k", [1, 5])
def test_a_large_catalogue_is_ranked_like_a_simple_sort(num_items, k):
    """Rows have many ties. Some rows are mostly hidden or have equal scores; some catalogues end within a block."""
    generator = np.random.default_rng(num_items)
    scores = generator.integers(0, 20, (40, num_items)).astype(np.float32)
    scores[:10][generator.random((10, num_items)) < 0.999] = -np.inf
    scores[10] = 3
    scores[11] = -np.inf
    scores[12, -1] = 99  # after the last block
    expected = np.lexsort([np.tile(np.arange(num_items), (40, 1)), -scores])[:, :k]
    for limit in (k, tf.constant(k)):
        top = tf.function(top_k)(tf.constant(scores), limit)
        np.testing.assert_array_equal(top.item, expected)
        np.testing.assert_array_equal(top.score, np.take_along_axis(scores, expected, axis=1))
