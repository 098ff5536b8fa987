"""Compares the evaluator with `ranx`, an independent implementation of the metrics."""

import dataclasses
import importlib

import numpy as np
import pytest

from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.evaluation.evaluator import evaluate_scorer

NUM_VISITORS, NUM_ITEMS, KS = 30, 150, (1, 5, 10, 20, 100)


@pytest.fixture(scope="module")
def ranx():
    """Imports `ranx` without just-in-time compilation, which would take a minute for a test of milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        return importlib.import_module("ranx")


@pytest.fixture(scope="module", params=["returning visitors", "next item"])
def cases(request):
    """Returns scores without ties, because ranx breaks ties arbitrarily, and cases with histories of five items.

    Returning visitors have up to 25 relevant items, more than most K, and seen items are hidden. A next item is a
    single relevant item that may have been seen.
    """
    hides_seen = request.param == "returning visitors"
    generator = np.random.default_rng(0)
    scores = generator.permuted(np.tile(np.arange(NUM_ITEMS, dtype=np.float32), (NUM_VISITORS, 1)), axis=1)
    history, relevant = [], []
    for _ in range(NUM_VISITORS):
        order = generator.permutation(NUM_ITEMS)
        history.append(order[:5].tolist())
        new = order[5 : 5 + generator.integers(1, 26)]
        relevant.append(np.sort(new).tolist() if hides_seen else [int(generator.choice(order[:10]))])
    return scores, history, relevant, hides_seen


@pytest.fixture(scope="module")
def measured(cases):
    scores, history, relevant, hides_seen = cases
    given = dataclasses.replace(cases_of(history, relevant, NUM_ITEMS), hides_seen=hides_seen)
    return evaluate_scorer(TableScorer(scores), given, KS).by_case


@pytest.fixture(scope="module")
def expected(ranx, cases):
    names = [f"v{visitor:02d}" for visitor in range(NUM_VISITORS)]
    relevant = {name: {f"i{item}": 1 for item in items} for name, items in zip(names, cases[2], strict=True)}
    run = {
        name: {f"i{item}": float(row[item]) for item in range(NUM_ITEMS) if not (cases[3] and item in seen)}
        for name, row, seen in zip(names, cases[0], cases[1], strict=True)
    }
    metrics = [f"{metric}@{k}" for metric in ("recall", "ndcg", "mrr", "hit_rate") for k in KS]
    return ranx.evaluate(ranx.Qrels(relevant), ranx.Run(run), metrics, return_mean=False)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("metric", ["ndcg", "mrr", "hit_rate"])
def test_each_visitors_metric_equals_that_of_ranx(measured, expected, metric, k):
    np.testing.assert_allclose(measured[f"{metric}@{k}"], expected[f"{metric}@{k}"])


@pytest.mark.parametrize("k", KS)
def test_recall_equals_that_of_ranx_except_for_the_truncated_denominator(cases, measured, expected, k):
    num_relevant = np.array([len(items) for items in cases[2]])
    truncated = expected[f"recall@{k}"] * num_relevant / np.minimum(num_relevant, k)
    np.testing.assert_allclose(measured[f"recall@{k}"], truncated)
