"""Each ranking of a blend gets weights, chosen on the cases that it serves."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.schema import Split
from tests.trainer.dataset_builder import Event, build_dataset, checkerboard
from tests.trainer.evaluation.blend_cases import NUM_ITEMS, Noise, candidates_of
from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.data.trend import DAY_MS, ItemEvents, read_item_events
from trainer.evaluation import blend_weights
from trainer.evaluation.blend_candidates import CandidateFinder
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


@pytest.mark.parametrize(("few", "new_items"), [(3, [[0, 1, 2]]), (4, [[0, 1, 2], [0, 2]])])
def test_each_ranking_has_the_cases_that_it_serves(
    few: int, new_items: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blend_weights, "_FEW_VISITORS", few)
    minute = 60_000
    train = [Event(f"v{visitor}", f"i{visitor}", "view", minute) for visitor in range(4)]
    # v0 and v3 continue the session, v3 with the same item; v1 comes back after 40 minutes; v2 comes back after two
    # hours, with two events
    later = [("v0", "i1", 2), ("v1", "i2", 41), ("v2", "i3", 121), ("v2", "i0", 122), ("v3", "i3", 2)]
    validation = [Event(visitor, item, "view", when * minute) for visitor, item, when in later]
    names = {"visitors": [f"v{index}" for index in range(4)], "items": [f"i{index}" for index in range(4)]}
    dataset = build_dataset(str(tmp_path), train=train, validation=validation, test=[], **names)
    cases = ranking_cases(dataset)
    # the moment of all returning visitors is the first event of the window, in the second minute: all are in a session
    assert {ranking: [each.visitor.tolist() for each in found] for ranking, found in cases.items()} == {
        "new_items": new_items,  # with fewer visitors than `few`, also the new items within a session
        "returning": [[1, 2]],  # their first items after the gap
        "in_session": [[0, 2, 3]],
    }
    rows = build_cases(dataset, Split.VALIDATION, next_items)
    ((_, queries),) = query_chunks(rows.visitor, rows.history, rows.timestamp_ms, len(rows))
    served = rows.take(np.flatnonzero(is_in_session(queries)))
    assert served.timestamp_ms.tolist() == cases["in_session"][0].timestamp_ms.tolist()
    assert served.timestamp_ms.tolist() == [2 * minute, 122 * minute, 2 * minute]


def test_items_of_a_session_choose_the_weights_for_new_items_of_few_visitors(tmp_path: Path) -> None:
    minute = 60_000
    names = {"visitors": [f"v{index}" for index in range(40)], "items": [f"i{index}" for index in range(40)]}
    train = [Event(f"v{index}", f"i{index}", "view", minute) for index in range(40)]
    # no visitor returns; each of 30 starts a session in the window and goes on to the item after the first one
    validation = [
        Event(f"v{index + 40}", f"i{(index + step) % 40}", "view", (2 + step) * minute)
        for index in range(30)
        for step in range(2)
    ]
    dataset = build_dataset(str(tmp_path), train=train, validation=validation, test=[], **names)
    cases = ranking_cases(dataset)
    ((new_items,),) = [cases["new_items"]]
    assert new_items.relevant.values.tolist() == [(index + 1) % 40 for index in range(30)]


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


def test_a_blend_without_models_ranks_by_popularity_and_trend(tmp_path) -> None:
    dataset = build_dataset(str(tmp_path), **checkerboard())
    events = read_item_events(dataset)
    trending = blend_alone(None, ranking_cases(dataset), events, dataset.item_counts)
    assert isinstance(trending, BlendInference)
    case = cases_of([[0]], [[1]], dataset.num_items)
    set_trends([trending], replace(case, timestamp_ms=events.timestamp_ms[-1:] + 1), events)


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
