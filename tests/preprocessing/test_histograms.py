import numpy as np
import pytest

from preprocessing import histograms
from preprocessing.histograms import count_floats, count_values, merge_floats, merge_histograms, sample_floats


def test_a_histogram_does_not_depend_on_the_order_or_grouping_of_its_parts():
    values = np.random.default_rng(0).integers(0, 1000, 300)
    whole = count_values(values, 8)
    parts = [count_values(part, 8) for part in np.array_split(values, 7)]
    for listed in (parts, parts[::-1], [merge_histograms(parts[:3], 8), merge_histograms(parts[3:], 8)]):
        merged = merge_histograms(listed, 8)
        assert merged.resolution == whole.resolution
        assert merged.values.tolist() == whole.values.tolist()
        assert merged.counts.tolist() == whole.counts.tolist()
    assert len(whole.values) <= 8
    assert whole.counts.sum() == 300


def test_a_sample_of_few_floats_has_all_of_them():
    values = np.array([2.5, 0, 1e7, 2.5, -0.0, 1e-3], np.float32)
    np.testing.assert_array_equal(sample_floats(count_floats(values)), np.sort(values))
    assert sample_floats(merge_floats([])).tolist() == []


@pytest.mark.parametrize("times", [1, 10])
def test_a_sample_has_a_bounded_size_and_the_quantiles_of_all_values(times, monkeypatch):
    monkeypatch.setattr(histograms, "MAX_FLOATS", 4096)
    values = np.random.default_rng(times).lognormal(5, 3, times * 10_000).astype(np.float32)
    merged = merge_floats(count_floats(part) for part in np.array_split(values, 9))
    assert len(merged.values) <= 4096
    sample = sample_floats(merged)
    assert len(sample) == 4096
    shares = np.linspace(0.05, 0.95, 19)
    # some 35 powers of two share 4096 bins, so that each has at least 64 of them
    np.testing.assert_allclose(np.quantile(sample, shares), np.quantile(values, shares), rtol=1 / 50)
