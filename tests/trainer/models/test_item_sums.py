import numpy as np
import pytest
import tensorflow as tf

from trainer.models.item_sums import item_sums


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]])
def test_the_weights_of_each_query_are_added_up_by_item(gpus, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: gpus)
    item, weight = tf.constant([2, 0, 2, 1, 0], tf.int32), tf.constant([1.0, 2.0, 4.0, 8.0, 16.0])
    # query 0 has the first three pairs, query 1 has none, query 2 has the last two
    sums = item_sums(item, weight, tf.constant([0, 3, 3, 5], tf.int64), 4)
    np.testing.assert_array_equal(sums, [[2, 0, 5, 0], [0, 0, 0, 0], [16, 8, 0, 0]])
    assert sums.dtype == tf.float32


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]])
def test_queries_without_any_weights_have_sums_of_zero(gpus, monkeypatch):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda _: gpus)
    nothing = tf.constant([], tf.int32), tf.constant([], tf.float32)
    np.testing.assert_array_equal(item_sums(*nothing, tf.constant([0, 0, 0], tf.int64), 3), np.zeros((2, 3)))
