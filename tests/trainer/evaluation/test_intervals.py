import numpy as np

from trainer.evaluation.intervals import paired_p_values, percentile_interval, resampled_means


def test_constant_values_have_an_interval_of_width_0():
    low, high = percentile_interval(resampled_means(np.full((50, 2), [0.25, 0.5]), seed=0))
    np.testing.assert_allclose([low, high], [[0.25, 0.5], [0.25, 0.5]])


def test_an_interval_is_about_two_standard_errors_to_each_side():
    values = np.random.default_rng(1).normal(3, 2, size=(400, 1))
    low, high = percentile_interval(resampled_means(values, seed=0))
    # standard error 2 / sqrt(400) = 0.1; 1.96 standard errors to each side: a width of 0.392
    assert abs((high - low)[0] - 0.392) < 0.06
    assert low[0] < values.mean() < high[0]


def test_about_95_of_100_intervals_contain_the_true_mean():
    generator = np.random.default_rng(2)
    intervals = [
        percentile_interval(resampled_means(generator.random((100, 1)), seed=0, resamples=400)) for _ in range(200)
    ]
    share = np.mean([low[0] <= 0.5 <= high[0] for low, high in intervals])
    # 200 trials at 0.95 have a standard error of 0.015
    assert 0.89 <= share <= 1


def test_the_same_seed_gives_the_same_interval_also_in_blocks(monkeypatch):
    values = np.random.default_rng(3).random((40, 3))
    whole = percentile_interval(resampled_means(values, seed=5, resamples=100))
    monkeypatch.setattr("trainer.evaluation.intervals._MAX_DRAWS", 40 * 7)  # blocks of seven resamples
    in_blocks = percentile_interval(resampled_means(values, seed=5, resamples=100))
    np.testing.assert_allclose(whole, in_blocks)
    assert not np.allclose(whole.low, percentile_interval(resampled_means(values, seed=6, resamples=100)).low)


def test_a_visitor_is_drawn_with_all_of_their_cases():
    """100 visitors have ten equal cases each, so the interval must equal that of 100 values, not of 1,000."""
    by_visitor = np.random.default_rng(4).normal(size=(100, 1))
    cases = np.repeat(by_visitor, 10, axis=0)
    owner = np.repeat(np.arange(7, 107), 10)
    clustered = percentile_interval(resampled_means(cases, owner=owner, seed=0))
    np.testing.assert_allclose(clustered, percentile_interval(resampled_means(by_visitor, seed=0)))


def test_a_visitor_with_more_cases_has_more_weight():
    # resamples of two visitors: the first adds 3 cases of value 1, the second adds 1 case of value 0
    means = resampled_means(np.array([[1.0], [1], [1], [0]]), owner=np.array([0, 0, 0, 1]), seed=0)
    assert set(np.round(means.ravel(), 6)) == {1.0, 0.75, 0.0}


def test_a_column_is_a_mean_over_its_included_cases():
    values = np.array([[1.0, 5], [2, 6], [9, 7]])
    counts = np.array([[1, 1], [1, 1], [0, 1]], bool)
    means = resampled_means(values, counts=counts, seed=0)
    # one of 27 resamples contains only the third visitor: its first column has no mean
    assert np.isnan(means[:, 0]).mean() == np.isclose(means[:, 1], 7).mean() > 0
    assert np.nanmax(means[:, 0]) == 2
    low, high = percentile_interval(means)
    assert (low[0], high[0]) == (1, 2)


def test_p_is_twice_the_share_of_resamples_with_the_less_frequent_sign():
    # of 99 resamples 4 have the other sign: 2 × (4 + 1) / (99 + 1)
    means = np.where(np.arange(99) < 4, -1.0, 1.0)[:, None]
    np.testing.assert_allclose(paired_p_values(means, np.zeros((99, 1))), [0.1])
    np.testing.assert_allclose(paired_p_values(-means, np.zeros((99, 1))), [0.1])
    # equal systems do not differ, nor do groups that no resample contains
    np.testing.assert_allclose(paired_p_values(np.full((99, 2), [0.5, np.nan]), np.full((99, 2), 0.5)), [1, 1])


def test_the_test_is_paired_so_that_systems_can_differ_although_their_intervals_overlap():
    generator = np.random.default_rng(5)
    values = generator.normal(size=(300, 1))
    better = values + 0.05 + generator.normal(0, 0.1, size=(300, 1))
    first, second = resampled_means(better, seed=0), resampled_means(values, seed=0)
    assert percentile_interval(first).low < percentile_interval(second).high
    # the differences have a mean of 0.05 and a standard error of 0.1 / sqrt(300) = 0.006
    assert paired_p_values(first, second)[0] < 0.01
