"""Draws the sequence of each visitor's events: views of new items, repeated views, additions to the cart, purchases.

An interest is a pair of a visitor and an item. `matching` selects the item later.

Shapes: V visitors, D interests, E events.
"""

from dataclasses import dataclass

import numpy as np

from contract.schema import DEFAULT_KINDS
from preprocessing.synthetic.draws import group_starts, position_in_group
from preprocessing.synthetic.visitors import Visitors

VIEW, ADD_TO_CART, TRANSACTION = range(len(DEFAULT_KINDS))
"""Event kinds, as indices in `DEFAULT_KINDS`."""

LOOK, CART, BUY = range(3)
"""How far an interest goes: the item is only viewed, is put into the cart but not bought, or is bought."""

_NEW_ITEM = 0.60  # share of the views after the first that are of a new item
_NEW_ITEM_CART_ONLY = 0.57
_NEW_ITEM_BUYER = 0.67
_VIEWED_BEFORE_CART = 0.85
_CARTED_BEFORE_PURCHASE = 0.975
_BUYER_WITHOUT_CART = 0.09
_REPEAT_AT_ONCE = 0.6

# positions of events relative to the view that starts an interest, which is at 0; the next interest starts at 1
_AT_ONCE, _CART, _ORDER = 0.1, 0.4, 0.6


@dataclass(frozen=True)
class Interests:
    """The visitor-item pairs with events, as columns [D].

    They are sorted by visitor, then by the time of the first event.
    """

    visitor: np.ndarray
    """Visitor id, ascending."""

    is_viewed: np.ndarray
    """Whether the first event of the interest is a view."""

    is_carted: np.ndarray
    """Whether the item is put into the cart."""

    order: np.ndarray
    """Index of the purchase order that contains the item, or -1 if the item is not bought."""

    @property
    def reach(self) -> np.ndarray:
        """The last stage that each interest reaches, [D]: LOOK (only viewed), CART (carted, but not bought) or BUY."""
        return np.where(self.order >= 0, BUY, np.where(self.is_carted, CART, LOOK))


@dataclass(frozen=True)
class Events:
    """The events of all visitors, as columns [E], sorted by visitor and time."""

    interest: np.ndarray
    """Index of the event's interest in `Interests`."""

    kind: np.ndarray
    """Kind of the event: VIEW, ADD_TO_CART or TRANSACTION."""


def draw_journeys(visitors: Visitors, random: np.random.Generator) -> tuple[Interests, Events]:
    """Draws the interests (visitor-item pairs) and the events of all visitors."""
    interests, repeats = _draw_interests(visitors, random)
    return interests, _order_events(interests, repeats, random)


def _draw_interests(visitors: Visitors, random: np.random.Generator) -> tuple[Interests, np.ndarray]:
    """Draws all interests (visitor-item pairs). Also returns the number of repeated views per visitor, [V]."""
    funnel = _draw_funnel(visitors, random)
    num_visitors = len(visitors.views)
    viewed = np.bincount(funnel.visitor[funnel.is_viewed], minlength=num_visitors)
    left = visitors.views - viewed
    # a visitor's first view cannot be of an item viewed before
    first = (viewed == 0) & (left > 0)
    new_share = np.where(visitors.loose_carts > 0, _NEW_ITEM_CART_ONLY, _NEW_ITEM)
    new_share[visitors.orders > 0] = _NEW_ITEM_BUYER
    looks = first + random.binomial(left - first, new_share)

    browsed = np.repeat(np.arange(num_visitors), looks)
    visitor = np.r_[browsed, funnel.visitor]
    order = np.argsort(visitor + random.random(len(visitor)), kind="stable")
    interests = Interests(
        visitor[order],
        np.r_[np.ones(len(browsed), bool), funnel.is_viewed][order],
        np.r_[np.zeros(len(browsed), bool), funnel.is_carted][order],
        np.r_[np.full(len(browsed), -1), funnel.order][order],
    )
    return interests, left - looks


def _draw_funnel(visitors: Visitors, random: np.random.Generator) -> Interests:
    """Draws the interests (visitor-item pairs) that end with CART or BUY, sorted by visitor."""
    everyone = np.arange(len(visitors.views))
    loose = np.repeat(everyone, visitors.loose_carts)
    order_visitor = np.repeat(everyone, visitors.orders)
    bought = np.repeat(order_visitor, visitors.order_lines)
    skips_cart = (random.random(len(everyone)) < _BUYER_WITHOUT_CART) & (visitors.loose_carts == 0)
    is_carted = (random.random(len(bought)) < _CARTED_BEFORE_PURCHASE) & ~skips_cart[bought]

    visitor = np.r_[loose, bought]
    by_visitor = np.argsort(visitor, kind="stable")
    visitor = visitor[by_visitor]
    wants_view = random.random(len(visitor)) < _VIEWED_BEFORE_CART
    seen_so_far: np.ndarray = np.cumsum(wants_view) - wants_view
    first = np.searchsorted(visitor, visitor)
    is_viewed = wants_view & (seen_so_far - seen_so_far[first] < visitors.views[visitor])
    return Interests(
        visitor,
        is_viewed,
        np.r_[np.ones(len(loose), bool), is_carted][by_visitor],
        np.r_[np.full(len(loose), -1), np.repeat(np.arange(len(order_visitor)), visitors.order_lines)][by_visitor],
    )


def _order_events(interests: Interests, repeats: np.ndarray, random: np.random.Generator) -> Events:
    """Draws the events of all interests, sorted by visitor and time.

    `repeats` [V] is the number of repeated views per visitor.
    """
    sizes = np.bincount(interests.visitor, minlength=len(repeats))
    start = position_in_group(sizes)
    every = np.arange(len(start))
    viewed, carted = every[interests.is_viewed], every[interests.is_carted]
    lines = every[interests.order >= 0]

    repeat_visitor = np.repeat(np.arange(len(repeats)), repeats)
    span = sizes[repeat_visitor]
    again = group_starts(sizes)[repeat_visitor] + (random.random(len(span)) * span).astype(np.int64)
    at_once = start[again] + _AT_ONCE * (1 + 2 * random.random(len(again)))
    later = start[again] + 0.5 + random.random(len(again)) * (span - start[again] - 0.5)
    again_position = np.where(random.random(len(again)) < _REPEAT_AT_ONCE, at_once, later)

    interest = np.r_[viewed, again, carted, lines]
    checkout = _checkout_positions(interests.order[lines], start[lines])
    positions = np.r_[start[viewed], again_position, start[carted] + _CART, checkout]
    kind = np.repeat([VIEW, ADD_TO_CART, TRANSACTION], [len(viewed) + len(again), len(carted), len(lines)])
    visitor = interests.visitor[interest]
    # one sort key of visitor and position; a stable sort keeps the lines of an order together
    order = np.argsort(visitor + positions / (sizes[visitor] + 1), kind="stable")
    return Events(interest[order], kind[order])


def _checkout_positions(order: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Returns each purchase's position among the visitor's events, [N]. Purchases of an order get the same position.

    `order` [N] is the index of each purchase's order; `start` [N] is the position of the first event with the bought
    item.
    """
    last = np.zeros(int(order.max(initial=-1)) + 1)
    np.maximum.at(last, order, start)
    return last[order] + _ORDER
