import numpy as np
import pytest
import tensorflow as tf

from trainer.models.least_squares import row_l2, solve_rows

UNOBSERVED = 0.1


def solve(is_long: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Solves two rows over ten vectors with a diagonal Gramian; the second row has a padding entry."""
    generator = np.random.default_rng(0)
    table = np.linalg.qr(generator.normal(size=(10, 4)))[0] * [1, 2, 3, 4]
    entries = np.array([[0, 3, 7, 8, 9], [2, 5, 6, 1, 4]])
    weights = np.array([[1, 2, 0.5, 3, 1], [4, 1, 1, 1, 0]])
    l2 = np.array([0.3, 0.7])
    solved, minimum = solve_rows(
        tf.constant(table[entries], tf.float32),
        tf.constant(weights, tf.float32),
        tf.constant(np.array([1, 4, 9, 16]), tf.float32),
        tf.constant(l2, tf.float32),
        unobserved_weight=UNOBSERVED,
        is_long=is_long,
    )
    confidence, preference = np.full((2, 10), UNOBSERVED), np.zeros((2, 10))
    for row in range(2):
        for item, weight in zip(entries[row], weights[row], strict=True):
            confidence[row, item] += weight
            preference[row, item] = float(weight > 0)
    expected = np.stack(
        [
            np.linalg.solve(table.T @ (c[:, None] * table) + factor * np.eye(4), table.T @ (c * p))
            for c, p, factor in zip(confidence, preference, l2, strict=True)
        ]
    )
    objective = (confidence * (preference - expected @ table.T) ** 2).sum(axis=1) + l2 * (expected**2).sum(axis=1)
    return solved.numpy(), minimum.numpy(), expected, objective, table


@pytest.mark.parametrize("is_long", [False, True])
def test_rows_are_solved_like_the_dense_normal_equations(is_long: bool) -> None:
    solved, minimum, expected, objective, _ = solve(is_long)
    np.testing.assert_allclose(solved, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(minimum, objective, rtol=1e-4)


@pytest.mark.parametrize("is_long", [False, True])
def test_a_row_without_entries_is_zero(is_long: bool) -> None:
    solved, minimum = solve_rows(
        tf.ones([1, 2, 3]),
        tf.zeros([1, 2]),
        tf.constant([2.0, 0.0, 0.0]),
        tf.constant([0.5]),
        unobserved_weight=UNOBSERVED,
        is_long=is_long,
    )
    np.testing.assert_array_equal(solved, [[0, 0, 0]])
    np.testing.assert_array_equal(minimum, [0])


def test_regularization_grows_with_a_power_of_the_row_length() -> None:
    entries = tf.constant([0, 15])
    # 0 + 0.1 × 10 = 1 and 15 + 1 = 16
    np.testing.assert_allclose(row_l2(entries, 10, l2=2.0, l2_power=0.5, unobserved_weight=0.1), [2, 8], rtol=1e-6)
    np.testing.assert_allclose(row_l2(entries, 10, l2=2.0, l2_power=0.0, unobserved_weight=0.1), [2, 2], rtol=1e-6)
