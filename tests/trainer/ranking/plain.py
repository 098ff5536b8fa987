"""A slow, simple evaluator, which sorts whole rows, one visitor at a time."""

import math

import numpy as np


def plain_ranks(scores: np.ndarray, hidden: set[int], relevant: set[int]) -> list[int]:
    """Returns the ranks of the relevant items. Irrelevant items with the same score rank before them."""
    visible = [item for item in range(len(scores)) if item not in hidden]
    order = sorted(visible, key=lambda item: (-scores[item], item in relevant))
    return [rank for rank, item in enumerate(order) if item in relevant]


def plain_metrics(scores: np.ndarray, hidden: set[int], relevant: set[int], k: int) -> dict[str, float]:
    """Returns all metrics of one visitor at k."""
    found = [rank for rank in plain_ranks(scores, hidden, relevant) if rank < k]
    possible = min(k, len(relevant))
    return {
        f"recall@{k}": len(found) / possible,
        f"ndcg@{k}": sum(1 / math.log2(rank + 2) for rank in found)
        / sum(1 / math.log2(rank + 2) for rank in range(possible)),
        f"mrr@{k}": 1 / (found[0] + 1) if found else 0.0,
        f"hit_rate@{k}": float(bool(found)),
    }


def plain_list(scores: np.ndarray, hidden: set[int], k: int) -> list[int]:
    """Returns the k best visible items; ties go to the lower index."""
    visible = [item for item in range(len(scores)) if item not in hidden]
    return sorted(visible, key=lambda item: (-scores[item], item))[:k]
