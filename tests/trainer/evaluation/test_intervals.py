import numpy as np

from trainer.evaluation.intervals import paired_p_values, percentile_interval, resampled_means


def test_values_that_never_vary_leave_no_doubt():
    low, high = percentile_interval(resampled_means(np.full((50, 2), [0.25, 0.5]), seed=0))
    np.testing.assert_allclose([low, high], [[0.25, 0.5], [0.25, 0.5]])


def test_an_interval_is_about_two_standard_errors_to_each_side():
    values = np.random.default_rng(1).normal(3, 2, size=(400, 1))
    low, high = percentile_interval(resampled_means(values, seed=0))
    # standard error 2 / sqrt(400) = 0.1; 1.96 of it to each side: a width of 0.392
    assert abs((high - low)[0] - 0.392) < 0.06
    assert low[0] < values.mean() < high[0]


def test_about_95_of_100_intervals_hold_the_true_mean():
    generator = np.random.default_rng(2)
    intervals = [
        percentile_interval(resampled_means(generator.random((100, 1)), seed=0, resamples=400)) for _ in range(200)
    ]
    share = np.mean([low[0] <= 0.5 <= high[0] for low, high in intervals])
    # 200 trials at 0.95 have a standard error of 0.015
    assert 0.89 <= share <= 1


def test_the_same_seed_gives_the_same_interval_also_when_drawn_in_parts(monkeypatch):
    values = np.random.default_rng(3).random((40, 3))
    whole = percentile_interval(resampled_means(values, seed=5, resamples=100))
    monkeypatch.setattr("trainer.evaluation.intervals._MAX_DRAWS", 40 * 7)  # seven resamples at once
    in_parts = percentile_interval(resampled_means(values, seed=5, resamples=100))
    np.testing.assert_allclose(whole, in_parts)
    assert not np.allclose(whole.low, percentile_interval(resampled_means(values, seed=6, resamples=100)).low)


def test_a_visitor_is_drawn_with_all_his_cases():
    """Ten cases each of 100 visitors, all of a visitor's alike: the interval is that of 100 values, not of 1000."""
    by_visitor = np.random.default_rng(4).normal(size=(100, 1))
    cases = np.repeat(by_visitor, 10, axis=0)
    owner = np.repeat(np.arange(7, 107), 10)
    clustered = percentile_interval(resampled_means(cases, owner=owner, seed=0))
    np.testing.assert_allclose(clustered, percentile_interval(resampled_means(by_visitor, seed=0)))


def test_a_visitor_with_more_cases_weighs_more():
    # every resample of the two visitors: 3 cases of 1 each time the first is drawn, 1 case of 0 for the second
    means = resampled_means(np.array([[1.0], [1], [1], [0]]), owner=np.array([0, 0, 0, 1]), seed=0)
    assert set(np.round(means.ravel(), 6)) == {1.0, 0.75, 0.0}


def test_a_column_is_a_mean_over_the_cases_that_count_in_it():
    values = np.array([[1.0, 5], [2, 6], [9, 7]])
    counts = np.array([[1, 1], [1, 1], [0, 1]], bool)
    means = resampled_means(values, counts=counts, seed=0)
    # where only the third visitor is drawn, once in 27 resamples, the first column has no mean
    assert np.isnan(means[:, 0]).mean() == np.isclose(means[:, 1], 7).mean() > 0
    assert np.nanmax(means[:, 0]) == 2
    low, high = percentile_interval(means)
    assert (low[0], high[0]) == (1, 2)


def test_p_is_twice_the_share_of_resamples_with_the_rarer_sign():
    # of 99 resamples 4 have the other sign: 2 × (4 + 1) / (99 + 1)
    means = np.where(np.arange(99) < 4, -1.0, 1.0)[:, None]
    np.testing.assert_allclose(paired_p_values(means, np.zeros((99, 1))), [0.1])
    np.testing.assert_allclose(paired_p_values(-means, np.zeros((99, 1))), [0.1])
    # equal systems, and groups that no resample holds, do not differ
    np.testing.assert_allclose(paired_p_values(np.full((99, 2), [0.5, np.nan]), np.full((99, 2), 0.5)), [1, 1])


def test_a_pair_is_told_apart_by_what_each_visitor_gains_though_the_intervals_overlap():
    generator = np.random.default_rng(5)
    values = generator.normal(size=(300, 1))
    better = values + 0.05 + generator.normal(0, 0.1, size=(300, 1))
    first, second = resampled_means(better, seed=0), resampled_means(values, seed=0)
    assert percentile_interval(first).low < percentile_interval(second).high
    # the differences have a mean of 0.05 and a standard error of 0.1 / sqrt(300) = 0.006
    assert paired_p_values(first, second)[0] < 0.01
