import numpy as np
import pytest

from contract.schema import Split
from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import TableScorer, cases_of
from tests.trainer.ranking.plain import plain_list, plain_metrics
from trainer.ranking.evaluation import Evaluator, evaluate_scorer, returning_visitor_ndcg

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
def test_the_evaluator_equals_a_slow_plain_one(levels, ks):
    """Three levels of score make ties the rule, at the end of the list too."""
    generator = np.random.default_rng(0)
    history, relevant = random_cases(generator, num_visitors=23)
    scores = generator.integers(0, levels, size=(23, NUM_ITEMS)).astype(np.float32)
    cases = cases_of(history, relevant, NUM_ITEMS)
    # scores of four visitors at a time: the last chunk is not full
    measured = Evaluator(TableScorer(scores), cases, ks, scores_bytes=4 * NUM_ITEMS * 4).measure()
    for k in ks:
        expected = [plain_metrics(scores[v], set(history[v]), set(relevant[v]), k) for v in range(23)]
        for name in expected[0]:
            np.testing.assert_allclose(measured.by_visitor[name], [row[name] for row in expected], err_msg=name)
        shown = {item for v in range(23) for item in plain_list(scores[v], set(history[v]), k)}
        assert measured.coverage[f"coverage@{k}"] == pytest.approx(len(shown) / NUM_ITEMS)


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
    assert measured.coverage["coverage@1"] == pytest.approx(1 / 4)


def test_an_evaluator_measures_the_weights_of_the_moment():
    scorer = TableScorer([[0, 1, 2]])
    evaluator = Evaluator(scorer, cases_of([[2]], [[0]], 3), [1])
    assert evaluator.measure().mean("hit_rate@1") == 0
    scorer.scores.assign([[1, 0, 2]])
    assert evaluator.measure().mean("hit_rate@1") == 1


def test_a_diverged_model_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        evaluate_scorer(TableScorer([[np.nan, 1]]), cases_of([[0]], [[1]], 2), [1])


def test_no_cases_and_empty_lists_are_refused():
    with pytest.raises(ValueError, match="no returning visitor"):
        Evaluator(TableScorer([[1.0]]), cases_of([], [], 1))
    with pytest.raises(ValueError, match="at least 1"):
        Evaluator(TableScorer([[1.0, 2.0]]), cases_of([[0]], [[1]], 2), [0, 10])


def test_the_convenience_measures_a_split_of_a_dataset(tmp_path):
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "a")],
        validation=[("anna", "c", "view", 10)],
        visitors=["anna"],
        items=["a", "b", "c", "d"],
    )
    # of the visible items b, c, d the relevant c comes second: 1 / log2(3)
    ndcg = returning_visitor_ndcg(TableScorer([[9, 3, 2, 1]]), dataset, Split.VALIDATION)
    assert ndcg == pytest.approx(0.63093, abs=1e-5)
