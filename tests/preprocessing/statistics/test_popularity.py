"""Tests the popularity of items, and correlations."""

import numpy as np
import pyarrow as pa
import pytest

from contract.schema import DEFAULT_KINDS
from contract.timelines import TimelineRows
from preprocessing.columns import encode_columns
from preprocessing.statistics.correlation import COLUMNS, count_moments, describe_correlation
from preprocessing.statistics.popularity import (
    compute_lorenz,
    count_items_by_split,
    describe_categories,
    describe_items,
)
from preprocessing.timelines import NEVER, Timelines

DAY_MS = 86_400_000


def test_lorenz_and_gini_of_equal_items():
    shares, gini = compute_lorenz(np.array([5, 5, 5, 5]))
    assert gini == 0
    assert (shares[0], shares[25], shares[100]) == (0, 0.25, 1)


def test_lorenz_and_gini_of_unequal_items():
    # the least popular half of 1, 1, 2, 6 has 2 of 10; the mean absolute difference of the 16 ordered pairs is
    # 2 * (0 + 1 + 5 + 1 + 5 + 4) / 16 = 2; Gini = 2 / (2 * mean) = 2 / 5
    shares, gini = compute_lorenz(np.array([6, 1, 2, 1]))
    assert gini == 0.4
    assert (shares[50], shares[75]) == (0.2, 0.4)


@pytest.fixture
def timelines() -> Timelines:
    """Builds timelines of the items a, b and c: a is in training and test, b only in test, and c in neither."""
    return Timelines(
        visitors=pa.array(["v"]),
        visitor_code=np.zeros(4, np.int64),
        timestamp_ms=np.array([0, 1, DAY_MS, DAY_MS + 1]),
        event=np.array([0, 1, 0, 0], np.int8),
        items=pa.array(["a", "b", "c"]),
        item_code=np.array([0, 0, 0, 1]),
        weight=np.ones(4, np.float32),
        robot_from_ms=np.array([NEVER]),
    )


def test_cold_items_of_a_split_are_those_without_a_training_event(timelines):
    table = count_items_by_split(timelines, np.array([0, 0, 2, 2], np.int8), len(DEFAULT_KINDS))
    described = describe_items(encode_columns(table), DEFAULT_KINDS)
    assert described["items"] == 2
    assert described["by_split"]["train"] == {"items": 1, "new_items": 0, "events_of_new_items": 0}
    assert described["by_split"]["test"] == {"items": 2, "new_items": 1, "events_of_new_items": 1}
    assert described["new_items_by_day"] == {"1970-01-01": 1, "1970-01-02": 1}
    assert described["items_by_kind"] == {"view": 2, "addtocart": 1, "transaction": 0}
    assert described["top_items"] == [{"item_id": "a", "events": 3}, {"item_id": "b", "events": 1}]
    assert described["top_items_by_kind"]["addtocart"] == [{"item_id": "a", "events": 1}]
    assert described["top_items_by_kind"]["transaction"] == []


def test_categories_are_described_with_their_path():
    counts = pa.table({"id": ["10", "20", "30"], "count": [2, 5, 0]})
    described = describe_categories(encode_columns(counts), {"20": ("10", "20")})
    assert described == [
        {"category_id": "20", "path": ["10", "20"], "events": 5},
        {"category_id": "10", "path": ["10"], "events": 2},
    ]
    assert describe_categories(b"", {}) == []


def rows(visitor: list[int], item: list[int], hours: list[int]) -> TimelineRows:
    size = len(visitor)
    return TimelineRows(
        visitor=np.array(visitor),
        position=np.arange(size),
        item=np.array(item),
        event=np.zeros(size, np.int64),
        timestamp_ms=np.array(hours) * 3_600_000,
        is_target=np.ones(size, np.int64),
    )


def test_correlations_are_pearsons_for_any_partition():
    visitor, item, hours = [0, 3, 1, 2, 9], [1, 1, 0, 4, 4], [5, 9, 14, 30, 31]
    whole = describe_correlation([count_moments(rows(visitor, item, hours), 10, 5)])
    # ranks in thousandths: visitors of 10, items of 5
    expected = np.corrcoef([hours, np.array(visitor) * 100, np.array(item) * 200])
    time, visitor_rank, item_rank = (COLUMNS.index(name) for name in ("time", "visitor rank", "item rank"))
    assert whole["matrix"][time][visitor_rank] == pytest.approx(expected[0, 1], abs=1e-6)
    assert whole["matrix"][visitor_rank][item_rank] == pytest.approx(expected[1, 2], abs=1e-6)
    kind = COLUMNS.index("event kind")
    assert whole["matrix"][kind][time] is None, "all events are views"
    table = rows(visitor, item, hours)
    parts = [count_moments(table[slice(3, 5)], 10, 5), count_moments(table[slice(0, 3)], 10, 5)]
    assert describe_correlation(parts) == whole
