"""The candidates of a blend and their features are those of the whole catalogue."""

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.evaluation.blend_cases import NUM_ITEMS, Noise, candidates_of
from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.data.trend import DAY_MS, ItemEvents, count_trends
from trainer.evaluation.blend_candidates import CandidateFinder, Candidates, join_candidates
from trainer.evaluation.candidate_search import HALF_LIVES
from trainer.evaluation.cases import Cases
from trainer.models.blend import Part


def test_ndcg_of_candidates_by_hand() -> None:
    score = np.array([[3.0, 2.0, 9.0] + [0.0] * 20, [1.0, 2.0, 3.0] + [0.0] * 20])
    is_relevant = np.zeros((2, 23), bool)
    is_relevant[0, 1] = is_relevant[1, 2] = is_relevant[1, 0] = True
    is_candidate = np.ones((2, 23), bool)
    is_candidate[0, 2] = False  # its score of 9 does not count
    candidates = Candidates(np.zeros((2, 23, 0), np.float32), is_relevant, is_candidate, np.array([1, 3]))
    second, third, fourth = 1 / np.log2([3, 4, 5])
    # the second has its relevant items first and third, of three relevant ones
    np.testing.assert_allclose(candidates.ndcg(score), [second, (1 + third) / (1 + second + third)])
    assert fourth < third


def test_joined_candidates_have_the_same_values(cases: Cases, events: ItemEvents) -> None:
    narrow = candidates_of(cases.take(np.arange(50)), events, Noise(0))
    shown = cases_of([[3, 4]] * 2, [[6]] * 2, NUM_ITEMS)
    wide = candidates_of(replace(shown, hides_seen=False), events, Noise(0))
    joined = join_candidates([narrow, wide])
    expected = [*narrow.ndcg(narrow.feature[:, :, 0]), *wide.ndcg(wide.feature[:, :, 0])]
    np.testing.assert_allclose(joined.ndcg(joined.feature[:, :, 0]), expected)


def test_candidates_are_distinct_and_without_seen_items(events: ItemEvents) -> None:
    cases = cases_of([[3, 4], [5]], [[6], [7]], NUM_ITEMS)
    found = candidates_of(cases, events, Noise(0))
    assert found.feature.shape[2] == 1 + 1 + len(HALF_LIVES) + 4
    assert found.is_relevant.sum(axis=1).max() <= 1
    # all 90 items are candidates but those of the history: the list of the 60 best and those of trend and popularity
    assert found.is_candidate.sum(axis=1).max() <= 88
    shown = candidates_of(replace(cases, hides_seen=False), events, Noise(0))
    # seen items are candidates, with their features
    assert (shown.feature[:, :, -4] * shown.is_candidate).sum(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize("hides_seen", [True, False])
def test_the_trend_of_a_validation_case_does_not_see_its_future(
    cases: Cases, events: ItemEvents, hides_seen: bool
) -> None:
    cases = replace(cases, hides_seen=hides_seen)
    rng = np.random.default_rng(0)
    later = ItemEvents(
        np.concatenate([events.timestamp_ms, rng.integers(1000, 10**9, 500).cumsum()]),
        np.concatenate([events.item, rng.integers(0, NUM_ITEMS, 500)]),
        NUM_ITEMS,
    )
    first, second = (candidates_of(cases, found, Noise(0)) for found in (events, later))
    np.testing.assert_array_equal(first.feature, second.feature)


def test_a_rising_item_is_a_candidate_even_if_its_score_equals_those_of_many_others() -> None:
    scores = np.zeros((1, 200))
    scores[0, 0] = 1.0
    one = cases_of([[]], [[199]], 200)
    # item 199 has the only event, so it has the highest trend; all other trends are equal
    events, counts = ItemEvents(np.array([1]), np.array([199]), 200), np.zeros(200)
    counts[100:160] = 10**6
    found = CandidateFinder([Part(TableScorer(scores), has_sums=False)], events, counts, hides_seen=True).find(one)
    # the 60 best by score are items 0 to 59, and the most popular ones are 100 to 159
    assert found.is_candidate.sum() == 60 + 60 + 1
    assert found.is_relevant.sum() == 1


@pytest.mark.parametrize("hides_seen", [True, False])
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0, 4.0, 9.0])
def test_the_best_items_by_popularity_and_any_trend_are_candidates(weight: float, hides_seen: bool) -> None:
    rng, num_items = np.random.default_rng(0), 400
    days = np.sort(rng.integers(0, 60, 4000))
    # the favourites change from day to day
    items = (rng.zipf(1.5, 4000) + 7 * days) % num_items
    events, counts = ItemEvents(days * DAY_MS, items, num_items), np.bincount(items, minlength=num_items)
    history = rng.integers(0, num_items, 30)
    case = cases_of([history.tolist()], [[1]], num_items)
    case = replace(case, hides_seen=hides_seen, timestamp_ms=np.array([60 * DAY_MS]))
    found = CandidateFinder([], events, counts, hides_seen=hides_seen).find(case)
    assert found.is_candidate.sum() < num_items / 2
    for number, half_life in enumerate(HALF_LIVES):
        trend = count_trends(events, case.timestamp_ms, half_life).values[0]
        score = np.log(counts + 0.25) + weight * trend
        best = np.sort(score[~np.isin(np.arange(num_items), history)] if hides_seen else score)[-20:]
        feature = found.feature[0][found.is_candidate[0]]
        of_candidates = np.sort(feature[:, 0] + weight * feature[:, 1 + number])[-20:]
        np.testing.assert_allclose(of_candidates, best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("has_all_items", [True, False])
@pytest.mark.parametrize("hides_seen", [True, False])
def test_the_features_of_candidates_are_those_of_the_whole_catalogue(hides_seen: bool, has_all_items: bool) -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 30, length).tolist() for length in (0, 1, 5, 40)]
    some = replace(cases_of(histories, [[80]] * 4, NUM_ITEMS), hides_seen=hides_seen, timestamp_ms=np.full(4, 10**9))
    events = ItemEvents(np.sort(rng.integers(0, 10**9, 500)), rng.integers(0, NUM_ITEMS, 500), NUM_ITEMS)
    sums, logits = (rng.normal(size=(4, NUM_ITEMS)).astype(np.float32) for _ in range(2))
    parts = [Part(TableScorer(sums), has_sums=True), Part(TableScorer(logits), has_sums=False)]
    some = replace(some, visitor=np.arange(4))
    found = CandidateFinder(
        parts, events, np.arange(NUM_ITEMS), hides_seen=hides_seen, has_all_items=has_all_items
    ).find(some)
    trends = [count_trends(events, some.timestamp_ms[:1], days).values[0] for days in HALF_LIVES]
    for case, history in enumerate(histories):
        # the value of the second part identifies an item
        item = [
            int(np.flatnonzero(logits[case] == value)[0]) for value in found.feature[case, found.is_candidate[case], 1]
        ]
        assert len(set(item)) == len(item) > 60 - len(set(history))
        assert not has_all_items or len(item) == NUM_ITEMS - hides_seen * len(set(history))
        assert not hides_seen or not set(item) & set(history)
        assert {*np.argsort(-np.where(np.isin(range(90), history) & hides_seen, -99, logits[case]))[:60]} <= set(item)
        feature = found.feature[case, found.is_candidate[case]].T
        np.testing.assert_allclose(
            feature[0], np.log(0.02 + np.maximum(sums[case], 0) / np.sort(sums[case])[-10])[item], rtol=1e-5
        )
        np.testing.assert_allclose(feature[2], np.log(np.array(item) + 0.25), rtol=1e-6)
        np.testing.assert_array_equal(feature[3:8], np.stack(trends)[:, item])
        recency = [sum(1 / (1 + age) for age, other in enumerate(history[::-1]) if other == each) for each in item]
        np.testing.assert_allclose(feature[-2], np.log1p(10 * np.array(recency)), rtol=1e-5)
        np.testing.assert_array_equal(feature[-4], np.isin(item, history))


@pytest.mark.parametrize("hides_seen", [True, False])
def test_a_finder_finds_the_same_candidates_after_other_cases(hides_seen: bool) -> None:
    rng = np.random.default_rng(0)
    events = ItemEvents(np.sort(rng.integers(0, 10**9, 500)), rng.integers(0, NUM_ITEMS, 500), NUM_ITEMS)
    parts = [Part(Noise(0), has_sums=False)]

    def cases_at(*days: int) -> Cases:
        histories = [rng.integers(0, NUM_ITEMS, 3 * day).tolist() for day in days]
        some = cases_of(histories, [[80]] * len(days), NUM_ITEMS)
        return replace(some, hides_seen=hides_seen, timestamp_ms=np.array(days) * 24 * 60 * 60 * 1000)

    def finder() -> CandidateFinder:
        return CandidateFinder(parts, events, np.arange(NUM_ITEMS), hides_seen=hides_seen)

    used, first, second = finder(), cases_at(2), cases_at(1, 4, 9)
    used.find(first)  # one moment; the second cases have nine, and longer histories
    for found, expected in zip(vars(used.find(second)).values(), vars(finder().find(second)).values(), strict=True):
        np.testing.assert_array_equal(found, expected)
