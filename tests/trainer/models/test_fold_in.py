"""Compares fold-in with the closed form of the objective (Hu et al., 2008)."""

import numpy as np
import tensorflow as tf

from trainer.config.optimizers import AlternatingConfig
from trainer.models.fold_in import MAX_ENTRIES, FoldIn
from trainer.models.interface import Queries

ITEMS = np.array([[1.0, 0.5], [-0.5, 1.0], [0.25, 2.0], [1.5, -1.0]])
WEIGHTS = (1.0, 2.0, 0.0)
CONFIG = AlternatingConfig(unobserved_weight=0.5, l2=0.3, l2_power=0.5)


def solve(histories, events=None):
    length = max(len(history) for history in histories)
    padded = tf.constant([[*history, *[99] * (length - len(history))] for history in histories], tf.int64)
    lengths = tf.constant([len(history) for history in histories], tf.int64)
    queries = Queries.of_items(tf.zeros_like(lengths), padded, lengths)
    if events is not None:
        queries = queries._replace(history_event=tf.constant(events, tf.int64))
    fold_in = FoldIn(CONFIG, WEIGHTS, len(ITEMS), ITEMS.shape[1])
    fold_in.fill(ITEMS.T @ ITEMS)
    vectors, is_solved = fold_in(tf.Variable(ITEMS, dtype=tf.float32), queries)
    return vectors.numpy(), is_solved.numpy().tolist()


def closed_form(weights):
    """Returns the visitor vector that minimises the objective, given the weights [I] of the visitor's pairs."""
    weights = np.array(weights)
    confidence = np.diag(weights + 0.5)
    l2 = 0.3 * np.sqrt((weights > 0).sum() + 0.5 * len(ITEMS))
    system = ITEMS.T @ confidence @ ITEMS + l2 * np.eye(2)
    return np.linalg.solve(system, ITEMS.T @ confidence @ (weights > 0))


def test_fold_in_solves_like_a_sweep():
    vectors, is_solved = solve([[0, 2], [3]])
    np.testing.assert_allclose(vectors, [closed_form([1, 0, 1, 0]), closed_form([0, 0, 0, 1])], rtol=1e-5)
    assert is_solved == [True, True]


def test_the_weights_of_repeated_items_add_up():
    # item 0 viewed, put into the cart and viewed again: 1 + 2 + 1; item 2 viewed
    vectors, _ = solve([[0, 0, 2, 0]], events=[[0, 1, 0, 0]])
    np.testing.assert_allclose(vectors[0], closed_form([4, 0, 1, 0]), rtol=1e-5)


def test_unknown_items_and_events_of_weight_0_are_ignored():
    vectors, is_solved = solve([[4, 99], [1, 1]], events=[[0, 0], [2, 2]])
    assert is_solved == [False, False]
    np.testing.assert_array_equal(vectors, np.zeros((2, 2)))


def test_only_the_latest_entries_of_a_long_history_are_used():
    vectors, _ = solve([[3] * 10 + [1] * MAX_ENTRIES])
    np.testing.assert_allclose(vectors[0], closed_form([0, MAX_ENTRIES, 0, 0]), rtol=1e-4)


def test_no_queries_give_no_vectors():
    fold_in = FoldIn(CONFIG, WEIGHTS, len(ITEMS), 2)
    empty = tf.zeros([0], tf.int64)
    vectors, is_solved = fold_in(
        tf.Variable(ITEMS, dtype=tf.float32), Queries.of_items(empty, tf.zeros([0, 3], tf.int64), empty)
    )
    assert (vectors.shape[0], is_solved.shape[0]) == (0, 0)
