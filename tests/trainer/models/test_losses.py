import numpy as np
import pytest
import tensorflow as tf

from trainer.data.negative_sampling import NegativeSampler
from trainer.models.losses import sampled_softmax, squared_error

NONE_EXCLUDED = tf.constant([[False]])


def test_squared_error_has_one_value_per_row() -> None:
    # (3 - 1)^2 = 4, (0.5 - 1)^2 = 0.25
    np.testing.assert_allclose(squared_error(tf.constant([3.0, 0.5]), tf.constant([1.0, 1.0])), [4.0, 0.25])


def test_a_candidate_is_weighted_by_the_inverse_of_its_expected_count() -> None:
    # equal scores, expected count 1/2: it represents 2 items, so the positive has probability 1 / (1 + 2)
    loss = sampled_softmax(tf.constant([0.7]), tf.constant([[0.7]]), tf.math.log([0.5]), NONE_EXCLUDED)
    np.testing.assert_allclose(loss, [np.log(3)], rtol=1e-6)
    # expected count 2: it represents half an item, so the probability is 1 / (1 + 1/2)
    loss = sampled_softmax(tf.constant([0.7]), tf.constant([[0.7]]), tf.math.log([2.0]), NONE_EXCLUDED)
    np.testing.assert_allclose(loss, [np.log(1.5)], rtol=1e-6)


def test_an_excluded_candidate_does_not_compete_and_gets_no_gradient() -> None:
    candidates = tf.constant([[2.0, 1.0], [1.0, 3.0]])
    is_excluded = tf.constant([[False, True], [True, True]])
    with tf.GradientTape() as tape:
        tape.watch(candidates)
        loss = sampled_softmax(tf.constant([2.0, 0.0]), candidates, tf.zeros([2]), is_excluded)
    # row 0: two equal scores, log 2; row 1: no candidates
    np.testing.assert_allclose(loss, [np.log(2), 0.0], rtol=1e-6)
    # row 0: the candidate's probability is 1/2
    np.testing.assert_allclose(tape.gradient(loss, candidates), [[0.5, 0.0], [0.0, 0.0]], rtol=1e-6)


def test_very_different_scores_neither_overflow_nor_vanish() -> None:
    loss = sampled_softmax(
        tf.constant([-500.0, 500.0]), tf.constant([[500.0], [-500.0]]), tf.zeros([1]), tf.constant([[False], [False]])
    )
    np.testing.assert_allclose(loss, [1000.0, 0.0])


@pytest.mark.parametrize("num_others", [0, 20_000])
def test_loss_and_gradient_approach_the_softmax_over_all_items(num_others: int) -> None:
    """Compares many candidates of both sources with the full softmax, at popularities from 1 to 1000."""
    counts = np.array([1000, 300, 100, 30, 10, 3, 1], np.int64)
    scores = np.array([0.3, -0.5, 1.0, 0.2, -1.0, 0.8, 1.5], np.float32)
    positive = 2
    sampler = NegativeSampler(counts, num_negatives=60_000, negative_power=0.5, seed=5)
    negatives = sampler.draw(tf.constant(0, tf.int64)).numpy()
    in_batch = np.random.default_rng(0).choice(len(counts), num_others, p=counts / counts.sum())
    candidates = tf.constant(np.concatenate([in_batch, negatives]))
    log_expected_count = sampler.log_expected_count(candidates, tf.constant(float(num_others)))

    item_scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(item_scores)
        estimate = sampled_softmax(
            item_scores[positive : positive + 1],
            tf.gather(item_scores, candidates)[None, :],
            log_expected_count,
            tf.equal(candidates, positive)[None, :],
        )[0]
    gradient = tf.convert_to_tensor(tape.gradient(estimate, item_scores)).numpy()

    probability = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(estimate, -np.log(probability[positive]), rtol=0.02)
    # the derivative of softmax cross entropy: the probability, minus one for the positive
    np.testing.assert_allclose(gradient, probability - np.eye(len(scores))[positive], atol=0.01)
