"""Tests the cases of the tasks, and the ranking of stored scores by the trainer's evaluator."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import quality_ranking
from benchmarks.peers.trend import EventLog, TrendSettings, link_scores
from benchmarks.quality_ranking import METRICS, ranked_blocks, repeat_cases
from tests.trainer.ranking.fakes import TableScorer, cases_of, lists_of
from trainer.data.trend import DAY_MS
from trainer.evaluation.evaluator import evaluate_scorer

NUM_ITEMS = 30
EVENTS = EventLog(np.array([0, DAY_MS, 2 * DAY_MS]), np.array([3, 4, 4]), NUM_ITEMS)


class TablePeer:
    """Returns row v of a table as the scores of visitor v, and records the times of the requests."""

    def __init__(self, table):
        self._table, self.moments = table, []

    def scores(self, requests):
        self.moments += requests.timestamp_ms.tolist()
        return self._table[requests.visitor]


@pytest.fixture(scope="module")
def cases():
    """Visitors 0 to 3 have seen items 0 and 1. Visitor 1 chooses item 1 again; visitor 3 chooses both again."""
    found = cases_of([[0, 1]] * 4, [[2], [3], [4], [5]], NUM_ITEMS)
    return replace(found, secondary_relevant=lists_of([[2], [1, 3], [4], [0, 1, 5]]))


@pytest.fixture(scope="module")
def table():
    return np.random.default_rng(0).normal(size=(4, NUM_ITEMS)).astype(np.float32)


def test_repeats_are_the_relevant_items_of_the_history(cases):
    repeats = repeat_cases(cases)
    assert repeats.visitor.tolist() == [1, 3]
    assert [repeats.relevant.values.tolist(), repeats.relevant.lengths.tolist()] == [[1, 0, 1], [1, 2]]
    assert repeats.rankings[0] == "seen_shown"
    assert len(repeats.take(np.array([1])).is_kind) == 2  # a row for each relevant item


def test_stored_scores_rank_as_the_scorer_itself_in_any_number_of_blocks(cases, table, monkeypatch):
    tasks = {"new": cases, "repeats": repeat_cases(cases)}
    expected = {task: evaluate_scorer(TableScorer(table), of_task, (20,)).by_case for task, of_task in tasks.items()}
    for size in (4, 3, 1):
        monkeypatch.setattr(quality_ranking, "_STORED_SCORES", size * NUM_ITEMS)
        blocks = ranked_blocks(tasks, EVENTS)
        assert len(blocks) == -(-4 // size)
        for block in blocks:
            block.load(TablePeer(table))
        for task, by_case in expected.items():
            parts = [block.rank(task) for block in blocks if task in block.tasks]
            for metric in METRICS:
                np.testing.assert_array_equal(np.concatenate([part[metric] for part in parts]), by_case[metric])


def test_the_trend_is_that_at_the_start_of_the_day_of_a_case(cases, table):
    """Days start at the time of the earliest case; events at that time are not known yet."""
    moments = DAY_MS + np.array([0, DAY_MS // 2, DAY_MS, DAY_MS * 3 // 2])
    (block,) = ranked_blocks({"new": replace(cases, timestamp_ms=moments)}, EVENTS)
    peer = TablePeer(table)
    block.load(peer)
    starts = [DAY_MS, DAY_MS, 2 * DAY_MS, 2 * DAY_MS]
    assert peer.moments == starts
    trend = TrendSettings("linear", 1.0, 2.0)
    expected = link_scores(table, "linear") + 2 * EVENTS.trends(1.0, np.array(starts))
    by_case = evaluate_scorer(TableScorer(expected), cases, (20,)).by_case
    np.testing.assert_allclose(block.rank("new", trend)["ndcg@20"], by_case["ndcg@20"])
    plain = evaluate_scorer(TableScorer(table), cases, (20,)).by_case
    np.testing.assert_allclose(block.rank("new")["ndcg@20"], plain["ndcg@20"])  # without the last trend


def test_unloaded_scores_cannot_be_ranked(cases, table):
    (block,) = ranked_blocks({"new": cases}, EVENTS)
    block.load(TablePeer(table))
    block.unload()
    with pytest.raises(ValueError, match="no scores to rank; call `load` first"):
        block.rank("new")
