import dataclasses

import numpy as np
import pytest

from contract.schema import Split
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import TableScorer, cases_of, lists_of
from tests.trainer.ranking.plain import plain_list, plain_metrics
from trainer.evaluation.cases import build_cases, next_items
from trainer.evaluation.evaluator import Evaluator, evaluate_scorer
from trainer.evaluation.exposure import coverage
from trainer.evaluation.metrics import metric_values
from trainer.ranking.topk import top_k

NUM_ITEMS = 40


def random_cases(generator, num_visitors):
    """Histories of up to 12 items, some unknown; up to 6 relevant items, none of the history."""
    history, relevant = [], []
    for _ in range(num_visitors):
        seen = generator.integers(0, NUM_ITEMS + 3, size=generator.integers(1, 13))
        new = np.setdiff1d(np.arange(NUM_ITEMS), seen)
        history.append(seen.tolist())
        relevant.append(np.sort(generator.permutation(new)[: generator.integers(1, 7)]).tolist())
    return history, relevant


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("ks", [(1, 5), (10, NUM_ITEMS), (7, NUM_ITEMS + 20)])
@pytest.mark.parametrize("hides_seen", [True, False])
def test_the_evaluator_equals_a_slow_plain_one(levels, ks, hides_seen):
    """Three levels of score make ties the rule, at the end of the list too."""
    generator = np.random.default_rng(0)
    history, relevant = random_cases(generator, num_visitors=23)
    scores = generator.integers(0, levels, size=(23, NUM_ITEMS)).astype(np.float32)
    # where seen items are shown otherwise, some of them are to be found as well
    again = [[item for item in seen[:2] if item < NUM_ITEMS] if hides_seen else [] for seen in history]
    relevant_otherwise = [sorted({*new, *old}) for new, old in zip(relevant, again, strict=True)]
    cases = dataclasses.replace(
        cases_of(history, relevant, NUM_ITEMS),
        hides_seen=hides_seen,
        relevant_otherwise=lists_of(relevant_otherwise),
    )
    # scores of four visitors at a time: the last chunk is not full
    measured = Evaluator(TableScorer(scores), cases, ks, scores_bytes=4 * NUM_ITEMS * 4, is_both_ways=True).measure()
    otherwise = metric_values(measured.ranks_otherwise, measured.ks)
    seen = [set(items) for items in history]
    hidden, hidden_otherwise = (seen, [set()] * 23) if hides_seen else ([set()] * 23, seen)
    for k in ks:
        ways = ((measured.by_case, hidden, relevant), (otherwise, hidden_otherwise, relevant_otherwise))
        for values, hides, right in ways:
            expected = [plain_metrics(scores[v], hides[v], set(right[v]), k) for v in range(23)]
            for name in expected[0]:
                np.testing.assert_allclose(values[name], [row[name] for row in expected], err_msg=name)
        lists = [plain_list(scores[v], hidden[v], k) for v in range(23)]
        times = np.bincount([item for shown in lists for item in shown], minlength=NUM_ITEMS)
        np.testing.assert_array_equal(measured.shown[k], times)
        assert coverage(measured.shown[k]) == pytest.approx(len(np.unique(np.concatenate(lists))) / NUM_ITEMS)


def test_next_items_equal_those_of_a_slow_plain_evaluator(tmp_path):
    """Random timelines over few items, so that returns and unknown items are common; scores by visitor."""
    generator = np.random.default_rng(1)
    items = [f"i{item}" for item in range(8)]
    events = [
        (f"v{generator.integers(5)}", f"i{generator.integers(10)}", "view", moment)  # i8 and i9 are unknown
        for moment in range(80)
    ]
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=events[:50],
        test=events[50:],
        visitors=[f"v{v}" for v in range(5)],
        items=items,
    )
    scores = generator.integers(0, 6, size=(5, 8)).astype(np.float32)
    cases = build_cases(dataset, Split.TEST, next_items)
    measured = Evaluator(TableScorer(scores), cases, [3], is_both_ways=True).measure()
    otherwise = metric_values(measured.ranks_otherwise, measured.ks)
    timelines = [[int(item[1:]) for name, item, _, _ in events if name == f"v{v}"] for v in range(5)]
    place = {v: sum(name == f"v{v}" for name, *_ in events[:50]) for v in range(5)}
    expected, expected_new = {}, {}
    for name, item, _, _ in events[50:]:
        visitor, target = int(name[1:]), int(item[1:])
        seen = set(timelines[visitor][: place[visitor]])
        place[visitor] += 1
        if seen and target < 8:
            expected.setdefault(visitor, []).append(plain_metrics(scores[visitor], set(), {target}, 3))
            if target not in seen:
                expected_new.setdefault(visitor, []).append(plain_metrics(scores[visitor], seen, {target}, 3))
    for visitor in range(5):
        is_his = cases.visitor == visitor
        for metric in ("recall@3", "ndcg@3", "mrr@3", "hit_rate@3"):
            values = measured.by_case[metric][is_his]
            np.testing.assert_allclose(values, [row[metric] for row in expected[visitor]])
            values = otherwise[metric][is_his & cases.is_new]
            np.testing.assert_allclose(values, [row[metric] for row in expected_new.get(visitor, [])])


def test_a_constant_scorer_finds_nothing_though_it_has_the_catalogues_order():
    """Item 0 heads the catalogue, and a stable sort would find it."""
    measured = evaluate_scorer(TableScorer(np.zeros((1, 30))), cases_of([[1]], [[0]], 30), [10])
    assert measured.mean("hit_rate@10") == 0
    # of 29 visible items all tie: 28 others stand before it, so that only the whole catalogue holds it
    whole = evaluate_scorer(TableScorer(np.zeros((1, 30))), cases_of([[1]], [[0]], 30), [28, 29])
    assert whole.mean("hit_rate@28") == 0
    assert whole.mean("mrr@29") == pytest.approx(1 / 29)


def test_tied_relevant_items_stand_behind_the_others_but_not_behind_each_other():
    # items 0, 1, 2 tie; 1 and 2 are relevant: places 0 (irrelevant), then 1 and 2
    measured = evaluate_scorer(TableScorer([[5, 5, 5, 0, 0]]), cases_of([[4]], [[1, 2]], 5), [2])
    assert measured.mean("recall@2") == pytest.approx(1 / 2)
    assert measured.mean("mrr@2") == pytest.approx(1 / 2)


def test_seen_items_do_not_take_places_in_the_list():
    # items 0 and 1 score higher than the relevant item 2, and are hidden: it comes first
    measured = evaluate_scorer(TableScorer([[9, 8, 7, 6]]), cases_of([[0, 1]], [[2]], 4), [1])
    assert measured.mean("ndcg@1") == 1
    assert measured.shown[1].tolist() == [0, 0, 1, 0]


def test_an_evaluator_measures_the_weights_of_the_moment():
    scorer = TableScorer([[0, 1, 2]])
    evaluator = Evaluator(scorer, cases_of([[2]], [[0]], 3), [1])
    assert evaluator.measure().mean("hit_rate@1") == 0
    scorer.scores.assign([[1, 0, 2]])
    assert evaluator.measure().mean("hit_rate@1") == 1


def test_one_ranking_is_made_unless_both_are_asked_for(monkeypatch):
    ranked = []
    monkeypatch.setattr("trainer.evaluation.evaluator.top_k", lambda scores, k: ranked.append(k) or top_k(scores, k))
    once, twice = (
        evaluate_scorer(TableScorer([[3, 2, 1]]), cases_of([[0]], [[2]], 3), [1], is_both_ways=is_both_ways)
        for is_both_ways in (False, True)
    )
    assert ranked == [2] * 3  # once for the first, twice for the second; the one best and the next, which might tie
    assert once.ranks_otherwise is None
    assert once.by_case["mrr@1"] == twice.by_case["mrr@1"]


def test_a_diverged_model_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        evaluate_scorer(TableScorer([[np.nan, 1]]), cases_of([[0]], [[1]], 2), [1])


def test_no_cases_and_empty_lists_are_refused():
    with pytest.raises(ValueError, match="nothing to rank"):
        Evaluator(TableScorer([[1.0]]), cases_of([], [], 1))
    with pytest.raises(ValueError, match="at least 1"):
        Evaluator(TableScorer([[1.0, 2.0]]), cases_of([[0]], [[1]], 2), [0, 10])
