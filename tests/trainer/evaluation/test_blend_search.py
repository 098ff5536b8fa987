"""Features that help in validation get weights in a blend, and noise gets none."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tests.trainer.evaluation.blend_cases import NUM_ITEMS, Noise, candidates_of
from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.data.trend import DAY_MS, ItemEvents
from trainer.evaluation.blend_candidates import CandidateFinder, Candidates
from trainer.evaluation.blend_search import (
    _Ascent,
    _choose,
    _Features,
    choose_half_life,
    choose_weights,
    longest_of_the_best,
)
from trainer.evaluation.candidate_search import HALF_LIVES
from trainer.evaluation.cases import Cases
from trainer.models.blend import Part


def test_a_good_part_is_found_and_noise_has_no_weight(cases: Cases, events: ItemEvents) -> None:
    good = Noise(0, favourites=cases.relevant.values)
    choice = choose_weights(candidates_of(cases, events, Noise(1), good, Noise(2)), 3, 0, has_returns=False)
    assert choice.weights.parts[1] > 0
    assert choice.weights.parts[0] == choice.weights.parts[2] == 0
    assert choice.value >= max(choice.alone)


def test_two_halves_of_the_truth_are_combined(cases: Cases, events: ItemEvents) -> None:
    relevant = cases.relevant.values
    even, odd = relevant.copy(), relevant.copy()
    even[1::2], odd[::2] = 0, 0
    choice = choose_weights(
        candidates_of(cases, events, Noise(0, favourites=even), Noise(1, favourites=odd)), 2, 0, has_returns=False
    )
    assert min(choice.weights.parts) > 0
    assert choice.value > 1.2 * max(choice.alone)


def test_an_ascent_after_its_deadline_has_one_pass(
    cases: Cases, events: ItemEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    relevant = cases.relevant.values
    most, few = relevant.copy(), relevant.copy()
    most[::4], few[np.arange(len(few)) % 4 > 0] = 0, 0
    found = candidates_of(cases, events, Noise(0, favourites=few), Noise(1, favourites=most))
    improved: list[int] = []
    improve = _Ascent.improve

    def count(ascent: _Ascent, column: int) -> None:
        improved.append(column)
        improve(ascent, column)

    monkeypatch.setattr(_Ascent, "improve", count)
    late = choose_weights(found, 2, 0, has_returns=False, deadline=0.0)
    assert min(late.weights.parts) > 0
    assert late.value > max(late.alone)
    # trend, then the parts and the popularity: with both parts, with each alone, and with none
    assert sorted(improved) == sorted([3, 0, 1, 2, 3, 0, 2, 3, 1, 2, 3, 2])
    improved.clear()
    assert choose_weights(found, 2, 0, has_returns=False).value >= late.value
    assert len(improved) > 12


def test_the_search_with_many_cases_tries_only_the_best_part_alone(
    cases: Cases, events: ItemEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.evaluation.blend_search._MANY_CASES", 200)
    sets: list[list[int]] = []
    most_likely = _Features.most_likely

    def record(features: _Features, columns: Sequence[int]) -> np.ndarray:
        sets.append(list(columns))
        return most_likely(features, columns)

    monkeypatch.setattr(_Features, "most_likely", record)
    good = Noise(0, favourites=cases.relevant.values)
    choose_weights(candidates_of(cases, events, Noise(1), good, Noise(2)), 3, 0, has_returns=False)
    assert sets == [[1, 3, 4], [3, 4], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("num_cases", "gain", "is_full"), [(100, 0.009, False), (100, 0.011, True), (500, 0.009, True)]
)
def test_with_few_cases_several_models_must_be_better_by_a_standard_error(
    num_cases: int, gain: float, is_full: bool
) -> None:
    # the gain of each case is `gain` plus or minus 0.1, so the standard error is 0.1 / 10 = 0.01 with 100 cases
    simple = SimpleNamespace(values=np.full(num_cases, 0.5), best=0.5)
    values = simple.values + gain + np.tile([0.1, -0.1], num_cases // 2)
    full = SimpleNamespace(values=values, best=float(values.mean()))
    assert _choose([simple], [full]) is (full if is_full else simple)


def test_the_likeliest_weights_by_hand() -> None:
    # One part with the values 1 and 0 for two candidates; of 40 cases, the first candidate is relevant in 30. Without
    # the pull to the expected weights, the softmax of w and 0 is (3/4, 1/4), so w = ln 3.
    feature = np.zeros((40, 2, 1 + 1 + len(HALF_LIVES) + 4), np.float32)
    feature[:, 0, 0] = 1.0
    is_relevant = np.stack([np.arange(40) < 30, np.arange(40) >= 30], axis=1)
    candidates = Candidates(feature, is_relevant, np.ones((40, 2), bool), np.ones(40, np.int64))
    features = _Features(candidates, 1, 0, has_returns=False)
    found = features.most_likely([0, 1, 2])
    # units: the standard deviation of 1 and 0 is 1/2. With the pull, 2 times (30 - 40 p) - 5 (w - 1) = 0 in this unit,
    # and p is the sigmoid of 2 w
    weight = float(found[0])
    assert features.unit[0] == pytest.approx(2)
    assert 2 * (30 - 40 / (1 + np.exp(-2 * weight))) == pytest.approx(5 * (weight - 1), abs=1e-3)
    assert np.log(3) / 2 < weight < 1  # between the likeliest and the expected weight
    # the trend has no values, so it keeps its expected weight; the popularity keeps 0
    np.testing.assert_allclose(found[1:3], [0, 0.5], atol=1e-6)
    assert found[3:].tolist() == [0] * 4


def test_few_cases_prefer_the_average_of_the_models_to_noise(events: ItemEvents) -> None:
    # ten models that each know a little; on 15 cases, one of them or a few are the best by chance
    rng = np.random.default_rng(0)
    relevant = rng.integers(0, NUM_ITEMS, 200)
    everyone = cases_of([[]] * 200, [[item] for item in relevant], NUM_ITEMS)
    models = []
    for seed in range(10):
        scores = np.random.default_rng(seed + 5).normal(size=(200, NUM_ITEMS))
        scores[np.arange(200), relevant] += 0.7
        models.append(TableScorer(scores))
    found = candidates_of(everyone.take(np.arange(15)), events, *models)
    choice = choose_weights(found, 10, 0, has_returns=False)
    later = candidates_of(everyone.take(np.arange(15, 200)), events, *models)
    values = later.ndcg(np.tensordot(later.feature[:, :, :10], np.array(choice.weights.parts), 1))
    best_alone = max(later.ndcg(later.feature[:, :, model]).mean() for model in range(10))
    assert values.mean() > 1.5 * best_alone


def half_lives_of(*means: float, noise: float = 0.0) -> np.ndarray:
    """Returns values [5, 100] of 100 cases with these means.

    The differences from the second row have a standard error of `noise`.
    """
    sign = np.tile([1.0, -1.0], 50) * noise * 10
    return np.stack([mean + (number != 1) * sign for number, mean in enumerate(means)])


def test_the_longest_of_the_half_lives_that_do_not_differ_in_validation_is_chosen() -> None:
    # 14 days are worse than 3 days by 0.01, which is their standard error; 30 days are worse by more
    values = half_lives_of(0.19, 0.2, 0.18, 0.19, 0.15, noise=0.01)
    assert HALF_LIVES[longest_of_the_best(values)] == 14
    # clearly better is better
    values = half_lives_of(0.19, 0.22, 0.18, 0.19, 0.15, noise=0.01)
    assert HALF_LIVES[longest_of_the_best(values)] == 3


def test_a_trend_that_explains_the_cases_is_found(cases: Cases) -> None:
    # the best-selling items of the last days are relevant; the cases are 30 days after the first events
    items, now = np.arange(NUM_ITEMS), 30 * DAY_MS
    early, late = np.repeat(items, 3), np.repeat(items[:5], 40)
    events = ItemEvents(
        np.concatenate([np.full(len(early), 0), np.full(len(late), now - DAY_MS)]),
        np.concatenate([early, late]),
        NUM_ITEMS,
    )
    relevant = np.random.default_rng(0).integers(0, 5, 200)
    moving = replace(cases_of([[]] * 200, [[item] for item in relevant], NUM_ITEMS), timestamp_ms=np.full(200, now))
    choice = choose_weights(candidates_of(moving, events, Noise(0)), 1, 1, has_returns=False)
    assert choice.weights.trend > 0
    assert choice.value > 0.5 > choice.alone[0]


def test_each_ranking_gets_the_half_life_that_fits_its_cases(cases: Cases) -> None:
    # items 50 to 54 sold often at first, and again yesterday; items 60 to 64 sold in the weeks before, and no longer
    times = np.concatenate([np.zeros(2000 + 3 * NUM_ITEMS), np.repeat(np.arange(30, 46), 15), np.full(200, 59)])
    items = np.concatenate(
        [
            np.tile(np.arange(50, 55), 400),
            np.tile(np.arange(NUM_ITEMS), 3),
            np.tile(np.arange(60, 65), 48),
            np.tile(np.arange(50, 55), 40),
        ]
    )
    events = ItemEvents(times.astype(np.int64) * DAY_MS, items.astype(np.int64), NUM_ITEMS)
    chosen = []
    for first in (50, 60):
        relevant = np.random.default_rng(0).integers(first, first + 5, 200)
        wanting = cases_of([[]] * 200, [[item] for item in relevant], NUM_ITEMS)
        moment = replace(wanting, timestamp_ms=np.full(200, 60 * DAY_MS))
        chosen.append(choose_half_life(candidates_of(moment, events, Noise(0)), 1, has_returns=False))
    # half-lives of 1 and 3 days both rank 50 to 54 first, longer ones rank 60 to 64 first
    assert [HALF_LIVES[half_life] for half_life in chosen] == [3, 30]


def test_the_search_for_weights_also_starts_from_the_visitors_most_frequent_items(events: ItemEvents) -> None:
    # item 7 was the most frequent one long ago; each visitor wants it, or what comes next in frequency
    history = [[7] * 40 + list(range(10, 80)) * 3 + [3, 3, 3]] * 100
    visitors = replace(cases_of(history, [[7, 3]] * 100, NUM_ITEMS), hides_seen=False)
    choice = choose_weights(candidates_of(visitors, events, Noise(0)), 1, 0, has_returns=True)
    assert choice.frequency is not None
    assert choice.value >= choice.frequency > choice.alone[0]
    assert any(choice.weights.returns)


def test_noise_has_small_weights_even_if_there_are_few_cases(events: ItemEvents) -> None:
    relevant = np.random.default_rng(3).integers(0, NUM_ITEMS, 12)
    few = cases_of([[]] * 12, [[item] for item in relevant], NUM_ITEMS)
    models = [Noise(0, favourites=np.resize(relevant, 200)), *(Noise(seed) for seed in range(1, 6))]
    choice = choose_weights(candidates_of(few, events, *models), 6, 0, has_returns=False)
    assert max(choice.weights.parts[1:]) < choice.weights.parts[0] / 4


@pytest.mark.parametrize("num_items", [3, 5])
def test_a_tiny_catalogue_has_fewer_candidates_than_a_list(num_items: int, events: ItemEvents) -> None:
    few = cases_of([[0], [1]], [[2], [2]], num_items)
    parts = [Part(TableScorer(np.eye(2, num_items)), has_sums=False)]
    events = replace(events, num_items=num_items)
    found = CandidateFinder(parts, events, np.ones(num_items), hides_seen=True).find(few)
    assert found.is_candidate.sum(axis=1).tolist() == [num_items - 1] * 2
    choice = choose_weights(found, 1, 0, has_returns=False)
    assert 0 < choice.value <= 1
