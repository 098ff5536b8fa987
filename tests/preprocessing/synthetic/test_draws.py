"""Tests shares, power laws and draws, with numbers worked by hand."""

import numpy as np
import pytest

from preprocessing.synthetic.draws import (
    apportion,
    draw_weighted,
    group_starts,
    position_in_group,
    power_law_counts,
    stratified,
    tail_quantiles,
)


def test_apportion_divides_each_groups_total_in_proportion_to_the_weights():
    # group 0 gives 10 in the proportions 1:3:1 (2, 6, 2); group 1 gives 3 to the only one with weight
    counts = apportion(np.array([1.0, 3.0, 1.0, 0.0, 5.0]), np.array([0, 0, 0, 1, 1]), np.array([10, 3]))
    assert counts.tolist() == [2, 6, 2, 0, 3]


def test_apportioned_counts_are_within_one_of_the_exact_share_and_sum_to_the_totals():
    random = np.random.default_rng(3)
    group = np.sort(random.integers(0, 40, 5000))
    weights, totals = random.lognormal(size=5000), random.integers(0, 900, 40)
    counts = apportion(weights, group, totals)
    exact = weights / np.bincount(group, weights)[group] * totals[group]
    assert np.bincount(group, counts).tolist() == totals.tolist()
    assert np.abs(counts - exact).max() < 1


def test_power_law_counts_follow_the_power_law_up_to_the_maximum():
    counts = power_law_counts((np.arange(10_000) + 0.5) / 10_000, 2.0, largest=50)
    # P(count > n) = (n + 1) ** -2: 2,500 of 10,000 above 1, and 1,111 above 2
    assert [(counts > 1).sum(), (counts > 2).sum()] == [2500, 1111]
    assert [counts.min(), counts.max()] == [1, 50]


def test_tail_quantiles_pass_through_their_knots_with_a_power_law_between():
    knots = ((1, 0.5), (4, 0.125))
    # P(X > 2) = 0.25, the geometric mean of 0.5 and 0.125
    assert tail_quantiles(np.array([0.1, 0.5, 0.75, 0.875, 0.99]), knots) == pytest.approx([1, 1, 2, 4, 4])


def test_each_interval_has_one_stratified_number():
    numbers = stratified(8, np.random.default_rng(0))
    assert sorted(numbers * 8 - 0.5) == pytest.approx(range(8))


def test_weighted_draws_follow_the_weights_and_skip_zeros():
    # cumulative weights 1, 1, 4: index 0 has the first quarter, index 2 the rest
    assert draw_weighted(np.array([1, 0, 3]), np.array([0, 0.24, 0.25, 0.99])).tolist() == [0, 0, 2, 2]


def test_group_starts_and_positions_describe_concatenated_groups():
    assert group_starts(np.array([2, 0, 3])).tolist() == [0, 2, 2]
    assert position_in_group(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]
