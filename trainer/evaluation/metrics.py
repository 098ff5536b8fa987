"""Ranking metrics of each case, from the ranks of its relevant items.

Shapes: V cases, P (case, relevant item) pairs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RelevantRanks:
    """The ranks of the relevant items in the whole catalogue."""

    rank: np.ndarray
    """[P] int64: rank of each relevant item, from 0 for the best. The rank of an item that is in no list is an
    arbitrary number of at least the length of the longest list."""
    owner: np.ndarray
    """[P] int64: index of the pair's case."""
    num_relevant: np.ndarray
    """[V] int64: number of relevant items of each case, at least 1."""

    def sum_within(self, k: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """[V] float64: for each case, the sum of `gain(rank)` over its relevant items with ranks below k."""
        is_hit = self.rank < k
        return np.bincount(self.owner[is_hit], gain(self.rank[is_hit]), minlength=len(self.num_relevant))

    def only(self, is_kept: np.ndarray) -> tuple["RelevantRanks", np.ndarray]:
        """Keeps only the (case, relevant item) pairs where `is_kept` [P] is True; drops cases that lose all pairs.

        Returns:
          The ranks of the kept pairs, unchanged, and the indices of the remaining cases.
        """
        num_relevant = np.bincount(self.owner[is_kept], minlength=len(self.num_relevant))
        cases = np.flatnonzero(num_relevant)
        owner = np.searchsorted(cases, self.owner[is_kept])
        return RelevantRanks(self.rank[is_kept], owner, num_relevant[cases]), cases


def recall(ranks: RelevantRanks, k: int) -> np.ndarray:
    """[V], from 0 to 1: hits among the first k items / min(k, number of relevant items); Liang et al. (WWW 2018)."""
    return ranks.sum_within(k, np.ones_like) / np.minimum(ranks.num_relevant, k)


def ndcg(ranks: RelevantRanks, k: int) -> np.ndarray:
    """[V], from 0 to 1: sum of 1 / log2(rank + 2) over the hits in the first k, divided by the largest possible sum."""
    best = np.cumsum(_discount(np.arange(k)))
    return ranks.sum_within(k, _discount) / best[np.minimum(ranks.num_relevant, k) - 1]


def mrr(ranks: RelevantRanks, k: int) -> np.ndarray:
    """[V], from 0 to 1: 1 / (rank + 1) of the best-ranked relevant item; 0 if none is among the first k items."""
    first = np.full(len(ranks.num_relevant), np.iinfo(np.int64).max)
    np.minimum.at(first, ranks.owner, ranks.rank)
    return np.where(first < k, 1 / (first + 1.0), 0.0)


def hit_rate(ranks: RelevantRanks, k: int) -> np.ndarray:
    """[V]: 1 if a relevant item is among the first k items, otherwise 0."""
    return (ranks.sum_within(k, np.ones_like) > 0).astype(np.float64)


METRICS: Mapping[str, Callable[[RelevantRanks, int], np.ndarray]] = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
    "hit_rate": hit_rate,
}
"""All metrics of a case, by their names in reports."""


def metric_values(ranks: RelevantRanks, ks: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns an array [V] for each of the `METRICS` and each list length, by names such as `ndcg@10`."""
    return {f"{name}@{k}": metric(ranks, k) for k in ks for name, metric in METRICS.items()}


def _discount(rank: np.ndarray) -> np.ndarray:
    return 1 / np.log2(rank + 2.0)
