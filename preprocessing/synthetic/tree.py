"""Draws the category tree, and the popularity of each category for views, carts and purchases.

A shelf is a category with items.

Shapes: C nodes of the tree, S shelves.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.draws import draw_weighted, lognormal_quantiles, stratified
from preprocessing.synthetic.scale import Scale

_NODES_BY_DEPTH = (25, 174, 702, 665, 90, 13)
# share of the nodes that have children, by depth
_PARENTS_BY_DEPTH = (0.96, 0.71, 0.25, 0.05, 0.045)
_IDS_PER_NODE = 1.018  # the ids have gaps
_SHELVES = 1_086
_CART_SHELVES = 780
_BUY_SHELVES = 722
_INNER_SHELVES = 0.06  # share of the shelves that are not leaves
_POPULARITY_SIGMA = 1.51  # popularity is log-normal: the top 100 of 1,086 have 59% of the views
_CONVERSION_SIGMA = 0.4


@dataclass(frozen=True)
class Tree:
    """The category tree and its shelves, the categories with items."""

    category_id: np.ndarray
    """[C] category ids, which are not consecutive."""

    parent: np.ndarray
    """[C] parent of each node, or -1 for a root. Parents precede their children."""

    shelf_node: np.ndarray
    """[S] node of each shelf. Shelves with the same parent are next to each other."""

    family: np.ndarray
    """[S] family of each shelf, ascending. Shelves with the same parent are a family."""

    view_weight: np.ndarray
    """[S] share of the views that each shelf gets."""

    cart_weight: np.ndarray
    """[S] relative popularity of each shelf for carts. 0: no item of the shelf is ever put into a cart."""

    buy_weight: np.ndarray
    """[S] relative popularity of each shelf for purchases. 0: no item of the shelf is ever bought. Shelves with
    purchases also have carts."""

    @property
    def num_shelves(self) -> int:
        return len(self.shelf_node)


def grow_tree(scale: Scale, random: np.random.Generator) -> Tree:
    """Draws a category tree in the shape of Retailrocket's, and its shelves: the categories that have items."""
    parent = _draw_parents(scale, random)
    ids = random.permutation(round(len(parent) * _IDS_PER_NODE))[: len(parent)]
    shelf_node = _choose_shelves(parent, scale.variety(_SHELVES), random)
    _, family = np.unique(parent[shelf_node], return_inverse=True)
    order = np.lexsort([shelf_node, family])
    view_weight = lognormal_quantiles(stratified(len(order), random), 1, _POPULARITY_SIGMA)
    cart_weight, buy_weight = _sales_weights(view_weight, scale, random)
    return Tree(
        ids,
        parent,
        shelf_node[order],
        family[order],
        view_weight / view_weight.sum(),
        cart_weight,
        buy_weight,
    )


def _draw_parents(scale: Scale, random: np.random.Generator) -> np.ndarray:
    """Draws the parent of each node of the category tree, [C], level by level; -1 for a root."""
    sizes = [scale.variety(count) for count in _NODES_BY_DEPTH]
    levels = [np.full(sizes[0], -1)]
    begin = 0
    for size, parents_share in zip(sizes[1:], _PARENTS_BY_DEPTH, strict=True):
        above = len(levels[-1])
        num_parents = max(1, min(size, round(above * parents_share)))
        # each parent has at least one child; the other children are distributed unevenly
        extra = draw_weighted(random.exponential(size=num_parents), random.random(size - num_parents))
        levels.append(begin + np.r_[np.arange(num_parents), extra])
        begin += above
    return np.concatenate(levels)


def _choose_shelves(parent: np.ndarray, num_shelves: int, random: np.random.Generator) -> np.ndarray:
    """Draws which nodes of the category tree have items, mostly leaves. Returns the indices of these nodes, [S].

    `parent` [C] is the parent of each node, or -1 for a root.
    """
    is_leaf = np.ones(len(parent), bool)
    is_leaf[parent[parent >= 0]] = False
    leaves, inner = random.permutation(np.flatnonzero(is_leaf)), random.permutation(np.flatnonzero(~is_leaf))
    num_inner = min(len(inner), max(round(num_shelves * _INNER_SHELVES), num_shelves - len(leaves)))
    return np.r_[inner[:num_inner], leaves[: num_shelves - num_inner]]


def _sales_weights(view_weight: np.ndarray, scale: Scale, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws the popularity of each shelf in carts, [S], and in purchases, [S]. Both depend on `view_weight` [S].

    The least popular shelves get 0. For purchases, more shelves get 0 than for carts.
    """
    cart_weight = view_weight * random.lognormal(sigma=_CONVERSION_SIGMA, size=len(view_weight))
    buy_weight = cart_weight * random.lognormal(sigma=_CONVERSION_SIGMA, size=len(view_weight))
    by_rank = np.argsort(-cart_weight, kind="stable")
    cart_weight[by_rank[scale.variety(_CART_SHELVES) :]] = 0
    buy_weight[by_rank[scale.variety(_BUY_SHELVES) :]] = 0
    return cart_weight, buy_weight
