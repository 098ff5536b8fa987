"""What the lists hold, whoever they are for: how much of the catalogue, how evenly, how far from the popular.

Shapes: I items.
"""

import numpy as np


def coverage(shown: np.ndarray) -> float:
    """The share of the catalogue that is in anybody's list, in [0, 1], from how often each item is shown, [I]."""
    return float((shown > 0).mean())


def gini(shown: np.ndarray) -> float:
    """The Gini coefficient of how often each item is shown, [I]: 0 all equally, towards 1 the same few to everybody."""
    ascending = np.sort(shown).astype(np.float64)
    num_items, total = len(ascending), ascending.sum()
    if total == 0:
        return 0.0
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float((weights * ascending).sum() / (num_items * total))


def novelty(shown: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean bits −log2(share of the training events) of the items shown (Vargas and Castells, RecSys 2011).

    An item without a training event counts as if it had one.
    """
    bits = -np.log2(np.maximum(item_counts, 1) / max(item_counts.sum(), 1))
    return float((shown * bits).sum() / max(shown.sum(), 1))


def exposure_values(shown: dict[int, np.ndarray], item_counts: np.ndarray) -> dict[str, float]:
    """`coverage@10` and so on, from how often each item is in a list of k, [I] by k."""
    return {
        **{f"coverage@{k}": coverage(counts) for k, counts in shown.items()},
        **{f"gini@{k}": gini(counts) for k, counts in shown.items()},
        **{f"novelty@{k}": novelty(counts, item_counts) for k, counts in shown.items()},
    }
