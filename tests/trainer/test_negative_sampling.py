import numpy as np
import tensorflow as tf

from trainer.negative_sampling import NegativeSampler


def draw(sampler: NegativeSampler, step: int) -> np.ndarray:
    return sampler.draw(tf.constant(step, tf.int64)).numpy()


def test_draws_depend_on_seed_and_step_alone() -> None:
    counts = np.arange(100)
    one, same, other = (NegativeSampler(counts, num_drawn=50, drawn_power=0.5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(draw(one, 7), draw(same, 7))
    assert not np.array_equal(draw(one, 7), draw(one, 8))
    assert not np.array_equal(draw(one, 7), draw(other, 7))


def test_items_are_drawn_in_proportion_to_a_power_of_their_count() -> None:
    # (count + 1) ** 0.5 is 1, 2, 3, 4: shares 0.1, 0.2, 0.3, 0.4
    sampler = NegativeSampler(np.array([0, 3, 8, 15]), num_drawn=40_000, drawn_power=0.5, seed=0)
    shares = np.bincount(draw(sampler, 0), minlength=4) / 40_000
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.01)


def test_the_last_of_a_million_items_can_be_drawn_and_none_beyond() -> None:
    counts = np.zeros(1_000_000, np.int64)
    drawn = draw(NegativeSampler(counts, num_drawn=100_000, drawn_power=1.0, seed=0), 3)
    assert drawn.min() >= 0
    assert drawn.max() < 1_000_000
    # uniform: the mean of 100,000 draws has a standard deviation of 290,000 / 316 = 900
    assert abs(drawn.mean() - 500_000) < 5_000


def test_expected_counts_add_up_over_both_sources() -> None:
    # shares in the batch 1/4, 3/4; drawn evenly (power 0), 10 items
    sampler = NegativeSampler(np.array([1, 3]), num_drawn=10, drawn_power=0.0, seed=0)
    found = np.exp(sampler.log_expected_count(tf.constant([0, 1, 1]), tf.constant(8.0)))
    # 8 × 1/4 + 10 × 1/2 = 7; 8 × 3/4 + 10 × 1/2 = 11
    np.testing.assert_allclose(found, [7.0, 11.0, 11.0], rtol=1e-6)


def test_no_draws_leave_the_batch_alone() -> None:
    sampler = NegativeSampler(np.array([1, 3]), num_drawn=0, drawn_power=0.5, seed=0)
    assert draw(sampler, 0).shape == (0,)
    np.testing.assert_allclose(np.exp(sampler.log_expected_count(tf.constant([1]), tf.constant(8.0))), [6.0], rtol=1e-6)
