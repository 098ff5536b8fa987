"""Which item each wish finds: wishes and items of a shelf, at the same time, meet in the order of their style.

Shapes: D interests, N rows. Both sides are equally many on every shelf, so each item is found just as often as its
quota says, whatever the tastes: popularity and taste are set apart from each other.
"""

import numpy as np

from preprocessing.synthetic.assortment import Assortment
from preprocessing.synthetic.draws import place_in_group
from preprocessing.synthetic.journeys import BUY, CART, LOOK
from preprocessing.synthetic.scale import BEGIN_MS, END_MS
from preprocessing.synthetic.tastes import Wishes

# wishes of a shelf that follow each other and are served together: fewer know time better, more know style better
_TOGETHER = {LOOK: 192, CART: 32, BUY: 32}
_STYLE_NOISE = 0.02
# how far an item is passed on that its visitor has found before; powers of two below the number served together
_SWAP_DISTANCES = (4, 8, 16, 2, 32)
_BELOW_ONE = 1 - 1e-6


def match_items(wishes: Wishes, items: Assortment, random: np.random.Generator) -> np.ndarray:
    """[D] item of each interest; a visitor seldom finds the same one twice."""
    served, found, groups = [], [], []
    for reach, together in _TOGETHER.items():
        some = np.flatnonzero(wishes.reach == reach)
        time = (wishes.begin_ms[some] - BEGIN_MS) / (END_MS - BEGIN_MS)
        order, group = _serve(wishes.shelf[some], time, wishes.style[some], together)
        copies = np.repeat(np.arange(len(items.shelf)), items.quota[reach])
        time = items.born[copies] + (items.ended - items.born)[copies] * random.random(len(copies))
        style = items.style[copies] + random.normal(scale=_STYLE_NOISE, size=len(copies))
        supply, _ = _serve(items.shelf[copies], time, style, together)
        served.append(some[order])
        found.append(copies[supply])
        groups.append(group + len(wishes.shelf) * reach)
    queue, group, item = np.concatenate(served), np.concatenate(groups), np.concatenate(found)
    for distance in _SWAP_DISTANCES:
        item = _pass_on_repeats(wishes.visitor[queue], item, group, distance)
    result = np.empty(len(queue), np.int64)
    result[queue] = item
    return result


def _serve(shelf: np.ndarray, time: np.ndarray, style: np.ndarray, together: int) -> tuple[np.ndarray, np.ndarray]:
    """Places [N] by shelf, then by time in groups of `together`, then by style; and their group [N].

    Args:
      time: [N] in [0, 1].
    """
    by_time = np.argsort(shelf + time * _BELOW_ONE, kind="stable")
    group = np.cumsum(place_in_group(np.bincount(shelf)) % together == 0)
    by_style = np.argsort(group + np.clip(style[by_time], 0, _BELOW_ONE), kind="stable")
    return by_time[by_style], group


def _pass_on_repeats(visitor: np.ndarray, item: np.ndarray, group: np.ndarray, distance: int) -> np.ndarray:
    """[N] items, exchanged within a group, at a distance, where a visitor found one before."""
    is_repeated = np.zeros(len(item), bool)
    several = np.flatnonzero(np.bincount(visitor)[visitor] > 1)
    pair = visitor[several] * (item.max() + 1) + item[several]
    order = np.argsort(pair, kind="stable")
    is_repeated[several[order[1:]]] = np.diff(pair[order]) == 0
    # partners of each other: no place takes part in two exchanges
    partner = np.minimum(np.arange(len(item)) ^ distance, len(item) - 1)
    is_mutual = (partner ^ distance) == np.arange(len(item))
    exchanges = (is_repeated | is_repeated[partner]) & is_mutual & (group == group[partner])
    return np.where(exchanges, item[partner], item)
