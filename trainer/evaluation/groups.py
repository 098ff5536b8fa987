"""Groups of cases and relevant items: by event kind, history length, visitor and item popularity.

Shapes: V cases, P (case, relevant item) pairs, I items.
"""

import numpy as np

from trainer.evaluation.cases import Cases

_HISTORY_GROUPS = (("history 1", 1, 1), ("history 2-4", 2, 4), ("history 5-9", 5, 9), ("history 10+", 10, None))
ITEM_GROUPS = ("head items", "middle items", "tail items")


def pair_groups(cases: Cases, item_counts: np.ndarray, num_visitors: int) -> dict[str, np.ndarray]:
    """Returns a mask [P] of the pairs in each group, by the group's name; omits groups without a pair.

    - `view events` and likewise for other kinds: the relevant item had an event of this kind; an item can be in
      several of these groups
    - history 1 … history 10+: by the number of rows before the moment
    - known, cold visitors: whether the visitor is in the training vocabulary
    - head, middle, tail, cold items: see `item_groups`

    Args:
      cases: the cases of the pairs.
      item_counts: [I] training events of each item.
      num_visitors: visitors in the vocabulary.
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
    """Returns the name of the group for an event kind."""
    return f"{kind} events"


def item_groups(item_counts: np.ndarray) -> np.ndarray:
    """[I]: the group of each item, from its number of training events: 0 head, 1 middle, 2 tail, 3 cold.

    Items are ordered by popularity. Those with the first third of all training events are the head, those with the
    second third the middle, and those with the last third the tail. An item on a boundary belongs to the earlier third.
    Cold items have no training events.
    """
    order = np.argsort(-item_counts, kind="stable")
    descending = item_counts[order]
    before = np.cumsum(descending) - descending
    group = np.empty(len(item_counts), np.int64)
    group[order] = np.minimum(3 * before // max(descending.sum(), 1), 2)
    group[item_counts == 0] = 3
    return group
