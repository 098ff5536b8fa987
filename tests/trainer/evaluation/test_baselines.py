import numpy as np

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import cases_of, queries_of
from trainer.config.models import SessionKnnConfig, SessionKnnPowers, WalkConfig, WalkPowers
from trainer.data.baskets import training_baskets
from trainer.data.trend import read_item_events
from trainer.evaluation.baselines import (
    RandomOrder,
    build_baselines,
    item_walk,
    popular,
    session_knn,
    validation_cases,
)
from trainer.evaluation.evaluator import evaluate_scorer


def order(scorer, history=()):
    scores = scorer.catalogue_scores(queries_of([0], [list(history)])).numpy()[0]
    return np.argsort(-scores, kind="stable").tolist()


def test_popular_ranks_by_training_events():
    assert order(popular(np.array([2, 9, 4]))) == [1, 2, 0]


def test_a_popularity_model_validates_the_evaluator():
    """There are two visitors, and the items by popularity are 3, 1, 0, 2 (after Rendle et al., RecSys 2022)."""
    scorer = popular(np.array([5, 7, 1, 9]))
    cases = cases_of([[3], [0]], [[0], [2]], num_items=4)
    # visitor 0 sees 1, 0, 2: the relevant 0 is second; visitor 1 sees 3, 1, 2: the relevant 2 is third
    measured = evaluate_scorer(scorer, cases, [3])
    np.testing.assert_allclose(measured.by_case["mrr@3"], [1 / 2, 1 / 3])


def test_random_rankings_differ_by_visitor_but_not_by_chunk():
    scorer = RandomOrder(50, seed=7)
    together = scorer.catalogue_scores(queries_of([3, 4])).numpy()
    assert not np.allclose(together[0], together[1])
    np.testing.assert_array_equal(scorer.catalogue_scores(queries_of([4])).numpy()[0], together[1])
    assert not np.allclose(RandomOrder(50, seed=8).catalogue_scores(queries_of([3])).numpy()[0], together[0])


def test_random_has_the_hit_rate_of_chance():
    cases = cases_of([[0]] * 400, [[1]] * 400, num_items=21)
    # one relevant of 20 visible items, a list of five: one hit in four, standard error 0.022
    assert abs(evaluate_scorer(RandomOrder(21, seed=1), cases, [5]).mean("hit_rate@5") - 0.25) < 0.07


def test_the_walk_has_the_powers_that_validation_chooses(tmp_path, monkeypatch):
    # a visitor of 0 also touched 1 or, once, 2, which has fewer visitors; the validation split continues 0 with 2
    pairs = [("a", "b"), ("a", "b"), ("a", "c"), ("d", "b"), ("d", "b")]
    train = [
        (f"v{v}", item, "view", 10 * v + number) for v, pair in enumerate(pairs) for number, item in enumerate(pair)
    ]
    train += [("w", "a", "view", 90)]
    arguments = {"train": train, "visitors": [*(f"v{v}" for v in range(5)), "w"], "items": list("abcd")}
    popular_first, rare_first = WalkPowers(0, 0, 0, 0), WalkPowers(0, 2, 0, 0)
    combinations = (popular_first, rare_first, popular_first)
    monkeypatch.setattr(WalkConfig, "combinations", combinations)
    dataset = build_dataset(str(tmp_path / "dataset"), **arguments, validation=[("w", "c", "view", 1000)])

    def walk(dataset, kinds=()):
        baskets, cases = training_baskets(dataset), validation_cases(dataset, kinds)
        return order(item_walk(dataset, baskets, cases), [0])[:3]

    # the history 0 leads to 1 and 2 by common visitors, 2 and 1, or these divided by their visitors², 2 / 16 and 1 / 1
    assert walk(dataset) == [2, 0, 1]
    # of buyers alone, none is in validation; the last combination is used
    assert walk(dataset, ["transaction"]) == [0, 1, 2]
    alone = build_dataset(str(tmp_path / "alone"), **arguments)
    assert walk(alone) == [0, 1, 2]


def test_session_knn_has_the_powers_that_validation_chooses(tmp_path, monkeypatch):
    # the history a, b shares its older item with two timelines of c, and its newer one with one of d
    pairs = [("a", "c"), ("a", "c"), ("b", "d"), ("a", "b")]
    dataset = build_dataset(
        str(tmp_path),
        train=[
            (f"v{v}", item, "view", 10 * v + number) for v, pair in enumerate(pairs) for number, item in enumerate(pair)
        ],
        validation=[("v3", "c", "view", 1000)],
        visitors=[f"v{v}" for v in range(4)],
        items=list("abcd"),
    )
    newer_first, equal = SessionKnnPowers(0, 0.5, 2), SessionKnnPowers(0, 0.5, 0)
    monkeypatch.setattr(SessionKnnConfig, "combinations", (newer_first, equal, newer_first))
    scorer = session_knn(dataset, training_baskets(dataset), validation_cases(dataset))
    # with equal weights, c has two timelines and d one; by age, c has 2 × 1 / 4 and d has 1
    assert order(scorer, [0, 1]).index(2) < order(scorer, [0, 1]).index(3)
    fallback = session_knn(dataset, training_baskets(dataset), None)
    assert order(fallback, [0, 1]).index(3) < order(fallback, [0, 1]).index(2)


def test_the_walk_is_tuned_on_next_items_if_no_visitor_returns(tmp_path, caplog):
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "a", "view", 0), ("anna", "b", "view", 1)],
        validation=[("bob", "a", "view", 10), ("bob", "b", "view", 11)],
        visitors=["anna"],
        items=["a", "b", "c"],
    )
    with caplog.at_level("INFO"):
        item_walk(dataset, training_baskets(dataset), validation_cases(dataset))
    # after a, which has the same weight as b, b is second: ties count against a system
    assert "validation NDCG@20 0.6309" in caplog.text


def test_all_baselines_are_built_from_a_dataset(tmp_path):
    dataset = build_dataset(
        str(tmp_path / "dataset"),
        train=[("anna", "b", "view", 0), ("anna", "b", "addtocart", 1), ("anna", "a", "view", 2)],
        visitors=["anna"],
        items=["a", "b"],
    )
    baselines = build_baselines(dataset, read_item_events(dataset), seed=0)
    assert list(baselines) == [
        "popular",
        "trending",
        "item_walk",
        "session_knn",
        "random",
    ]
    assert order(baselines["popular"]) == [1, 0]
