import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from contract.schema import Split
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import TableScorer, cases_of, lists_of
from tests.trainer.ranking.plain import plain_list, plain_metrics
from trainer.evaluation.cases import build_cases, next_items
from trainer.evaluation.evaluator import Evaluator, evaluate_scorer, evaluate_scorers
from trainer.evaluation.exposure import coverage
from trainer.evaluation.metrics import metric_values
from trainer.models.top_items import TopItems, top_k

NUM_ITEMS = 40


def random_cases(generator, num_visitors):
    """Builds cases with histories of up to 12 items, some unknown, and up to 6 relevant items not in the history."""
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
def test_the_evaluator_equals_a_slow_simple_one(levels, ks, hides_seen):
    """Scores have three levels, so most items tie, also at the end of the list."""
    generator = np.random.default_rng(0)
    history, relevant = random_cases(generator, num_visitors=23)
    scores = generator.integers(0, levels, size=(23, NUM_ITEMS)).astype(np.float32)
    # if the secondary ranking shows seen items, some of them are relevant too
    again = [[item for item in seen[:2] if item < NUM_ITEMS] if hides_seen else [] for seen in history]
    secondary_relevant = [sorted({*new, *old}) for new, old in zip(relevant, again, strict=True)]
    cases = dataclasses.replace(
        cases_of(history, relevant, NUM_ITEMS),
        hides_seen=hides_seen,
        secondary_relevant=lists_of(secondary_relevant),
    )
    is_available = generator.random(NUM_ITEMS) < 0.5
    # chunks of four visitors: the last one is not full
    options = {"scores_bytes": 4 * NUM_ITEMS * 4, "with_secondary": True, "is_available": is_available}
    measured = Evaluator(TableScorer(scores), cases, ks, **options).measure()
    secondary, available = (
        metric_values(ranks, measured.ks) for ranks in (measured.secondary_ranks, measured.available_ranks)
    )
    seen = [set(items) for items in history]
    hidden, secondary_hidden = (seen, [set()] * 23) if hides_seen else ([set()] * 23, seen)
    unavailable = [items | set(np.flatnonzero(~is_available)) for items in hidden]
    for k in ks:
        rankings = (
            (measured.by_case, hidden, relevant),
            (secondary, secondary_hidden, secondary_relevant),
            (available, unavailable, relevant),
        )
        for values, hides, targets in rankings:
            expected = [plain_metrics(scores[v], hides[v], set(targets[v]), k) for v in range(23)]
            for name in expected[0]:
                np.testing.assert_allclose(values[name], [row[name] for row in expected], err_msg=name)
        lists = [plain_list(scores[v], hidden[v], k) for v in range(23)]
        times = np.bincount([item for items in lists for item in items], minlength=NUM_ITEMS)
        np.testing.assert_array_equal(measured.times_recommended[k], times)
        assert coverage(measured.times_recommended[k]) == pytest.approx(
            len(np.unique(np.concatenate(lists))) / NUM_ITEMS
        )


def test_next_items_equal_those_of_a_slow_simple_evaluator(tmp_path):
    """Timelines are random, over few items, so returns and unknown items are frequent; scores differ by visitor."""
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
    measured = Evaluator(TableScorer(scores), cases, [3], with_secondary=True).measure()
    secondary = metric_values(measured.secondary_ranks, measured.ks)
    timelines = [[int(item[1:]) for name, item, _, _ in events if name == f"v{v}"] for v in range(5)]
    seen_rows = {v: sum(name == f"v{v}" for name, *_ in events[:50]) for v in range(5)}
    expected, expected_new = {}, {}
    for name, item, _, _ in events[50:]:
        visitor, target = int(name[1:]), int(item[1:])
        seen = set(timelines[visitor][: seen_rows[visitor]])
        seen_rows[visitor] += 1
        if seen and target < 8:
            expected.setdefault(visitor, []).append(plain_metrics(scores[visitor], set(), {target}, 3))
            if target not in seen:
                expected_new.setdefault(visitor, []).append(plain_metrics(scores[visitor], seen, {target}, 3))
    for visitor in range(5):
        is_own = cases.visitor == visitor
        for metric in ("recall@3", "ndcg@3", "mrr@3", "hit_rate@3"):
            values = measured.by_case[metric][is_own]
            np.testing.assert_allclose(values, [row[metric] for row in expected[visitor]])
            values = secondary[metric][is_own & cases.is_new]
            np.testing.assert_allclose(values, [row[metric] for row in expected_new.get(visitor, [])])


def test_a_constant_scorer_has_no_hits():
    """A stable sort would rank item 0 first, because it is the first of the catalogue."""
    measured = evaluate_scorer(TableScorer(np.zeros((1, 30))), cases_of([[1]], [[0]], 30), [10])
    assert measured.mean("hit_rate@10") == 0
    # all 29 visible items tie, so 28 others are ranked before it, and only the whole catalogue contains it
    whole = evaluate_scorer(TableScorer(np.zeros((1, 30))), cases_of([[1]], [[0]], 30), [28, 29])
    assert whole.mean("hit_rate@28") == 0
    assert whole.mean("mrr@29") == pytest.approx(1 / 29)


def test_tied_relevant_items_are_ranked_after_the_others_but_not_after_each_other():
    # items 0, 1, 2 tie; 1 and 2 are relevant: rank 0 is irrelevant, then ranks 1 and 2
    measured = evaluate_scorer(TableScorer([[5, 5, 5, 0, 0]]), cases_of([[4]], [[1, 2]], 5), [2])
    assert measured.mean("recall@2") == pytest.approx(1 / 2)
    assert measured.mean("mrr@2") == pytest.approx(1 / 2)


def test_hidden_items_take_no_ranks():
    # items 0 and 1 score higher than the relevant item 2, but are hidden, so it is first
    measured = evaluate_scorer(TableScorer([[9, 8, 7, 6]]), cases_of([[0, 1]], [[2]], 4), [1])
    assert measured.mean("ndcg@1") == 1
    assert measured.times_recommended[1].tolist() == [0, 0, 1, 0]


def test_unavailable_items_take_no_ranks_and_are_missed():
    # the order is 0, 1, 2, 3: without items 0 and 3, relevant item 1 is first; item 3 is missed
    is_available = np.array([False, True, True, False, True])
    measured = evaluate_scorer(
        TableScorer([[9, 8, 7, 6, 5]]), cases_of([[4]], [[1, 3]], 5), [1, 5], is_available=is_available
    )
    available = metric_values(measured.available_ranks, measured.ks)
    assert available["recall@1"] == 1
    assert available["recall@5"] == 1 / 2
    # with all items, their ranks are 1 and 3
    assert (measured.mean("recall@1"), measured.mean("recall@5"), measured.mean("mrr@5")) == (0, 1, 1 / 2)


def test_an_evaluator_uses_the_current_weights():
    scorer = TableScorer([[0, 1, 2]])
    evaluator = Evaluator(scorer, cases_of([[2]], [[0]], 3), [1])
    assert evaluator.measure().mean("hit_rate@1") == 0
    scorer.scores.assign([[1, 0, 2]])
    assert evaluator.measure().mean("hit_rate@1") == 1


@pytest.mark.parametrize("hides_seen", [True, False])
def test_one_search_of_the_catalogue_serves_both_rankings(hides_seen, monkeypatch):
    searches = []

    def counted(scores, k):
        top = top_k(scores, k)
        item = tf.numpy_function(lambda items: searches.append(k) or items, [top.item], tf.int64, stateful=False)
        return TopItems(tf.ensure_shape(item, top.item.shape), top.score)

    monkeypatch.setattr("trainer.evaluation.chunk_ranking.top_k", counted)
    cases = dataclasses.replace(cases_of([[0]], [[2]], 3), hides_seen=hides_seen)
    once, twice = (
        evaluate_scorer(TableScorer([[3, 2, 1]]), cases, [1], with_secondary=with_secondary)
        for with_secondary in (False, True)
    )
    assert searches == [2] * 2  # one for each measurement, for the best item and the next, which could tie
    assert once.secondary_ranks is None
    assert twice.available_ranks is None
    assert once.by_case["mrr@1"] == twice.by_case["mrr@1"]


def test_several_scorers_are_measured_as_each_alone():
    generator = np.random.default_rng(3)
    history, relevant = random_cases(generator, num_visitors=9)
    cases = cases_of(history, relevant, NUM_ITEMS)
    scorers = {name: TableScorer(generator.integers(0, 9, size=(9, NUM_ITEMS))) for name in ("a", "b", "c")}
    options = {"with_secondary": True, "is_available": generator.random(NUM_ITEMS) < 0.5}
    ranked = []
    together = evaluate_scorers(scorers, cases, (1, 5), on_progress=ranked.append, **options)
    assert list(together) == ["a", "b", "c"]
    assert sum(ranked) == 9
    for name, scorer in scorers.items():
        alone = evaluate_scorer(scorer, cases, (1, 5), **options)
        for ranks in ("ranks", "secondary_ranks", "available_ranks"):
            np.testing.assert_array_equal(getattr(together[name], ranks).rank, getattr(alone, ranks).rank)
        for k in (1, 5):
            np.testing.assert_array_equal(together[name].times_recommended[k], alone.times_recommended[k])


def test_a_diverged_model_raises():
    with pytest.raises(ValueError, match="not finite"):
        evaluate_scorer(TableScorer([[np.nan, 1]]), cases_of([[0]], [[1]], 2), [1])
    with pytest.raises(ValueError, match="not finite"):
        evaluate_scorers({"bad": TableScorer([[np.nan, 1]])}, cases_of([[0]], [[1]], 2), [1])


def test_no_cases_and_empty_lists_raise():
    with pytest.raises(ValueError, match="there is nothing to evaluate"):
        Evaluator(TableScorer([[1.0]]), cases_of([], [], 1))
    with pytest.raises(ValueError, match="at least 1"):
        Evaluator(TableScorer([[1.0, 2.0]]), cases_of([[0]], [[1]], 2), [0, 10])
