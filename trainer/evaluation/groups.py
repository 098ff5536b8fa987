"""Groups of cases and relevant items: by event kind, history length, visitor and item popularity.

Shapes: V cases, P (case, relevant item) pairs, I items.
"""

import numpy as np

from trainer.evaluation.cases import Cases

_HISTORY_GROUPS = (("history 1", 1, 1), ("history 2-4", 2, 4), ("history 5-9", 5, 9), ("history 10+", 10, None))
ITEM_GROUPS = ("head items", "middle items", "tail items")


def pair_groups(cases: Cases, item_counts: np.ndarray, num_visitors: int) -> dict[str, np.ndarray]:
    """Divides the (case, relevant item) pairs into groups, in four ways.

    - `view events` and the like, one group per event kind: an event of this kind makes the item relevant. A pair can be
      in several of these groups.
    - `history 1`, `history 2-4`, `history 5-9`, `history 10+`: number of rows in the history.
    - `known visitors`, `cold visitors`: whether the visitor is in the training vocabulary.
    - `head items`, `middle items`, `tail items`, `cold items`: popularity of the item; see `item_groups`.

    Args:
      item_counts: [I] training events of each item.
      num_visitors: number of visitors in the vocabulary.

    Returns:
      For each group, by name: [P] bool, whether each pair is in the group. Groups without pairs are skipped.
    """
    groups = {kind_group(kind): cases.is_kind[:, column] for column, kind in enumerate(cases.kinds)}
    owner = cases.relevant.owner
    lengths = cases.history.lengths[owner]
    for name, least, most in _HISTORY_GROUPS:
        groups[name] = (lengths >= least) & (lengths <= (most or np.inf))
    is_cold = (cases.visitor >= num_visitors)[owner]
    groups |= {"known visitors": ~is_cold, "cold visitors": is_cold}
    group_of_item = item_groups(item_counts)[cases.relevant.values]
    for number, name in enumerate((*ITEM_GROUPS, "cold items")):
        groups[name] = group_of_item == number
    return {name: is_member for name, is_member in groups.items() if is_member.any()}


def kind_group(kind: str) -> str:
    """Returns the name of the group of pairs for an event kind, such as `view events`."""
    return f"{kind} events"


def item_groups(item_counts: np.ndarray) -> np.ndarray:
    """[I]: group of each item, by its number of training events: 0 head, 1 middle, 2 tail, 3 cold.

    Head, middle and tail have about a third of all training events each; cold items have none. An item on a boundary is
    in the more popular group.
    """
    order = np.argsort(-item_counts, kind="stable")
    descending = item_counts[order]
    before = np.cumsum(descending) - descending
    group = np.empty(len(item_counts), np.int64)
    group[order] = np.minimum(3 * before // max(descending.sum(), 1), 2)
    group[item_counts == 0] = 3
    return group
