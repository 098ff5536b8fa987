"""Tests the warnings about excluded rows."""

import logging

import pytest

from preprocessing.description import log_summary

SUMMARY = {
    "dataset": "shop",
    "rows": 2000,
    "events": 1000,
    "rejected": {"empty id": 30},
    "filtered": {
        "not met: price > 0": 500,
        "not met: country = DE": 20,
        "kind page_view": 100,
        "kind ": 21,
        "rows without an element in the list of events": 40,
    },
    "duplicates": 60,
    "robot_events": 250,
    "splits": {},
    "vocabularies": {},
}


def test_each_reason_that_excludes_more_than_1_percent_of_the_rows_is_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log_summary(SUMMARY)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    # 20 rows are exactly 1%
    assert warnings == [
        "1.5% of the rows (30) are excluded: they are invalid (empty id)",
        "25.0% of the rows (500) are excluded: they do not meet price > 0",
        "5.0% of the rows (100) are excluded: their kind page_view is dropped",
        "1.1% of the rows (21) are excluded: their kind (empty) is dropped",
        "2.0% of the rows (40) are excluded: their list of events is empty",
        "3.0% of the rows (60) are excluded: they equal an earlier row in all columns; keep_repeats=true keeps them",
        "12.5% of the rows (250) are excluded: their visitors are robots, with more than --max-events-per-day events "
        "on one day",
    ]
