"""Exposure metrics: how much of the catalogue is recommended, how evenly, and how unpopular recommended items are.

Shapes: I items.
"""

import numpy as np


def coverage(times_recommended: np.ndarray) -> float:
    """Share of the items that are in at least one list, from 0 to 1.

    Args:
      times_recommended: [I] number of lists that contain each item.
    """
    return float((times_recommended > 0).mean())


def gini(times_recommended: np.ndarray) -> float:
    """Gini coefficient of the exposure of items, in [0, 1); 0 if all items are in equally many lists.

    Args:
      times_recommended: [I] number of lists that contain each item.
    """
    ascending = np.sort(times_recommended).astype(np.float64)
    num_items, total = len(ascending), ascending.sum()
    if total == 0:
        return 0.0
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float((weights * ascending).sum() / (num_items * total))


def novelty(times_recommended: np.ndarray, item_counts: np.ndarray) -> float:
    """Mean self-information of the recommended items, in bits (Vargas and Castells, RecSys 2011).

    The self-information of an item is −log2(p), where p is the item's share of all training events. An item without
    events is treated as if it had one.

    Args:
      times_recommended: [I] number of lists that contain each item.
      item_counts: [I] training events of each item.
    """
    bits = -np.log2(np.maximum(item_counts, 1) / max(item_counts.sum(), 1))
    return float((times_recommended * bits).sum() / max(times_recommended.sum(), 1))


def exposure_values(times_recommended: dict[int, np.ndarray], item_counts: np.ndarray) -> dict[str, float]:
    """Returns all exposure metrics by name, such as `coverage@10`.

    Args:
      times_recommended: for each list length k: [I] number of lists that contain each item.
      item_counts: [I] training events of each item.
    """
    return {
        **{f"coverage@{k}": coverage(counts) for k, counts in times_recommended.items()},
        **{f"gini@{k}": gini(counts) for k, counts in times_recommended.items()},
        **{f"novelty@{k}": novelty(counts, item_counts) for k, counts in times_recommended.items()},
    }
