"""Matches each wish with an item that has the same shelf and a similar time and style.

A wish is the shelf (a category) and the style that a visitor looks for. Wishes and items of the same shelf and a
similar time are sorted by style and then paired. The quotas of the items on a shelf sum to the number of wishes for the
shelf. Thus every item is matched as often as its quota requires, and tastes do not change popularity.

Shapes: D interests, N rows.
"""

import numpy as np

from preprocessing.synthetic.assortment import Assortment
from preprocessing.synthetic.draws import position_in_group
from preprocessing.synthetic.journeys import BUY, CART, LOOK
from preprocessing.synthetic.scale import BEGIN_MS, END_MS
from preprocessing.synthetic.tastes import Wishes

# consecutive wishes of a shelf that are matched together: fewer match time better, more match style better
_TOGETHER = {LOOK: 192, CART: 32, BUY: 32}
_STYLE_NOISE = 0.02
# distances between items that are swapped if one is a repeat for its visitor; powers of two below _TOGETHER
_SWAP_DISTANCES = (4, 8, 16, 2, 32)
_BELOW_ONE = 1 - 1e-6


def match_items(wishes: Wishes, items: Assortment, random: np.random.Generator) -> np.ndarray:
    """Assigns an item to each wish of the visitors. Returns item indices, [D].

    Each item is assigned as often as `items.quota` says, and seldom twice to one visitor.
    """
    queues, groups, matches = [], [], []
    for reach in _TOGETHER:
        queue, group = _queue_interests(wishes, reach)
        queues.append(queue)
        groups.append(group + len(wishes.shelf) * reach)
        matches.append(_queue_items(items, reach, random))
    queue, group, item = np.concatenate(queues), np.concatenate(groups), np.concatenate(matches)
    for distance in _SWAP_DISTANCES:
        item = _swap_repeats(wishes.visitor[queue], item, group, distance)
    result = np.empty(len(queue), np.int64)
    result[queue] = item
    return result


def _queue_interests(wishes: Wishes, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups the wishes that end with `reach` (LOOK, CART or BUY) by shelf and time, and sorts each group by style.

    Returns the indices of the wishes in this order, [N], and the group number of each wish, [N].
    """
    some = np.flatnonzero(wishes.reach == reach)
    time = (wishes.begin_ms[some] - BEGIN_MS) / (END_MS - BEGIN_MS)
    order, group = _group_by_style(wishes.shelf[some], time, wishes.style[some], _TOGETHER[reach])
    return some[order], group


def _queue_items(items: Assortment, reach: int, random: np.random.Generator) -> np.ndarray:
    """Repeats each item as often as its quota for `reach` (LOOK, CART or BUY) requires. Returns item indices, [N].

    The item at a position is for the wish at the same position in the result of `_queue_interests`.
    """
    copies = np.repeat(np.arange(len(items.shelf)), items.quota[reach])
    time = items.born[copies] + (items.ended - items.born)[copies] * random.random(len(copies))
    style = items.style[copies] + random.normal(scale=_STYLE_NOISE, size=len(copies))
    supply, _ = _group_by_style(items.shelf[copies], time, style, _TOGETHER[reach])
    return copies[supply]


def _group_by_style(
    shelf: np.ndarray, time: np.ndarray, style: np.ndarray, together: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sorts rows by shelf and time, divides them into groups of `together` rows, and sorts each group by style.

    Returns the indices of the rows in this order, [N], and the group number of each row, [N].
    """
    by_time = np.argsort(shelf + time * _BELOW_ONE, kind="stable")
    group = np.cumsum(position_in_group(np.bincount(shelf)) % together == 0)
    by_style = np.argsort(group + np.clip(style[by_time], 0, _BELOW_ONE), kind="stable")
    return by_time[by_style], group


def _swap_repeats(visitor: np.ndarray, item: np.ndarray, group: np.ndarray, distance: int) -> np.ndarray:
    """Swaps items between wishes, so that fewer visitors get the same item twice. Returns the item of each wish, [N].

    A swap is within a group, between rows that are `distance` (a power of two) apart. All arrays are [N].
    """
    is_repeated = np.zeros(len(item), bool)
    several = np.flatnonzero(np.bincount(visitor)[visitor] > 1)
    pair = visitor[several] * (item.max() + 1) + item[several]
    order = np.argsort(pair, kind="stable")
    is_repeated[several[order[1:]]] = np.diff(pair[order]) == 0
    # pairs: no item takes part in two swaps
    partner = np.minimum(np.arange(len(item)) ^ distance, len(item) - 1)
    is_mutual = (partner ^ distance) == np.arange(len(item))
    is_swapped = (is_repeated | is_repeated[partner]) & is_mutual & (group == group[partner])
    return np.where(is_swapped, item[partner], item)
