"""Cases and relevant items apart by kind: of event, of history, of visitor, of item.

Shapes: V cases, P (case, relevant item) pairs, I items.
"""

import numpy as np

from trainer.evaluation.cases import Cases

EVENT_GROUPS = ("views", "carts", "purchases")
_HISTORY_GROUPS = (("history 1", 1, 1), ("history 2-4", 2, 4), ("history 5-9", 5, 9), ("history 10+", 10, None))
ITEM_GROUPS = ("head items", "middle items", "tail items")


def pair_groups(cases: Cases, item_counts: np.ndarray, num_visitors: int) -> dict[str, np.ndarray]:
    """Which pairs [P] are of a group, by the group's name; groups without a pair are left out.

    views, carts, purchases     an event of the kind is what made the item relevant; one item may be of several
    history 1 … history 10+     rows before the moment
    known, cold visitors        whether training knows the visitor
    head, middle, tail items    see `item_groups`
    cold items                  without a training event

    Args:
      cases: whose pairs.
      item_counts: [I] training events of each item.
      num_visitors: visitors of the vocabulary.
    """
    groups = {name: cases.is_kind[:, kind] for kind, name in enumerate(EVENT_GROUPS)}
    owner = cases.relevant.owner
    lengths = cases.history.lengths[owner]
    for name, least, most in _HISTORY_GROUPS:
        groups[name] = (lengths >= least) & (lengths <= (most or np.inf))
    is_cold = (cases.visitor >= num_visitors)[owner]
    groups |= {"known visitors": ~is_cold, "cold visitors": is_cold}
    group_of_item = item_groups(item_counts)[cases.relevant.values]
    for place, name in enumerate((*ITEM_GROUPS, "cold items")):
        groups[name] = group_of_item == place
    return {name: is_member for name, is_member in groups.items() if is_member.any()}


def item_groups(item_counts: np.ndarray) -> np.ndarray:
    """[I]: 0 head, 1 middle, 2 tail, 3 cold, from the training events [I] of each item.

    The most popular items that together have the first third of all training events are the head, those with the second
    third the middle, the rest the tail. The item in which a third ends belongs to the third in which it begins.
    """
    order = np.argsort(-item_counts, kind="stable")
    descending = item_counts[order]
    before = np.cumsum(descending) - descending
    group = np.empty(len(item_counts), np.int64)
    group[order] = np.minimum(3 * before // max(descending.sum(), 1), 2)
    group[item_counts == 0] = 3
    return group
