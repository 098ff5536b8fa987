"""Tests the ratio of two systems' recalls of items without a training event."""

import numpy as np

from benchmarks.quality_shop import cold_figures


def recalls(*values):
    return {"recall@20": np.zeros(len(values)), "recall@100": np.array(values, np.float64)}


def test_the_interval_of_a_constant_ratio_has_no_width():
    found = cold_figures(
        {"nn": recalls(1, 1, 0.5, 9), "popular": recalls(0.5, 0.5, 0.25, 9)},
        timeline=np.arange(4),
        is_counted=np.array([True, True, True, False]),
    )
    assert found["cases"] == 3
    # (1 + 1 + .5) / 3, half of it, and a ratio of 2 in every resample
    assert found["nn"]["recall@100"]["value"] == np.float64(2.5 / 3)
    assert found["ratio"] == {"value": 2.0, "low": 2.0, "high": 2.0}


def test_the_interval_of_a_ratio_contains_it_and_resamples_visitors_not_cases():
    ours, theirs = recalls(1, 1, 0, 1), recalls(0.5, 0.5, 0.5, 0.25)
    every_case = np.ones(4, bool)
    apart = cold_figures({"nn": ours, "popular": theirs}, np.arange(4), every_case)["ratio"]
    # one visitor has all cases, so every resample is the same
    together = cold_figures({"nn": ours, "popular": theirs}, np.zeros(4, np.int64), every_case)["ratio"]
    assert apart["low"] < apart["value"] == 3 / 1.75 < apart["high"]
    assert together["low"] == together["high"] == 3 / 1.75
