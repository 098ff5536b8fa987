"""Draws the many properties that only some items have. A few occur on all shelves, and most only on some shelves.

Shapes: S shelves, P properties, K possible properties per shelf, R rows.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.synthetic.catalogue import Catalogue
from preprocessing.synthetic.draws import draw_weighted
from preprocessing.synthetic.scale import SNAPSHOTS_MS, Scale
from preprocessing.synthetic.tree import Tree
from preprocessing.synthetic.values import PropertyRows, format_numbers, format_words, mix, style_word

_PROPERTIES = 1_098
_ROWS_PER_ITEM = 11_964_245 / 417_053
# probability that an item has each of the properties that occur on all shelves
_SHARED_CHANCES = (0.9, 0.85, 0.8, 0.75, 0.6, 0.5, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15)
_OWN = 26  # other properties per shelf
_OWN_SKEW = 0.4  # the r-th property is on r ** -0.4 times as many shelves as the first
_CHANGES = 0.15  # probability that a value changes once
_NUMERIC_SHARE = 0.3  # share of the properties that have numeric values
_STYLE_SHARE, _SHELF_SHARE = 0.45, 0.2  # shares of the values that depend on the style and on the shelf
_CHOICES = 40  # number of other values per property
_NUMBERS, _UNIT = 4_999, 12  # numeric values are 0 to 4,998 units
_TAKEN_NAMES = (6, 283, 790, 888)


@dataclass(frozen=True)
class RareProperties:
    """The rare item properties, and how likely they are on each shelf (a category with items)."""

    name: pa.Array
    """[P] names, which are numbers."""

    is_numeric: np.ndarray
    """[P] whether the values are numbers."""

    of_shelf: np.ndarray
    """[S, K] indices of the properties that items on each shelf may have."""

    chance: np.ndarray
    """[S, K] probability that an item on the shelf has the property `of_shelf[s, k]`. 0 if the same property precedes
    it in `of_shelf[s]`."""


def draw_rare_properties(tree: Tree, catalogue: Catalogue, scale: Scale, random: np.random.Generator) -> RareProperties:
    """Draws the rare properties, so that items have as many rows on average as in Retailrocket's data."""
    num_shared = len(_SHARED_CHANCES)
    size = scale.variety(_PROPERTIES, at_least=num_shared + _OWN)
    free_names = np.setdiff1d(np.arange(size + 12), _TAKEN_NAMES)
    names = random.permutation(free_names)[:size]
    own = _draw_own(size - num_shared, tree.num_shelves, random)
    is_new = np.diff(own, axis=1, prepend=-1) > 0  # sorted: a property that was drawn twice counts once
    later = np.mean(catalogue.snapshot < len(SNAPSHOTS_MS) - 1)
    per_item = _ROWS_PER_ITEM / (1 + _CHANGES * later) - sum(_SHARED_CHANCES)
    chance = min(1.0, per_item / is_new.sum(axis=1)[catalogue.shelf].mean())
    shared = np.broadcast_to(np.arange(num_shared), (tree.num_shelves, num_shared))
    return RareProperties(
        format_words(names),
        random.random(size) < _NUMERIC_SHARE,
        np.hstack([shared, own + num_shared]),
        np.hstack([np.broadcast_to(_SHARED_CHANCES, shared.shape), chance * is_new]),
    )


def draw_rare_rows(rare: RareProperties, chunk: Catalogue, random: np.random.Generator) -> PropertyRows:
    """Draws the rows of the rare properties for a chunk of items."""
    item, column = np.nonzero(random.random((len(chunk.shelf), rare.chance.shape[1])) < rare.chance[chunk.shelf])
    which = rare.of_shelf[chunk.shelf[item], column]
    value = _draw_values(which, chunk.shelf[item], chunk.style[item], random)
    first = chunk.snapshot[item]
    later = len(SNAPSHOTS_MS) - 1 - first
    changed = np.flatnonzero((random.random(len(item)) < _CHANGES) & (later > 0))
    changed_at = first[changed] + 1 + (random.random(len(changed)) * later[changed]).astype(np.int64)
    rows = np.r_[np.arange(len(item)), changed]
    value = np.r_[value, value[changed] + 1]
    which = which[rows]
    numbers, words = format_numbers(_UNIT * (value % _NUMBERS)), format_words(value)
    text = pc.if_else(pa.array(rare.is_numeric[which]), numbers, words)
    return PropertyRows(item[rows], np.r_[first, changed_at], rare.name.take(pa.array(which)), text)


def _draw_own(size: int, num_shelves: int, random: np.random.Generator) -> np.ndarray:
    """Draws 26 of `size` properties for each shelf, with replacement. Returns indices, [S, 26], ascending per shelf.

    If 26 · S is at least `size`, some draws are replaced so that each property belongs to at least one shelf.
    """
    skew = np.arange(1.0, size + 1) ** -_OWN_SKEW
    own = draw_weighted(skew, random.random(num_shelves * _OWN))
    once = random.permutation(size)[: len(own)]
    own[random.permutation(len(own))[: len(once)]] = once
    return np.sort(own.reshape(num_shelves, _OWN), axis=1)


def _draw_values(which: np.ndarray, shelf: np.ndarray, style: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws property values as integers, [R]. A value depends on shelf and style, or on the shelf only, or is random.

    All arrays are [R]. `which` is the index of the property; `style` is a number from 0 to 1.
    """
    uniform = random.random(len(which))
    anything = mix(which, random.integers(0, _CHOICES, len(which)))
    of_shelf = np.where(uniform < _STYLE_SHARE + _SHELF_SHARE, mix(which, shelf), anything)
    return np.where(uniform < _STYLE_SHARE, style_word(which, shelf, style), of_shelf)
