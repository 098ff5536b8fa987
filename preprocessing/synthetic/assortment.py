"""Draws the items that visitors interact with: popularity, shelf (a category), style and time in fashion.

Items are drawn after the visitors' wishes, so that the quotas of the items on a shelf sum to the number of wishes for
that shelf.

Shapes: I items, S shelves.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.draws import apportion, draw_weighted, lognormal_quantiles, stratified
from preprocessing.synthetic.journeys import BUY, CART, LOOK
from preprocessing.synthetic.scale import Scale

_ITEMS = 236_500
_INTERESTS_MEDIAN, _INTERESTS_SIGMA = 2.2, 1.68  # distinct visitors of an item, log-normal
_MOST_INTERESTS = 2_670
_MOST_CARTED, _MOST_BOUGHT = 176, 133
_ROOM = 3  # an item has at most a third of its shelf's interests
_CART_SIGMA = 2.0  # items differ in how well they sell, log-normal
_BUY_SIGMA = 0.5
_LIMIT_ROUNDS = 10
_OLD_SHARE = 0.55  # share of items that are older than the log; the others appear at any time
_MEAN_LIFE = 0.7  # mean of an exponential distribution, as a share of the period


@dataclass(frozen=True)
class Assortment:
    """The items that have events, as columns [I], sorted by shelf (a category with items)."""

    shelf: np.ndarray
    """Index of each item's shelf, ascending."""

    style: np.ndarray
    """Style of each item, in [0, 1]. Visitors who look for a similar style choose the item."""

    born: np.ndarray
    """Time at which the item appears, in [0, 1). Time is measured by interests: at time 0.5, half of the
    interests in the item's shelf have started."""

    ended: np.ndarray
    """Time at which the item disappears, in (0, 1]. The scale is that of `born`."""

    quota: np.ndarray
    """[3, I] number of visitors who only view the item (LOOK), who put it into the cart without buying it (CART), and
    who buy it (BUY)."""


def stock_shelves(wanted: np.ndarray, scale: Scale, random: np.random.Generator) -> Assortment:
    """Draws the items of all shelves, and how many visitors view, cart or buy each item.

    `wanted` [3, S] are the sums of these numbers on each shelf.
    """
    demand = wanted.sum(axis=0)
    size = min(max(scale.count(_ITEMS), int(np.count_nonzero(demand))), int(demand.sum()))
    interests = _draw_interests_of_items(size, int(demand.sum()), scale, random)
    shelf = _assign_shelves(interests, demand, random)
    # random order within a shelf: otherwise apportion() would favour the items at its end
    order = np.lexsort([random.random(size), shelf])
    shelf, interests = shelf[order], interests[order]
    born = np.maximum(0, random.uniform(-_OLD_SHARE / (1 - _OLD_SHARE), 1, size))
    ended = np.minimum(1, born + random.exponential(_MEAN_LIFE, size) + 0.02)
    quota = _apportion_quotas(interests, shelf, wanted, scale, random)
    return Assortment(shelf, random.random(size), born, ended, quota)


def _draw_interests_of_items(size: int, total: int, scale: Scale, random: np.random.Generator) -> np.ndarray:
    """Draws the number of interested visitors per item, [I], descending and at least 1.

    The numbers sum to about `total`.
    """
    interests = lognormal_quantiles(stratified(size, random), _INTERESTS_MEDIAN, _INTERESTS_SIGMA)
    interests = np.clip(np.round(interests), 1, scale.extreme(_MOST_INTERESTS))
    # popular items get the interests that the limit cut off: the long tail keeps its shape in a small shop
    is_popular = interests > _INTERESTS_MEDIAN
    lift = (total - interests[~is_popular].sum()) / max(interests[is_popular].sum(), 1)
    interests[is_popular] = np.clip(interests[is_popular] * lift, 1, scale.extreme(_MOST_INTERESTS))
    return np.sort(interests)[::-1]


def _assign_shelves(interests: np.ndarray, demand: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws a shelf for each item, [I]. On each shelf, the items' `interests` [I] sum to about `demand` [S]."""
    shelf = np.empty(len(interests), np.int64)
    demanded = np.flatnonzero(demand)
    num_free = len(shelf) - len(demanded)
    shelf[num_free:] = demanded  # each of these shelves needs an item: it gets one of the least popular
    room = demand - (demand > 0).astype(float)
    octave = np.floor(np.log2(interests[:num_free]))
    for level in np.unique(octave)[::-1]:
        members = np.flatnonzero(octave == level)
        fits = np.where(room >= _ROOM * interests[members[0]], room, 0) if level > 0 else room
        if not fits.any():
            fits = np.maximum(room, demand == demand.max())
        shelf[members] = draw_weighted(fits, stratified(len(members), random))
        room = np.maximum(room - np.bincount(shelf[members], interests[members], len(demand)), 0)
    return shelf


def _apportion_quotas(
    interests: np.ndarray, shelf: np.ndarray, wanted: np.ndarray, scale: Scale, random: np.random.Generator
) -> np.ndarray:
    """Draws how many visitors view, cart or buy each item, [3, I]. On each shelf, these numbers sum to `wanted` [3, S].

    The items [I] are sorted by shelf.
    """
    sells = interests * random.lognormal(sigma=_CART_SIGMA, size=len(interests))
    # one best-seller reaches the limits with any seed
    best = np.argmax(np.where(shelf == wanted[BUY].argmax(), interests, 0))
    sells[best] = sells.sum()
    sells_out = sells * random.lognormal(sigma=_BUY_SIGMA, size=len(interests))
    carts = _apportion_limited(sells, shelf, wanted[CART], scale.extreme(_MOST_CARTED))
    buys = _apportion_limited(sells_out, shelf, wanted[BUY], scale.extreme(_MOST_BOUGHT))
    # each item keeps a small weight: otherwise a shelf with only sold items would have nothing to look at
    looks = apportion(np.maximum(interests - carts - buys, 0.02), shelf, wanted[LOOK])
    return np.stack([looks, carts, buys])


def _apportion_limited(weights: np.ndarray, shelf: np.ndarray, totals: np.ndarray, largest: int) -> np.ndarray:
    """Divides the total [S] of each shelf among its items, in proportion to `weights` [I]; returns counts [I].

    First lowers the weights that would give a count above `largest`. The items are sorted by shelf.
    """
    for _ in range(_LIMIT_ROUNDS):  # a reduced weight leaves more for the others, which may then exceed the limit
        sums = np.bincount(shelf, weights, len(totals))
        weights = np.minimum(weights, (largest * sums / np.maximum(totals, 1))[shelf])
    return apportion(weights, shelf, totals)
