"""The evaluator beside `ranx`, an implementation of the metrics by others."""

import importlib

import numpy as np
import pytest

from tests.trainer.ranking.fakes import TableScorer, cases_of
from trainer.ranking.evaluation import evaluate_scorer

NUM_VISITORS, NUM_ITEMS, KS = 30, 50, (1, 5, 10)


@pytest.fixture(scope="module")
def ranx():
    """The package, interpreted: numba would compile its loops for a minute to run them for milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NUMBA_DISABLE_JIT", "1")
        return importlib.import_module("ranx")


@pytest.fixture(scope="module")
def cases():
    """Scores without ties, of which ranx breaks as it likes; five items seen; one to fifteen relevant: more than K."""
    generator = np.random.default_rng(0)
    scores = generator.permuted(np.tile(np.arange(NUM_ITEMS, dtype=np.float32), (NUM_VISITORS, 1)), axis=1)
    history, relevant = [], []
    for _ in range(NUM_VISITORS):
        order = generator.permutation(NUM_ITEMS)
        history.append(order[:5].tolist())
        relevant.append(np.sort(order[5 : 5 + generator.integers(1, 16)]).tolist())
    return scores, history, relevant


@pytest.fixture(scope="module")
def measured(cases):
    scores, history, relevant = cases
    return evaluate_scorer(TableScorer(scores), cases_of(history, relevant, NUM_ITEMS), KS).by_case


@pytest.fixture(scope="module")
def expected(ranx, cases):
    names = [f"v{visitor:02d}" for visitor in range(NUM_VISITORS)]
    chosen = {name: {f"i{item}": 1 for item in items} for name, items in zip(names, cases[2], strict=True)}
    run = {
        name: {f"i{item}": float(row[item]) for item in range(NUM_ITEMS) if item not in seen}
        for name, row, seen in zip(names, cases[0], cases[1], strict=True)
    }
    metrics = [f"{metric}@{k}" for metric in ("recall", "ndcg", "mrr", "hit_rate") for k in KS]
    return ranx.evaluate(ranx.Qrels(chosen), ranx.Run(run), metrics, return_mean=False)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("metric", ["ndcg", "mrr", "hit_rate"])
def test_each_visitors_metric_equals_that_of_ranx(measured, expected, metric, k):
    np.testing.assert_allclose(measured[f"{metric}@{k}"], expected[f"{metric}@{k}"])


@pytest.mark.parametrize("k", KS)
def test_recall_equals_that_of_ranx_but_for_the_truncated_denominator(cases, measured, expected, k):
    num_relevant = np.array([len(items) for items in cases[2]])
    truncated = expected[f"recall@{k}"] * num_relevant / np.minimum(num_relevant, k)
    np.testing.assert_allclose(measured[f"recall@{k}"], truncated)
