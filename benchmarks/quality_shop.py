"""Measures `nn` on items and visitors without training events, in a synthetic shop of 100,000 visitors.

Shapes: B queries, H history, I items, V cases, M columns, R resamples.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.quality_data import synthetic_shop
from benchmarks.quality_runs import target, train
from contract.schema import Split
from trainer.data.dataset import Dataset, open_dataset
from trainer.evaluation.cases import Cases, build_cases, next_items
from trainer.evaluation.evaluator import evaluate_scorer
from trainer.evaluation.intervals import percentile_interval, resampled_means
from trainer.models.interface import Queries

VISITORS = 100_000
HISTORIES = ((1, 1), (2, 4), (5, 9), (10, None))
_NO_CATEGORY = -1


class PopularWithinCategory:
    """Ranks items by popularity: first those of the category of the visitor's latest item, then all others."""

    def __init__(self, dataset: Dataset) -> None:
        paths = dataset.catalogue["category_path"].to_pylist()
        # a query without a known latest item gets a category that no item has
        category = [path[-1] if path else _NO_CATEGORY for path in paths[: dataset.num_items]] + [_NO_CATEGORY - 1]
        self._category = tf.constant(category, tf.int64)
        counts = dataset.item_counts
        self._popularity = tf.constant(counts / (counts.max() + 1), tf.float32)  # below 1, the bonus of the category

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        num_items = self._popularity.shape[0]
        padded = tf.pad(queries.history, [[0, 0], [0, 1]], constant_values=num_items)
        newest = tf.gather(padded, tf.maximum(queries.history_length - 1, 0), batch_dims=1)
        of_newest = tf.gather(self._category, tf.minimum(newest, num_items))
        is_same = tf.equal(of_newest[:, None], self._category[None, :-1])
        return tf.cast(is_same, tf.float32) + self._popularity


def shop_figures(folder: Path) -> dict[str, Any]:
    """Measures the preset `nn` on new items and new visitors (without training events).

    Compares `nn` with `PopularWithinCategory` by their recall on new items. For `nn`, also compares the recall for new
    visitors with that for known visitors.
    """
    run = train("nn", synthetic_shop(folder, VISITORS), folder)
    dataset = open_dataset(str(folder / "dataset"))
    cases, counts = build_cases(dataset, Split.TEST, next_items), dataset.item_counts
    systems = {"nn": run["scorer"], "popular_within_category": PopularWithinCategory(dataset)}
    recalls = {}
    for name, scorer in systems.items():
        by_case = evaluate_scorer(scorer, cases, (20, 100)).by_case
        recalls[name] = {metric: by_case[metric] for metric in ("recall@20", "recall@100")}
    is_cold = counts[cases.relevant.values] == 0  # each case has one item
    cold_items = {
        "all": cold_figures(recalls, cases.timeline, is_cold),
        "new to the visitor": cold_figures(recalls, cases.timeline, is_cold & cases.is_new),
    }
    visitors = _by_history(recalls["nn"], cases, dataset.num_visitors)
    worst = min(visitors, key=lambda name: visitors[name]["ratio"])
    return {
        "seconds": {"nn": run["seconds"]},
        "catalogue_items": dataset.num_items,
        "items_without_training_events": int((counts == 0).sum()),
        "cold_items": cold_items,
        "visitors_by_history": visitors,
        "targets": [
            *(
                target(
                    f"shop, items without a training event ({name}): nn recall@100 "
                    "/ most popular items in the category of the latest item",
                    5.0,
                    found["ratio"]["value"],
                    f"[{found['ratio']['low']:.2f}, {found['ratio']['high']:.2f}], {found['cases']} next items",
                )
                for name, found in cold_items.items()
            ),
            target(
                "shop: nn recall@20 of visitors unknown to training "
                "/ of known visitors with equally long histories, lowest group",
                0.9,
                visitors[worst]["ratio"],
                f"history {worst}",
            ),
        ],
    }


def cold_figures(
    recalls: Mapping[str, Mapping[str, np.ndarray]], timeline: np.ndarray, is_counted: np.ndarray
) -> dict[str, Any]:
    """Returns the mean recalls of two systems and the `ratio` of their recall@100.

    Each figure has a 95% interval from resampled visitors.

    Args:
      recalls: for each system, its recalls by name, [V] for V cases. The first system is the numerator of the ratio.
      timeline: [V] index of each case's timeline, ascending; a visitor's cases have the same index.
      is_counted: [V] bool, whether the case is included.
    """
    found: dict[str, Any] = {"cases": int(is_counted.sum())}
    ratio_parts = []
    for name, metrics in recalls.items():
        values = np.stack([metrics[metric][is_counted] for metric in metrics], axis=1)
        means = resampled_means(values, owner=timeline[is_counted], seed=0)
        found[name] = _estimates(list(metrics), values.mean(axis=0), means)
        column = list(metrics).index("recall@100")
        ratio_parts.append((values[:, column].mean(), means[:, column]))
    (ours, our_means), (theirs, their_means) = ratio_parts
    with np.errstate(divide="ignore", invalid="ignore"):
        value, means = np.array([ours / theirs]), (our_means / their_means)[:, None]
    return found | _estimates(["ratio"], value, means)


def _estimates(names: Sequence[str], values: np.ndarray, means: np.ndarray) -> dict[str, dict[str, float]]:
    """Returns a dict for each of M names: its `value` and its 95% interval, `low` to `high`.

    `values` is [M]; `means` [R, M] has the means of R resamples.
    """
    low, high = percentile_interval(means)
    columns = zip(names, values.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: {"value": value, "low": lowest, "high": highest} for name, value, lowest, highest in columns}


def _by_history(recalls: Mapping[str, np.ndarray], cases: Cases, num_visitors: int) -> dict[str, dict[str, Any]]:
    """Returns, by length of the history, recall@20 for known and unknown visitors, and the ratio unknown / known."""
    length, is_unknown = cases.history.lengths, cases.visitor >= num_visitors
    found = {}
    for least, most in HISTORIES:
        is_counted = (length >= least) & (length <= (most or length.max()))
        values = {
            kind: recalls["recall@20"][is_counted & is_kind]
            for kind, is_kind in (("unknown", is_unknown), ("known", ~is_unknown))
        }
        figures: dict[str, Any] = {
            kind: {"cases": len(each), "recall@20": float(each.mean())} for kind, each in values.items()
        }
        figures["ratio"] = figures["unknown"]["recall@20"] / figures["known"]["recall@20"]
        found[f"{least}" if least == most else f"{least}-{most}" if most else f"{least}+"] = figures
    return found
