"""Compares the speed of the trainer's evaluator with that of a textbook loop, for several systems.

The textbook implementation is a numpy loop over the cases. For each system and each policy (seen items hidden or
shown), it scores all items, sorts them and computes the metrics. Both implementations compute all metrics for all list
lengths, and their mean metrics must agree. Their runs are interleaved.

usage: python -m benchmarks.evaluation
"""

import os
from collections.abc import Mapping

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.harness import Load, report, timed
from contract.schema import DEFAULT_KINDS
from trainer.evaluation.cases import Cases
from trainer.evaluation.evaluator import LIST_LENGTHS, Measurement, evaluate_scorers
from trainer.evaluation.metrics import RelevantRanks, metric_values
from trainer.models.interface import Queries
from trainer.ranking.histories import Histories
from trainer.ranking.lists import Lists

CASES, ITEMS, DIM, SYSTEMS = 800, 70_000, 64, 4
HISTORY, RELEVANT = 400, 10
TEXTBOOK_SHARE = 10  # the textbook loop is slow: it measures one case in ten
TURNS = 3
TARGETS = {"ratio": 10}


class _Products:
    def __init__(self, visitors: np.ndarray, items: np.ndarray) -> None:
        self.visitors, self.items = visitors, items
        self._visitors, self._items = tf.Variable(visitors), tf.Variable(items)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        return tf.matmul(tf.gather(self._visitors, queries.visitor), self._items, transpose_b=True)


def main() -> None:
    """Measures the evaluator and the textbook loop in interleaved runs."""
    generator, load = np.random.default_rng(0), Load()
    systems = {
        f"system {number}": _Products(
            *(generator.normal(size=(rows, DIM)).astype(np.float32) for rows in (CASES, ITEMS))
        )
        for number in range(SYSTEMS)
    }
    cases = _cases(generator)
    few = cases.take(np.arange(CASES // TEXTBOOK_SHARE))
    _check_same(evaluate_scorers(systems, few, with_secondary=True), _textbook(systems, few))
    seconds = {"ours": 0.0, "textbook": 0.0}
    for _ in range(TURNS):
        seconds["ours"] += timed(lambda: evaluate_scorers(systems, cases, with_secondary=True))
        seconds["textbook"] += timed(lambda: _textbook(systems, few))
    num_ours, num_textbook = TURNS * SYSTEMS * len(cases), TURNS * SYSTEMS * len(few)
    ours, textbook = num_ours / seconds["ours"], num_textbook / seconds["textbook"]
    figures = {
        "ours_per_second": round(ours),
        "textbook_per_second": round(textbook),
        "ratio": round(ours / textbook, 1),
        "targets": TARGETS,
    }
    report("evaluation", figures, load=load.share())


def _cases(generator: np.random.Generator) -> Cases:
    """Builds one case per visitor. No relevant item is in the history."""
    drawn = np.stack([generator.choice(ITEMS, HISTORY + RELEVANT, replace=False) for _ in range(CASES)])
    seen, relevant = drawn[:, :HISTORY].ravel(), np.sort(drawn[:, HISTORY:], axis=1)
    starts, zeros = np.arange(CASES + 1), np.zeros(len(seen), np.int64)
    lists = Lists(relevant.ravel(), starts * RELEVANT)
    begins, ends = starts[:-1] * HISTORY, starts[1:] * HISTORY
    return Cases(
        visitor=np.arange(CASES),
        timeline=np.arange(CASES),
        history=Histories(item=seen, event=zeros, timestamp_ms=zeros, begins=begins, ends=ends),
        timestamp_ms=np.zeros(CASES, np.int64),
        relevant=lists,
        secondary_relevant=lists,
        kinds=DEFAULT_KINDS,
        is_kind=np.ones((len(lists.values), len(DEFAULT_KINDS)), bool),
        is_new=np.ones(CASES, bool),
        hides_seen=True,
        num_items=ITEMS,
        num_without_history=0,
        num_without_relevant=0,
        unknown_item_share=0.0,
    )


def _rank_all(scores: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Returns the ranks [I] of the items; the best rank is 0. Hidden items rank last."""
    visible = scores.copy()
    visible[hidden] = -np.inf
    ranks = np.empty(ITEMS, np.int64)
    ranks[np.argsort(-visible)] = np.arange(ITEMS)
    return ranks


def _textbook(systems: Mapping[str, _Products], cases: Cases) -> dict[str, list[dict[str, np.ndarray]]]:
    """Returns two dicts per system, by metric: values per case without the seen items, and values with all items."""
    measured: dict[str, list[dict[str, np.ndarray]]] = {}
    for name, system in systems.items():
        ranks = np.empty((2, len(cases), RELEVANT), np.int64)
        for case, visitor in enumerate(cases.visitor):
            scores = system.items @ system.visitors[visitor]
            seen = cases.history.item[cases.history.begins[case] : cases.history.ends[case]]
            for row, hidden in enumerate((seen, seen[:0])):
                ranks[row, case] = _rank_all(scores, hidden)[cases.relevant.padded(case, case + 1)[0]]
        measured[name] = [
            metric_values(RelevantRanks(of.ravel(), cases.relevant.owner, cases.relevant.lengths), LIST_LENGTHS)
            for of in ranks
        ]
    return measured


def _check_same(ours: Mapping[str, Measurement], textbook: Mapping[str, list[dict[str, np.ndarray]]]) -> None:
    """Checks that the mean metrics of both implementations differ by at most 0.001. Rounding can swap items.

    Raises:
      ValueError: a metric differs by more.
    """
    for name, (hidden, shown) in textbook.items():
        secondary = ours[name].secondary_ranks
        assert secondary is not None
        for found, expected in ((ours[name].by_case, hidden), (metric_values(secondary, LIST_LENGTHS), shown)):
            for metric, values in expected.items():
                if abs(found[metric].mean() - values.mean()) > 1e-3:
                    means = f"{found[metric].mean()} in the evaluator, but {values.mean()} in the textbook loop"
                    raise ValueError(f"the two implementations differ: the mean {metric} of {name} is {means}")


if __name__ == "__main__":
    main()
