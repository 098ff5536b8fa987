import numpy as np

from trainer.ranking.intervals import bootstrap_interval


def test_values_that_never_vary_leave_no_doubt():
    low, high = bootstrap_interval(np.full((50, 2), [0.25, 0.5]), seed=0)
    np.testing.assert_allclose([low, high], [[0.25, 0.5], [0.25, 0.5]])


def test_an_interval_is_about_two_standard_errors_to_each_side():
    values = np.random.default_rng(1).normal(3, 2, size=(400, 1))
    low, high = bootstrap_interval(values, seed=0)
    # standard error 2 / sqrt(400) = 0.1; 1.96 of it to each side: a width of 0.392
    assert abs((high - low)[0] - 0.392) < 0.06
    assert low[0] < values.mean() < high[0]


def test_about_95_of_100_intervals_hold_the_true_mean():
    generator = np.random.default_rng(2)
    intervals = [bootstrap_interval(generator.random((100, 1)), seed=0, resamples=400) for _ in range(200)]
    share = np.mean([low[0] <= 0.5 <= high[0] for low, high in intervals])
    # 200 trials at 0.95 have a standard error of 0.015
    assert 0.89 <= share <= 1


def test_the_same_seed_gives_the_same_interval_also_when_drawn_in_parts(monkeypatch):
    values = np.random.default_rng(3).random((40, 3))
    whole = bootstrap_interval(values, seed=5, resamples=100)
    monkeypatch.setattr("trainer.ranking.intervals._MAX_DRAWS", 40 * 7)  # seven resamples at once
    in_parts = bootstrap_interval(values, seed=5, resamples=100)
    np.testing.assert_allclose(whole, in_parts)
    assert not np.allclose(whole.low, bootstrap_interval(values, seed=6, resamples=100).low)
