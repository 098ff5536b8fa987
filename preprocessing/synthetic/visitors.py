"""Draws the activity of each visitor: the numbers of views, carts and orders.

Shapes: V visitors, O orders.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.draws import (
    lognormal_quantiles,
    power_law_counts,
    stratified,
    tail_quantiles,
)
from preprocessing.synthetic.scale import Scale

_BUYERS = 11_719
_CART_ONLY = 27_214  # 37,722 visitors have carts, and 10,508 of them purchases
_ROBOTS = 29
_ROBOT_EVENTS = 41_287
_ROBOT_DECAY = 0.81  # the r-th robot has r ** -0.81 times as many events as the first
# robots have more events on some day; all other visitors have fewer in total
ROBOT_EVENTS_A_DAY = 200
_MOST_EVENTS = 190

# (views, share of the browsers who have more views); browsers have neither carts nor purchases
_BROWSER_VIEWS = (
    *((1, 0.272), (2, 0.130), (3, 0.0755), (5, 0.0358)),
    *((13, 0.0041), (47, 0.00016), (120, 1e-5), (190, 1e-6)),
)
_CART_ONLY_WITHOUT_VIEW = 0.11
_CART_ONLY_VIEWS = (3.25, 1.13)  # median and sigma, log-normal
_BUYER_WITHOUT_VIEW = 0.035
_BUYER_VIEWS = (8.0, 1.22)
# exponents of power laws
_CART_ONLY_CARTS = 2.10
_BUYER_LOOSE_CARTS = 2.05
_ORDERS = 2.14
_LINES = 2.72
_MOST_CARTS, _MOST_ORDERS, _MOST_LINES = 40, 20, 31
_ACTIVITY_NOISE = 1.0  # noise between the rank by carts and orders and the rank by views; 0: the same rank


@dataclass(frozen=True)
class Visitors:
    """The numbers of views, carts and orders of each visitor. Arrays [V] are indexed by visitor id."""

    views: np.ndarray
    """[V] number of views."""

    loose_carts: np.ndarray
    """[V] number of items that the visitor puts into the cart without buying them."""

    orders: np.ndarray
    """[V] number of orders."""

    order_lines: np.ndarray
    """[O] number of items in each order. The orders of all visitors are concatenated, sorted by visitor."""

    is_robot: np.ndarray
    """[V] whether the visitor is a robot."""


def draw_visitors(scale: Scale, random: np.random.Generator) -> Visitors:
    """Draws the activity of all visitors, and assigns visitor ids at random.

    Visitors are buyers, cart users without orders, browsers with only views, or robots.
    """
    buyers, cart_only = scale.count(_BUYERS), scale.count(_CART_ONLY)
    robots = _robot_views(scale)
    browsers = scale.visitors - buyers - cart_only - len(robots)
    loose_carts, views = _draw_cart_only(cart_only, random)
    orders, lines, buyer_loose_carts, buyer_views = _draw_buyers(buyers, random)
    looks = np.ceil(tail_quantiles(stratified(browsers, random), _BROWSER_VIEWS) - 1e-9).astype(np.int64)

    ids = random.permutation(scale.visitors)
    not_buyers = scale.visitors - buyers
    all_views, all_carts, all_orders = (np.zeros(scale.visitors, np.int64) for _ in range(3))
    all_views[ids] = np.r_[looks, robots, views, buyer_views]
    all_carts[ids[browsers + len(robots) :]] = np.r_[loose_carts, buyer_loose_carts]
    all_orders[ids[not_buyers:]] = orders
    is_robot = np.zeros(scale.visitors, bool)
    is_robot[ids[browsers : browsers + len(robots)]] = True
    by_id = np.argsort(np.repeat(ids[not_buyers:], orders), kind="stable")
    return Visitors(all_views, all_carts, all_orders, lines[by_id], is_robot)


def _robot_views(scale: Scale) -> np.ndarray:
    """Returns each robot's number of views. A tiny shop has no robots, because they would cause most of its events."""
    total = scale.count(_ROBOT_EVENTS)
    if total <= ROBOT_EVENTS_A_DAY:
        return np.empty(0, np.int64)
    share = np.arange(1.0, scale.count(_ROBOTS) + 1) ** -_ROBOT_DECAY
    return np.maximum(total * share / share.sum(), ROBOT_EVENTS_A_DAY + 1).astype(np.int64)


def _draw_cart_only(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws, for each of `count` visitors without orders, the number of cart items and the number of views."""
    carts = power_law_counts(stratified(count, random), _CART_ONLY_CARTS, _MOST_CARTS)
    views = _draw_views(_noisy_quantiles(carts, random), _CART_ONLY_WITHOUT_VIEW, _CART_ONLY_VIEWS)
    return carts, views


def _draw_buyers(count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws counts for `count` buyers: their orders, the items of each order, cart items not bought, and views.

    The second array has an element per order; the others have an element per buyer.
    """
    orders = power_law_counts(stratified(count, random), _ORDERS, _MOST_ORDERS)
    lines = power_law_counts(stratified(int(orders.sum()), random), _LINES, _MOST_LINES)
    loose_carts = power_law_counts(stratified(count, random), _BUYER_LOOSE_CARTS, _MOST_CARTS) - 1
    views = _draw_views(_noisy_quantiles(orders + loose_carts, random), _BUYER_WITHOUT_VIEW, _BUYER_VIEWS)
    buyer = np.repeat(np.arange(count), orders)
    # a line has two events: cart and purchase
    room = np.maximum(_MOST_EVENTS - 2 * np.bincount(buyer, lines, count).astype(np.int64), 1)
    loose_carts = np.minimum(loose_carts, room - 1)
    return orders, lines, loose_carts, np.minimum(views, room - loose_carts)


def _noisy_quantiles(activity: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Ranks visitors by `activity` plus noise. Returns the ranks, [N], scaled to numbers between 0 and 1."""
    noisy = np.log(activity + 1) + random.normal(scale=_ACTIVITY_NOISE, size=len(activity))
    rank = np.empty(len(activity))
    rank[np.argsort(noisy, kind="stable")] = np.arange(len(activity))
    return (rank + 0.5) / len(activity)


def _draw_views(probability: np.ndarray, without: float, shape: tuple[float, float]) -> np.ndarray:
    """Returns quantiles of the number of views per visitor, [N].

    `probability` [N] selects the quantiles. `without` is the share of visitors without views. The numbers of views of
    other visitors follow a log-normal distribution; `shape` is its (median, sigma).
    """
    above = np.clip((probability - without) / (1 - without), 1e-9, 1)
    views = np.clip(np.round(lognormal_quantiles(above, *shape)), 1, _MOST_EVENTS).astype(np.int64)
    return np.where(probability < without, 0, views)
