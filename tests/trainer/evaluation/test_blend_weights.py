"""Features that help in validation get weights in a blend, and noise gets none."""

import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from contract.schema import Split
from tests.trainer.dataset_builder import Event, build_dataset, checkerboard
from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.data.trend import DAY_MS, ItemEvents, count_trends, read_item_events
from trainer.evaluation import blend_weights
from trainer.evaluation.blend_candidates import HALF_LIVES, CandidateFinder, Candidates, join_candidates
from trainer.evaluation.blend_search import (
    _Ascent,
    _choose,
    _Features,
    choose_half_life,
    choose_weights,
    longest_of_the_best,
)
from trainer.evaluation.blend_weights import (
    OutOfTimeError,
    _fill_missing,
    baseline_cases,
    blend_alone,
    fit_blend,
    ranking_cases,
    set_trends,
)
from trainer.evaluation.cases import Cases, build_cases, next_items
from trainer.models.blend import BlendInference, Part, is_in_session
from trainer.ranking.topk import query_chunks
from trainer.runs.blend_record import RANKINGS, BlendWeights

NUM_ITEMS = 90


class Noise(tf.Module):
    """A random score for each visitor and item."""

    def __init__(self, seed: int, favourites: np.ndarray | None = None) -> None:
        super().__init__()
        scores = np.random.default_rng(seed).normal(size=(200, NUM_ITEMS))
        if favourites is not None:
            scores[np.arange(200), favourites] += 3
        self._scorer = TableScorer(scores)

    def catalogue_scores(self, queries) -> tf.Tensor:
        return self._scorer.catalogue_scores(queries)


@pytest.fixture
def cases() -> Cases:
    """200 visitors without a history, each with one relevant item."""
    relevant = np.random.default_rng(1).integers(0, NUM_ITEMS, 200)
    return cases_of([[]] * 200, [[item] for item in relevant], NUM_ITEMS)


@pytest.fixture
def events() -> ItemEvents:
    """One event before the time of the cases, 1000 ms."""
    return ItemEvents(np.array([1]), np.array([0]), NUM_ITEMS)


def candidates_of(cases: Cases, events: ItemEvents, *models: tf.Module) -> Candidates:
    parts = [Part(model, has_sums=False) for model in models]
    return CandidateFinder(parts, events, np.ones(NUM_ITEMS), hides_seen=cases.hides_seen).find(cases)


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


def test_each_ranking_has_the_cases_that_it_serves(tmp_path) -> None:
    minute = 60_000
    train = [Event(f"v{visitor}", f"i{visitor}", "view", minute) for visitor in range(4)]
    # v0 continues the session; v1 comes back after 40 minutes; v2 comes back after two hours, with two events
    later = {"v0": [2], "v1": [41], "v2": [121, 122]}
    validation = [
        Event(visitor, f"i{(int(visitor[1]) + 1 + number) % 4}", "view", when * minute)
        for visitor, minutes in later.items()
        for number, when in enumerate(minutes)
    ]
    names = {"visitors": [f"v{index}" for index in range(4)], "items": [f"i{index}" for index in range(4)]}
    dataset = build_dataset(str(tmp_path), train=train, validation=validation, test=[], **names)
    cases = ranking_cases(dataset)
    # the moment of all returning visitors is the first event of the window, in the second minute: all are in a session
    assert {ranking: [each.visitor.tolist() for each in found] for ranking, found in cases.items()} == {
        "new_items": [[0, 1, 2]],
        "returning": [[1, 2]],  # their first items after the gap
        "in_session": [[0, 2]],
    }
    rows = build_cases(dataset, Split.VALIDATION, next_items)
    ((_, queries),) = query_chunks(rows.visitor, rows.history, rows.timestamp_ms, len(rows))
    served = rows.take(np.flatnonzero(is_in_session(queries)))
    assert served.timestamp_ms.tolist() == cases["in_session"][0].timestamp_ms.tolist() == [2 * minute, 122 * minute]


def test_noise_has_small_weights_even_if_there_are_few_cases(events: ItemEvents) -> None:
    relevant = np.random.default_rng(3).integers(0, NUM_ITEMS, 12)
    few = cases_of([[]] * 12, [[item] for item in relevant], NUM_ITEMS)
    models = [Noise(0, favourites=np.resize(relevant, 200)), *(Noise(seed) for seed in range(1, 6))]
    choice = choose_weights(candidates_of(few, events, *models), 6, 0, has_returns=False)
    assert max(choice.weights.parts[1:]) < choice.weights.parts[0] / 4


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


@pytest.mark.parametrize("max_cells", [0, 160 * 200])
def test_items_that_only_a_heavy_trend_ranks_first_count_in_the_choice_of_weights(
    max_cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Items 0 to 7 are giants, 8 to 17 are wanted, 18 to 59 are old, and 60 to 159 are rare and new. The scores with the
    # weight w of the trend are 11.5 - 4.59 w, 6.9 - 3.24 w, 6.9 - 6.2 w and 0.2 - 0.2 w: below w = 2.2, only the
    # giants rank before the wanted items; from w = 3.4 on, only the rare items do.
    monkeypatch.setattr(blend_weights, "MAX_CELLS", max_cells)
    old = [np.repeat(np.arange(8), 100), np.repeat(np.arange(8, 60), 25)]
    recent = [np.arange(18), np.arange(60, 160)]
    items = np.concatenate(old + recent)
    times = np.repeat([0, 999 * DAY_MS], [8 * 100 + 52 * 25, 118])
    counts = np.repeat([10.0**5, 1000.0, 1.0], [8, 52, 100])
    wanted = cases_of([[]] * 200, [[8 + case % 10] for case in range(200)], 160)
    wanted = replace(wanted, timestamp_ms=np.full(200, 1000 * DAY_MS))
    fit = fit_blend([], {"new_items": [wanted]}, ItemEvents(times, items, 160), counts)
    weights = fit.weights["new_items"]
    assert 0 < weights.trend < 2.2 * weights.popularity
    # the ten wanted items have equal scores, so the wanted one counts as the last of them
    assert fit.validation["new_items"]["blend"] == pytest.approx(1 / np.log2(8 + 10 + 1))


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


def test_without_validation_cases_the_parts_are_equal(tmp_path) -> None:
    dataset = build_dataset(str(tmp_path), **{**checkerboard(), "validation": [], "test": []})
    parts = [Part(Noise(0), has_sums=False), Part(Noise(1), has_sums=False)]
    fit = fit_blend(parts, ranking_cases(dataset), read_item_events(dataset), dataset.item_counts)
    assert {weights.parts for weights in fit.weights.values()} == {(1.0, 1.0)}
    assert fit.validation == dict.fromkeys(RANKINGS)


def test_few_cases_are_used_if_the_time_is_short(cases: Cases, events: ItemEvents, tmp_path) -> None:
    parts = [Part(Noise(0), has_sums=False)]
    finder = CandidateFinder(parts, events, np.ones(NUM_ITEMS), hides_seen=True)
    late = finder.find(cases, deadline=time.monotonic() + 600)
    np.testing.assert_array_equal(late.feature, candidates_of(cases, events, Noise(0)).feature)
    assert not len(finder.find(cases, deadline=0.0).feature)
    dataset = build_dataset(str(tmp_path), **checkerboard())
    parts = [Part(TableScorer(np.zeros((dataset.num_visitors + 9, dataset.num_items))), has_sums=False)]
    with pytest.raises(
        OutOfTimeError, match="only 0 cases of the ranking new_items could be used before the time limit"
    ):
        fit_blend(parts, ranking_cases(dataset), read_item_events(dataset), dataset.item_counts, deadline=0.0)
    forced = fit_blend(
        parts, ranking_cases(dataset), read_item_events(dataset), dataset.item_counts, deadline=0.0, is_forced=True
    )
    assert forced.validation["new_items"]["cases"] == 60  # one for each visitor


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


def test_a_blend_without_models_ranks_by_popularity_and_trend(tmp_path) -> None:
    dataset = build_dataset(str(tmp_path), **checkerboard())
    events = read_item_events(dataset)
    trending = blend_alone(None, ranking_cases(dataset), events, dataset.item_counts)
    assert isinstance(trending, BlendInference)
    case = cases_of([[0]], [[1]], dataset.num_items)
    set_trends([trending], replace(case, timestamp_ms=events.timestamp_ms[-1:] + 1), events)


@pytest.mark.parametrize("num_items", [3, 5])
def test_a_tiny_catalogue_has_fewer_candidates_than_a_list(num_items: int, events: ItemEvents) -> None:
    few = cases_of([[0], [1]], [[2], [2]], num_items)
    parts = [Part(TableScorer(np.eye(2, num_items)), has_sums=False)]
    events = replace(events, num_items=num_items)
    found = CandidateFinder(parts, events, np.ones(num_items), hides_seen=True).find(few)
    assert found.is_candidate.sum(axis=1).tolist() == [num_items - 1] * 2
    choice = choose_weights(found, 1, 0, has_returns=False)
    assert 0 < choice.value <= 1


def test_new_items_are_not_ranked_by_returns_alone() -> None:
    returns = BlendWeights(parts=(0.0, 0.0), half_life_days=1.0, returns=(0.0, 1.0, 0.5, 0.0))
    weights = _fill_missing({"returning": returns}, 2)
    assert weights["new_items"].parts == (1.0, 1.0)
    assert weights["returning"] == weights["in_session"] == returns
    trend = replace(returns, trend=1.0)
    assert _fill_missing({"returning": trend}, 2)["new_items"] == replace(trend, returns=(0.0,) * 4)


@pytest.mark.parametrize(("num_items", "expected"), [(10, 1000), (50_000, 1000), (100_000, 500), (10**9, 1)])
def test_baselines_are_tuned_on_fewer_cases_if_the_catalogue_is_large(num_items: int, expected: int) -> None:
    assert baseline_cases(num_items) == expected
