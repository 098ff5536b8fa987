"""Event time to splits."""

import numpy as np
import pytest

from preprocessing import splits
from preprocessing.config import SplitConfig
from preprocessing.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    assign_splits,
    check_counts,
    choose_cuts,
    merge_times,
    summarize_times,
)

NO_HASHES = np.empty(0, np.uint64)


def test_an_event_at_a_cut_belongs_to_the_later_split():
    times = np.array([9, 10, 19, 20])
    found = assign_splits(times, NO_HASHES, (10, 20), SplitConfig())
    assert found.tolist() == [TRAIN, VALIDATION, VALIDATION, TEST]


def test_the_default_cuts_lie_at_the_quantiles():
    # ten events at 0, 100 … 900: eight before 800, nine before 900
    assert choose_cuts(summarize_times(np.arange(10) * 100), SplitConfig()) == (800, 900)


def test_cuts_may_fall_together_on_a_tie():
    # times 0 … 7, then 8 twice: eight events lie before time 8 and it is also the last, so both cuts fall on it
    assert choose_cuts(summarize_times(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])), SplitConfig()) == (8, 8)


def test_a_split_left_empty_is_refused_with_cuts_that_work():
    summary = summarize_times(np.arange(10) * 1000 + 1_440_000_000_000)
    with pytest.raises(ValueError, match="no event falls into test with cuts at") as refused:
        check_counts([5, 5, 0], summary, (1_440_000_005_000, 1_450_000_000_000))
    # of ten seconds in a row the ninth and the tenth leave eight, one and one
    assert "--validation-from 2015-08-19T16:00:08.000+00:00 --test-from 2015-08-19T16:00:09.000+00:00" in str(
        refused.value
    )


def test_fewer_than_three_times_cannot_be_split():
    with pytest.raises(ValueError, match="fewer than three distinct times"):
        check_counts([2, 1, 0], summarize_times(np.array([5, 5, 6])), (6, 7))


def test_too_few_events_for_a_random_split_are_refused():
    with pytest.raises(ValueError, match="validation, test: 3 events are too few"):
        check_counts([3, 0, 0], summarize_times(np.array([5, 6, 7])), None)


def test_no_empty_split_is_no_error():
    check_counts([1, 1, 1], summarize_times(np.array([5, 6, 7])), (6, 7))


def test_a_summary_does_not_depend_on_the_order_or_grouping_of_its_parts(monkeypatch):
    monkeypatch.setattr(splits, "_MAX_TIMES", 8)
    times = np.random.default_rng(0).integers(0, 1000, 300)
    whole = summarize_times(times)
    parts = [summarize_times(part) for part in np.array_split(times, 7)]
    for listed in (parts, parts[::-1], [merge_times(parts[:3]), merge_times(parts[3:])]):
        merged = merge_times(listed)
        assert merged.resolution == whole.resolution
        assert merged.times_ms.tolist() == whole.times_ms.tolist()
        assert merged.counts.tolist() == whole.counts.tolist()
    assert len(whole.times_ms) <= 8
    assert whole.counts.sum() == 300


def test_a_random_split_follows_the_shares():
    hashes = (np.arange(1000, dtype=np.uint64) * np.uint64(2**64 // 1000)).astype(np.uint64)
    found = assign_splits(np.zeros(1000, np.int64), hashes, None, SplitConfig(method="random"))
    # hashes fill [0, 1) evenly: 800, 100 and 100 of them, give or take the rounding at the edges
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
def test_contradictory_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"validation"):
        SplitConfig(**settings)
