"""Draws the hidden tastes of each visitor: a few favourite categories, and a style for each of them.

A shelf is a category with items.

Shapes: V visitors, D interests, S shelves, F favourites per visitor.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.clock import Times
from preprocessing.synthetic.draws import draw_weighted
from preprocessing.synthetic.journeys import Interests
from preprocessing.synthetic.tree import Tree

_SIBLING = 0.6  # the second favourite is a sibling of the first
_FAVOURITE_SHARES = (0.85, 0.10, 0.05)  # of sessions
_STAYS = 0.93  # share of the interests that are on their session's shelf
_EXPLORES = 0.4  # share of the others that are on any shelf; the rest are on another favourite
_STYLE_NOISE = 0.03


@dataclass(frozen=True)
class Wishes:
    """The shelf and style that the visitor of each visitor-item pair looks for, as columns [D].

    A shelf is a category with items.
    """

    visitor: np.ndarray
    """Visitor id."""

    reach: np.ndarray
    """The last stage of the interest: LOOK (only viewed), CART (in the cart, not bought) or BUY."""

    begin_ms: np.ndarray
    """Time of the interest's first event, in milliseconds since 1970."""

    shelf: np.ndarray
    """Index of the wanted shelf."""

    style: np.ndarray
    """The wanted style, in [0, 1]."""


@dataclass(frozen=True)
class _Taste:
    """The favourite shelves of each visitor, and the preferred style on each of these shelves."""

    shelf: np.ndarray
    """[V, F] favourite shelves, most liked first."""

    style: np.ndarray
    """[V, F] preferred style on each favourite shelf, in [0, 1]."""


def draw_wishes(
    tree: Tree, interests: Interests, begin: Times, is_robot: np.ndarray, random: np.random.Generator
) -> Wishes:
    """Draws a shelf and a style for each visitor-item pair.

    Args:
      begin: [D] time and session of each pair's first event. Most pairs of a session get the same shelf.
      is_robot: [V] which visitors are robots. They get random shelves and styles.
    """
    visitor = interests.visitor
    taste = _draw_tastes(tree, interests, len(is_robot), random)
    slot = _choose_favourite(begin.session, random)
    shelf = taste.shelf[visitor, slot]
    style = _reflect(taste.style[visitor, slot] + random.normal(scale=_STYLE_NOISE, size=len(visitor)))

    explores = (random.random(len(visitor)) < (1 - _STAYS) * _EXPLORES) | is_robot[visitor]
    shelf[explores] = draw_weighted(tree.view_weight, random.random(int(explores.sum())))
    style[explores] = random.random(int(explores.sum()))
    # if the shelf sells nothing, the wish moves to the first favourite, which sells
    sells = np.stack([tree.view_weight, tree.cart_weight, tree.buy_weight])[interests.reach, shelf] > 0
    shelf = np.where(sells, shelf, taste.shelf[visitor, 0])
    style = np.where(sells, style, taste.style[visitor, 0])
    return Wishes(visitor, interests.reach, begin.timestamp_ms, shelf, style)


def count_wishes(wishes: Wishes, num_shelves: int) -> np.ndarray:
    """Counts, for each shelf, the wishes whose last event is a view, an add-to-cart or a purchase, [3, S]."""
    cells = np.bincount(wishes.reach * num_shelves + wishes.shelf, minlength=3 * num_shelves)
    return cells.reshape(3, num_shelves)


def _draw_tastes(tree: Tree, interests: Interests, num_visitors: int, random: np.random.Generator) -> _Taste:
    """Draws the favourite shelves of each visitor, and a random preferred style for each of these shelves.

    The first favourite is drawn by popularity: in purchases for buyers, in carts for other visitors with carts, and in
    views for the rest. The second favourite often has the same parent category.
    """
    uniform = random.random((num_visitors, len(_FAVOURITE_SHARES)))
    shelf = np.stack([draw_weighted(tree.view_weight, column) for column in uniform.T], axis=1)
    carts = np.unique(interests.visitor[interests.is_carted])
    shelf[carts, 0] = draw_weighted(tree.cart_weight, uniform[carts, 0])
    buys = np.unique(interests.visitor[interests.order >= 0])
    shelf[buys, 0] = draw_weighted(tree.buy_weight, uniform[buys, 0])
    has_sibling = random.random(num_visitors) < _SIBLING
    shelf[has_sibling, 1] = _draw_sibling(tree, shelf[has_sibling, 0], uniform[has_sibling, 1])
    return _Taste(shelf, random.random(shelf.shape))


def _draw_sibling(tree: Tree, shelf: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Draws, for each shelf, a shelf that has the same parent category, [N]. It may be the given shelf.

    The probabilities are in proportion to the shelves' views. `uniform` [N] are random numbers in [0, 1).
    """
    ends = np.cumsum(tree.view_weight)
    family = tree.family[shelf]
    first = np.searchsorted(tree.family, family, side="left")
    last = np.searchsorted(tree.family, family, side="right") - 1
    low = ends[first] - tree.view_weight[first]
    found = np.searchsorted(ends, low + uniform * (ends[last] - low), side="right")
    return np.clip(found, first, last)


def _choose_favourite(session: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws one of the visitor's F favourite shelves for each visitor-item pair. Returns numbers from 0 to F - 1, [D].

    Pairs of the same session mostly get the same shelf.
    """
    shares = np.array(_FAVOURITE_SHARES)
    of_session = draw_weighted(shares, random.random(int(session.max()) + 1))
    strays = random.random(len(session)) < (1 - _STAYS) * (1 - _EXPLORES)
    return np.where(strays, draw_weighted(shares, random.random(len(session))), of_session[session])


def _reflect(style: np.ndarray) -> np.ndarray:
    """Mirrors styles [N] below 0 or above 1 back into the range; -0.1 becomes 0.1."""
    return 1 - np.abs(1 - np.abs(style))
