"""What each visitor does, in order: opens an item, or one seen before, puts it into the cart, buys it.

Shapes: V visitors, D interests, E events. An interest is one distinct item of a visitor; which one is decided later.
"""

from dataclasses import dataclass

import numpy as np

from contract.schema import ADD_TO_CART, TRANSACTION, VIEW
from preprocessing.synthetic.draws import group_starts, place_in_group
from preprocessing.synthetic.visitors import Visitors

LOOK, CART, BUY = range(3)
"""How far an interest goes: the item is only looked at, put into the cart and left there, or bought."""

_NEW_ITEM = 0.60  # of the views after the first, the share that opens another item
_NEW_ITEM_CART_ONLY = 0.57
_NEW_ITEM_BUYER = 0.67
_VIEWED_BEFORE_CART = 0.85
_CARTED_BEFORE_PURCHASE = 0.975
_BUYER_WITHOUT_CART = 0.09
_REPEAT_AT_ONCE = 0.6

# places of events after the view that begins an interest; the next interest begins at 1
_AT_ONCE, _CART, _ORDER = 0.1, 0.4, 0.6


@dataclass(frozen=True)
class Interests:
    """Columns [D], a visitor's interests together, in the order in which they begin.

    visitor      visitor id, ascending
    is_viewed    the item is opened before anything else happens to it
    is_carted
    order        place of the order with which the item is bought, -1: not bought
    """

    visitor: np.ndarray
    is_viewed: np.ndarray
    is_carted: np.ndarray
    order: np.ndarray

    @property
    def reach(self) -> np.ndarray:
        """[D] how far each goes: LOOK, CART or BUY."""
        return np.where(self.order >= 0, BUY, np.where(self.is_carted, CART, LOOK))


@dataclass(frozen=True)
class Events:
    """Columns [E], ordered by visitor and then in the order of doing.

    interest   place in Interests
    kind       contract.schema's event code
    """

    interest: np.ndarray
    kind: np.ndarray


def draw_journeys(visitors: Visitors, random: np.random.Generator) -> tuple[Interests, Events]:
    """Every visitor's interests and events."""
    interests, repeats = _draw_interests(visitors, random)
    return interests, _order_events(interests, repeats, random)


def _draw_interests(visitors: Visitors, random: np.random.Generator) -> tuple[Interests, np.ndarray]:
    """All interests, and the views [V] that are left for items seen before."""
    funnel = _draw_funnel(visitors, random)
    num_visitors = len(visitors.views)
    viewed = np.bincount(funnel.visitor[funnel.is_viewed], minlength=num_visitors)
    left = visitors.views - viewed
    # the first view of all cannot be of an item seen before
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
    """The interests that reach the cart or an order, by visitor."""
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
    """The events of all interests, in each visitor's order."""
    sizes = np.bincount(interests.visitor, minlength=len(repeats))
    place = place_in_group(sizes)
    every = np.arange(len(place))
    viewed, carted = every[interests.is_viewed], every[interests.is_carted]
    lines = every[interests.order >= 0]

    repeat_visitor = np.repeat(np.arange(len(repeats)), repeats)
    span = sizes[repeat_visitor]
    again = group_starts(sizes)[repeat_visitor] + (random.random(len(span)) * span).astype(np.int64)
    at_once = place[again] + _AT_ONCE * (1 + 2 * random.random(len(again)))
    later = place[again] + 0.5 + random.random(len(again)) * (span - place[again] - 0.5)
    again_place = np.where(random.random(len(again)) < _REPEAT_AT_ONCE, at_once, later)

    interest = np.r_[viewed, again, carted, lines]
    places = np.r_[
        place[viewed], again_place, place[carted] + _CART, _checkout_places(interests.order[lines], place[lines])
    ]
    kind = np.repeat([VIEW, ADD_TO_CART, TRANSACTION], [len(viewed) + len(again), len(carted), len(lines)])
    visitor = interests.visitor[interest]
    # one sort key, the visitor and how far through the visitor's interests; stable, so that an order stays together
    order = np.argsort(visitor + places / (sizes[visitor] + 1), kind="stable")
    return Events(interest[order], kind[order])


def _checkout_places(order: np.ndarray, place: np.ndarray) -> np.ndarray:
    """[N] places of purchases: one for all lines of an order, after the last of its items came up."""
    last = np.zeros(int(order.max(initial=-1)) + 1)
    np.maximum.at(last, order, place)
    return last[order] + _ORDER
