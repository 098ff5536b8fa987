"""The items that are looked at: how popular each is, on which shelf, of what style, and when it is in fashion.

Shapes: I items, S shelves. Made after the wishes, so that each shelf holds just what is asked of it.
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
_ROOM = 3  # an item takes at most a third of its shelf
_CART_SIGMA = 2.0  # items differ in how well they sell, log-normal
_BUY_SIGMA = 0.5
_LIMIT_ROUNDS = 10
_ALWAYS_THERE = 0.55  # the share of items older than the log; the others appear at any time
_LIFE = 0.7  # mean of the exponential life, in parts of the period


@dataclass(frozen=True)
class Assortment:
    """Columns [I], by shelf.

    shelf   ascending
    style   in [0, 1]; visitors of a like style choose it
    born    in [0, 1), part of the shelf's traffic that has gone by when the item appears
    ended   in (0, 1], when it is gone
    quota   [3, I] visitors who LOOK, CART and BUY
    """

    shelf: np.ndarray
    style: np.ndarray
    born: np.ndarray
    ended: np.ndarray
    quota: np.ndarray


def stock_shelves(wanted: np.ndarray, scale: Scale, random: np.random.Generator) -> Assortment:
    """Items whose quotas add up to what is wanted.

    Args:
      wanted: [3, S] interests in each shelf that LOOK, CART and BUY.
    """
    demand = wanted.sum(axis=0)
    size = min(max(scale.count(_ITEMS), int(np.count_nonzero(demand))), int(demand.sum()))
    interests = _draw_interests_of_items(size, int(demand.sum()), scale, random)
    shelf = _place_on_shelves(interests, demand, random)
    # random order within a shelf: apportion() would else favour some
    order = np.lexsort([random.random(size), shelf])
    shelf, interests = shelf[order], interests[order]
    born = np.maximum(0, random.uniform(-_ALWAYS_THERE / (1 - _ALWAYS_THERE), 1, size))
    ended = np.minimum(1, born + random.exponential(_LIFE, size) + 0.02)
    quota = _apportion_quotas(interests, shelf, wanted, scale, random)
    return Assortment(shelf, random.random(size), born, ended, quota)


def _draw_interests_of_items(size: int, total: int, scale: Scale, random: np.random.Generator) -> np.ndarray:
    """[I] distinct visitors of each item, descending, at least 1; together about `total`."""
    interests = lognormal_quantiles(stratified(size, random), _INTERESTS_MEDIAN, _INTERESTS_SIGMA)
    interests = np.clip(np.round(interests), 1, scale.extreme(_MOST_INTERESTS))
    # what the limit cut off goes to the popular half: the long tail keeps its shape in a small shop
    is_popular = interests > _INTERESTS_MEDIAN
    lift = (total - interests[~is_popular].sum()) / max(interests[is_popular].sum(), 1)
    interests[is_popular] = np.clip(interests[is_popular] * lift, 1, scale.extreme(_MOST_INTERESTS))
    return np.sort(interests)[::-1]


def _place_on_shelves(interests: np.ndarray, demand: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[I] shelf of each item, so that the interests on each shelf add up to its demand, nearly.

    The most popular items choose first, among the shelves with room for them, in halving steps of popularity.
    """
    shelf = np.empty(len(interests), np.int64)
    asked = np.flatnonzero(demand)
    num_free = len(shelf) - len(asked)
    shelf[num_free:] = asked  # every shelf that is asked for has one item, of the least popular
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
    """[3, I] quotas that add up to what is wanted on each shelf."""
    sells = interests * random.lognormal(sigma=_CART_SIGMA, size=len(interests))
    # one best-seller reaches the limits for certain
    best = np.argmax(np.where(shelf == wanted[BUY].argmax(), interests, 0))
    sells[best] = sells.sum()
    sells_out = sells * random.lognormal(sigma=_BUY_SIGMA, size=len(interests))
    carts = _apportion_limited(sells, shelf, wanted[CART], scale.extreme(_MOST_CARTED))
    buys = _apportion_limited(sells_out, shelf, wanted[BUY], scale.extreme(_MOST_BOUGHT))
    # every item keeps a little weight: a shelf on which all is sold could not be looked at
    looks = apportion(np.maximum(interests - carts - buys, 0.02), shelf, wanted[LOOK])
    return np.stack([looks, carts, buys])


def _apportion_limited(weights: np.ndarray, shelf: np.ndarray, totals: np.ndarray, largest: int) -> np.ndarray:
    """[I] counts as of `apportion`, with weights cut where the count would exceed `largest`."""
    for _ in range(_LIMIT_ROUNDS):  # a cut leaves more for the others, and may lift them over the limit
        sums = np.bincount(shelf, weights, len(totals))
        weights = np.minimum(weights, (largest * sums / np.maximum(totals, 1))[shelf])
    return apportion(weights, shelf, totals)
