"""Assignment of events to splits."""

import numpy as np
import pytest

from preprocessing.config import SplitConfig
from preprocessing.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    Cuts,
    assign_splits,
    check_splits,
    choose_cuts,
    summarize_times,
)

NO_HASHES = np.empty(0, np.uint64)


def test_an_event_at_a_cut_belongs_to_the_later_split():
    times = np.array([9, 10, 19, 20])
    found = assign_splits(times, NO_HASHES, Cuts(10, 20), SplitConfig())
    assert found.tolist() == [TRAIN, VALIDATION, VALIDATION, TEST]


def test_the_default_cuts_are_quantiles():
    # ten events at 0, 100 … 900: eight before 800, nine before 900
    assert choose_cuts(summarize_times(np.arange(10) * 100), SplitConfig()) == Cuts(800, 900)


def test_cuts_are_equal_if_the_times_are():
    # times 0 … 7, then 8 twice: eight events are before time 8, which is also the last, so it is both cuts
    assert choose_cuts(summarize_times(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])), SplitConfig()) == Cuts(8, 8)


def test_an_empty_split_is_an_error_that_suggests_cuts():
    summary = summarize_times(np.arange(10) * 1000 + 1_440_000_000_000)
    with pytest.raises(ValueError, match="no events for test: validation starts at") as raised:
        check_splits([5, 5, 0], summary, Cuts(1_440_000_005_000, 1_450_000_000_000), SplitConfig())
    # of ten consecutive seconds, cuts at the ninth and the tenth leave eight, one and one
    assert "--validation-from 2015-08-19T16:00:08.000+00:00 --test-from 2015-08-19T16:00:09.000+00:00" in str(
        raised.value
    )


def test_fewer_than_three_distinct_times_are_an_error():
    with pytest.raises(ValueError, match="fewer than three distinct times"):
        check_splits([2, 1, 0], summarize_times(np.array([5, 5, 6])), Cuts(6, 7), SplitConfig())


def test_too_few_events_for_a_random_split_are_an_error():
    with pytest.raises(ValueError, match="validation, test: 3 events are too few"):
        check_splits([3, 0, 0], summarize_times(np.array([5, 6, 7])), None, SplitConfig(method="random"))


def test_splits_with_events_are_accepted_and_a_dataset_without_splits():
    check_splits([1, 1, 1], summarize_times(np.array([5, 6, 7])), Cuts(6, 7), SplitConfig())
    check_splits([3, 0, 0], summarize_times(np.array([5, 6, 7])), None, SplitConfig(method="none"))


def test_a_random_split_follows_the_shares():
    hashes = (np.arange(1000, dtype=np.uint64) * np.uint64(2**64 // 1000)).astype(np.uint64)
    found = assign_splits(np.zeros(1000, np.int64), hashes, None, SplitConfig(method="random"))
    # hashes are uniform in [0, 1): 800, 100 and 100 of them, up to rounding at the edges
    assert np.abs(np.bincount(found) - [800, 100, 100]).max() <= 1


@pytest.mark.parametrize(
    "settings",
    [
        {"validation_from_ms": 5},
        {"validation_from_ms": 5, "test_from_ms": 5},
        {"method": "random", "validation_from_ms": 5, "test_from_ms": 6},
        {"validation_share": 0.6, "test_share": 0.4},
        {"test_share": 0.0},
        {"test_share": float("nan")},
    ],
)
def test_contradictory_settings_are_errors(settings):
    with pytest.raises(ValueError, match=r"validation"):
        SplitConfig(**settings)
