from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.tiny_runs import first_epoch
from trainer.config.presets import PRESETS
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.replicas import start_replicas
from trainer.models.build import build_training_model


def draw(sampler: NegativeSampler, step: int) -> np.ndarray:
    return sampler.draw(tf.constant(step, tf.int64)).numpy()


def draw_steps(sampler: NegativeSampler, steps: int) -> np.ndarray:
    """Returns the samples [steps, N] of the steps 0 … steps - 1."""
    draw_all = tf.function(lambda: tf.map_fn(sampler.draw, tf.range(steps, dtype=tf.int64)))
    samples: np.ndarray = draw_all().numpy()
    return samples


def test_samples_depend_on_seed_and_step_alone() -> None:
    counts = np.arange(100)
    one, same, other = (NegativeSampler(counts, num_negatives=50, negative_power=0.5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(draw(one, 7), draw(same, 7))
    assert not np.array_equal(draw(one, 7), draw(one, 8))
    assert not np.array_equal(draw(one, 7), draw(other, 7))


def test_items_are_sampled_in_proportion_to_a_power_of_their_count() -> None:
    # (count + 1) ** 0.5 is 1, 2, 3, 4: shares 0.1, 0.2, 0.3, 0.4
    sampler = NegativeSampler(np.array([0, 3, 8, 15]), num_negatives=40_000, negative_power=0.5, seed=0)
    shares = np.bincount(draw(sampler, 0), minlength=4) / 40_000
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.01)


def test_a_million_items_are_sampled_up_to_the_last_and_not_beyond() -> None:
    counts = np.zeros(1_000_000, np.int64)
    drawn = draw(NegativeSampler(counts, num_negatives=100_000, negative_power=1.0, seed=0), 3)
    assert drawn.min() >= 0
    assert drawn.max() < 1_000_000
    # uniform: the mean of 100,000 samples has a standard deviation of 290,000 / 316 = 900
    assert abs(drawn.mean() - 500_000) < 5_000


def test_a_share_of_the_samples_is_uniform() -> None:
    # half of the shares 1/4 each, plus half of 0.1, 0.2, 0.3, 0.4
    sampler = NegativeSampler(
        np.array([0, 3, 8, 15]), num_negatives=40_000, negative_power=0.5, seed=0, uniform_share=0.5
    )
    shares = np.bincount(draw(sampler, 0), minlength=4) / 40_000
    np.testing.assert_allclose(shares, [0.175, 0.225, 0.275, 0.325], atol=0.01)


@pytest.mark.parametrize("in_batch_negatives", [True, False])
@pytest.mark.parametrize(("negative_power", "uniform_share"), [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (1.0, 0.3)])
def test_expected_counts_match_the_counts_of_many_steps(
    negative_power: float, uniform_share: float, in_batch_negatives: bool
) -> None:
    """Compares the expected counts of a row with means over 4,000 steps, with 6 other rows and 10 samples."""
    counts = np.array([0, 1, 3, 6])
    sampler = NegativeSampler(
        counts,
        num_negatives=10,
        negative_power=negative_power,
        seed=0,
        uniform_share=uniform_share,
        in_batch_negatives=in_batch_negatives,
    )
    counted = np.bincount(draw_steps(sampler, 4000).ravel(), minlength=4) / 4000
    if in_batch_negatives:
        others = np.random.default_rng(0).choice(4, p=counts / 10, size=(4000, 6))
        counted = counted + np.bincount(others.ravel(), minlength=4) / 4000
    expected = np.exp(sampler.log_expected_count(tf.range(4), tf.constant(6.0)))
    # at most 16 candidates: a mean of 4,000 counts has a standard deviation below 2 / 63
    np.testing.assert_allclose(counted, expected, atol=0.1)


@pytest.mark.parametrize("in_batch_negatives", [True, False])
@pytest.mark.parametrize(("negative_power", "uniform_share"), [(0.0, 0.0), (0.7, 0.0), (1.0, 0.3)])
def test_corrected_candidates_estimate_the_sum_over_all_other_items(
    negative_power: float, uniform_share: float, in_batch_negatives: bool
) -> None:
    """Compares the sum over all items with the mean of Σ exp(score - log expected count) over 3,000 steps."""
    counts, positive = np.array([2, 1, 3, 4]), 3
    scores = np.array([0.5, -1.0, 0.0, 2.0])
    sampler = NegativeSampler(
        counts,
        num_negatives=20,
        negative_power=negative_power,
        seed=1,
        uniform_share=uniform_share,
        in_batch_negatives=in_batch_negatives,
    )
    correction = sampler.log_expected_count(tf.range(4), tf.constant(8.0)).numpy()
    generator, sums = np.random.default_rng(0), []
    for drawn in draw_steps(sampler, 3000):
        others = generator.choice(4, p=counts / 10, size=8 if in_batch_negatives else 0)
        candidates = np.concatenate([others, drawn])
        candidates = candidates[candidates != positive]
        sums.append(np.exp(scores[candidates] - correction[candidates]).sum())
    assert np.mean(sums) == pytest.approx(np.exp(scores[:3]).sum(), rel=0.02)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        # mf: the three rows of the first visitor and the two of the last; the others have no other item
        ("mf", [2, 2, 1]),
        # nn: rows from the second of a timeline on
        ("nn", [1, 2, 1]),
    ],
)
def test_expected_counts_cover_the_rows_of_batches_not_all_rows(
    preset: str, expected: list[int], tmp_path: Path
) -> None:
    timelines = {"first": "abc", "once": "a", "again": "aa", "last": "ab"}
    train = [(visitor, item, "view", time) for visitor, items in timelines.items() for time, item in enumerate(items)]
    dataset = build_dataset(str(tmp_path), train=train, visitors=list(timelines), items=list("abc"))
    config = PRESETS[preset]
    small = replace(config.input, batch_size=2)
    config = replace(
        config, model=replace(config.model, dim=4), loss=replace(config.loss, num_negatives=0), input=small
    )
    objective = build_training_model(config, dataset, start_replicas(1, None)).objective
    counted = np.zeros(3, int)
    for batch in first_epoch(config, dataset):
        candidates = objective.prepare(0, batch.with_int64(), tf.constant(0, tf.int64)).inputs.candidates
        counted += np.bincount(tf.boolean_mask(candidates.items, candidates.is_candidate), minlength=3)
    assert counted.tolist() == expected
    shares = np.exp(objective.sampler.log_expected_count(tf.range(3), tf.constant(1.0)))
    np.testing.assert_allclose(shares, np.array(expected) / sum(expected), rtol=1e-6)


def test_expected_counts_add_in_batch_negatives_and_samples() -> None:
    # in-batch shares 1/4, 3/4; 10 uniform samples (power 0)
    sampler = NegativeSampler(np.array([1, 3]), num_negatives=10, negative_power=0.0, seed=0)
    found = np.exp(sampler.log_expected_count(tf.constant([0, 1, 1]), tf.constant(8.0)))
    # 8 × 1/4 + 10 × 1/2 = 7; 8 × 3/4 + 10 × 1/2 = 11
    np.testing.assert_allclose(found, [7.0, 11.0, 11.0], rtol=1e-6)


def test_in_batch_shares_may_differ_from_the_counts_for_sampling() -> None:
    # in-batch shares 3/4 and 1/4; sampled by (1 + 1) and (3 + 1): 1/3 and 2/3
    sampler = NegativeSampler(
        np.array([1, 3]), batch_counts=np.array([6, 2]), num_negatives=12, negative_power=1.0, seed=0
    )
    found = np.exp(sampler.log_expected_count(tf.constant([0, 1]), tf.constant(8.0)))
    # 8 × 3/4 + 12 × 1/3 = 10; 8 × 1/4 + 12 × 2/3 = 10
    np.testing.assert_allclose(found, [10.0, 10.0], rtol=1e-6)


def test_without_samples_only_in_batch_negatives_are_expected() -> None:
    sampler = NegativeSampler(np.array([1, 3]), num_negatives=0, negative_power=0.5, seed=0)
    assert draw(sampler, 0).shape == (0,)
    np.testing.assert_allclose(np.exp(sampler.log_expected_count(tf.constant([1]), tf.constant(8.0))), [6.0], rtol=1e-6)


def test_items_that_may_not_be_sampled_are_never_drawn() -> None:
    # (count + 1) ** 1 is 1, 4, 3; without the first item, shares 4/7, 3/7; half of the samples are uniform over two
    counts = np.array([0, 3, 2])
    sampler = NegativeSampler(
        counts, num_negatives=20_000, negative_power=1.0, seed=0, uniform_share=0.5, is_sampled=counts > 0
    )
    shares = np.bincount(draw(sampler, 0), minlength=3) / 20_000
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:], [2 / 7 + 1 / 4, 3 / 14 + 1 / 4], atol=0.015)
