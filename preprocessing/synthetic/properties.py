"""Draws the rows of the item properties. Each property of an item has a row for its first value and one per change.

The values reveal the shelf and the style of an item, because some words depend on them.

Shapes: C items of a chunk, R rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.synthetic.catalogue import Catalogue
from preprocessing.synthetic.rare_properties import draw_rare_properties, draw_rare_rows
from preprocessing.synthetic.scale import SNAPSHOTS_MS, Scale
from preprocessing.synthetic.titles import draw_titles
from preprocessing.synthetic.tree import Tree
from preprocessing.synthetic.values import NUM_WORDS, PropertyRows, format_numbers, format_words, mix, style_word

_CHUNK_ITEMS = 32_768  # bounds the memory

# rows per listed item: the first value and all changes
_ROWS_PER_ITEM = {
    "888": 3_000_398 / 417_053,
    "790": 1_790_516 / 417_053,
    "available": 1_503_639 / 417_053,
    "categoryid": 788_214 / 417_053,
    "6": 631_471 / 417_053,
    "283": 597_419 / 417_053,
}
_PRICE_MEDIAN, _SHELF_PRICE_SPREAD, _ITEM_PRICE_SIGMA, _PRICE_CHANGE_SIGMA = 50.0, 3.0, 0.6, 0.12
_PRICE_STEP = 20 * 12  # the anonymized prices are multiples of 12


@dataclass(frozen=True)
class _Changes:
    """The rows of one property for a chunk of items. A row has an item's first value or a changed value."""

    item: np.ndarray
    """[R] index of the item in the chunk."""

    snapshot: np.ndarray
    """[R] index of the weekly snapshot that sets the value."""

    left: np.ndarray
    """[R] number of later rows of the same item. Values depend on this number, so that consecutive values differ."""


def property_tables(
    tree: Tree, catalogue: Catalogue, scale: Scale, seed: tuple[int, ...], title_random: np.random.Generator
) -> Iterator[pa.Table]:
    """Yields all property rows in tables with the columns timestamp, itemid, property and value.

    Each table contains all rows of some items, in random order.

    Args:
      seed: seed of everything except titles: the values of all rows, and their order.
      title_random: random source of the titles, and of their positions among the rows.
    """
    titles = draw_titles(tree, catalogue, title_random)
    rates = {name: change_rate(catalogue.snapshot, rows) for name, rows in _ROWS_PER_ITEM.items()}
    rare = draw_rare_properties(tree, catalogue, scale, np.random.default_rng([*seed, 0]))
    for number, begin in enumerate(range(0, len(catalogue.listed_id), _CHUNK_ITEMS), start=1):
        random = np.random.default_rng([*seed, number])
        chunk = catalogue.rows(slice(begin, begin + _CHUNK_ITEMS))
        parts = [_draw_common_rows(name, rate, tree, chunk, random) for name, rate in rates.items()]
        parts.append(draw_rare_rows(rare, chunk, random))
        title_rows = _title_rows(chunk, titles.slice(begin, _CHUNK_ITEMS))
        order = random.permutation(sum(len(part.item) for part in parts))
        order = _insert_randomly(order, len(title_rows.item), title_random)
        yield _table([*parts, title_rows], chunk).take(pa.array(order))


def change_rate(first_snapshot: np.ndarray, rows_per_item: float) -> float:
    """Returns how likely a change must be at each snapshot, so that items have `rows_per_item` rows on average.

    Args:
      first_snapshot: index of each item's first snapshot. Changes happen at later snapshots.
      rows_per_item: mean number of rows, one for the first value and one per change.
    """
    chances = int((len(SNAPSHOTS_MS) - 1 - first_snapshot).sum())
    return min(1.0, (rows_per_item - 1) * len(first_snapshot) / max(chances, 1))


def _draw_common_rows(
    name: str, rate: float, tree: Tree, chunk: Catalogue, random: np.random.Generator
) -> PropertyRows:
    changes = _draw_changes(chunk.snapshot, rate, random)
    match name:
        case "790":
            value = _draw_prices(chunk, changes, random)
        case "available":
            value = pa.array(["0", "1"]).take(pa.array(chunk.is_available[changes.item] ^ (changes.left % 2)))
        case "categoryid":
            value = _categories(tree, chunk, changes)
        case _:
            value = _draw_words(name, chunk, changes, random)
    return PropertyRows(changes.item, changes.snapshot, pa.repeat(name, len(value)), value)


def _draw_changes(first_snapshot: np.ndarray, rate: float, random: np.random.Generator) -> _Changes:
    snapshot = np.arange(len(SNAPSHOTS_MS))
    first = first_snapshot[:, None]
    changes = random.random((len(first), len(snapshot)), np.float32) < rate
    has_row = (snapshot == first) | ((snapshot > first) & changes)
    left = np.cumsum(has_row[:, ::-1], axis=1)[:, ::-1] - 1
    item, at = np.nonzero(has_row)
    return _Changes(item, at, left[item, at])


def _draw_prices(chunk: Catalogue, changes: _Changes, random: np.random.Generator) -> pa.Array:
    of_shelf = mix(790, chunk.shelf) / NUM_WORDS - 0.5
    level = _SHELF_PRICE_SPREAD * of_shelf + _ITEM_PRICE_SIGMA * random.normal(size=len(chunk.shelf))
    price = _PRICE_MEDIAN * np.exp(level[changes.item] + _PRICE_CHANGE_SIGMA * random.normal(size=len(changes.item)))
    # the number of later changes, less than a step, makes consecutive prices differ
    return format_numbers(_PRICE_STEP * np.ceil(price).astype(np.int64) + 12 * changes.left)


def _categories(tree: Tree, chunk: Catalogue, changes: _Changes) -> pa.Array:
    """Returns the category in each row, [R].

    The rows of an item alternate between the item's category and another one; the last row has the item's category.
    """
    shelf = chunk.shelf[changes.item]
    own = tree.shelf_node[shelf]
    neighbour = tree.shelf_node[(shelf + 1) % tree.num_shelves]
    parent = tree.parent[own]
    other = np.where((chunk.listed_id[changes.item] % 2 == 0) & (parent >= 0), parent, neighbour)
    return format_words(tree.category_id[np.where(changes.left % 2 == 0, own, other)])


def _draw_words(name: str, chunk: Catalogue, changes: _Changes, random: np.random.Generator) -> pa.Array:
    """Draws the values of a property, [R]. A value has one or more words.

    The last word differs between consecutive values of an item. The words before it depend on the shelf, the style and,
    in property 888, the item. Property 6 has only the last word.
    """
    salt = int(name)
    shelf = chunk.shelf[changes.item]
    changing = mix(salt, random.integers(0, 1000, len(chunk.shelf))[changes.item], changes.left)
    if name == "6":
        return format_words(changing)
    words = [mix(salt, shelf), style_word(salt, shelf, chunk.style[changes.item])]
    if name == "888":
        words.append(mix(salt, chunk.listed_id[changes.item]))
    return pc.binary_join_element_wise(*map(format_words, words), format_words(changing), " ")


def _title_rows(chunk: Catalogue, titles: pa.Array) -> PropertyRows:
    return PropertyRows(np.arange(len(titles)), chunk.snapshot, pa.repeat("title", len(titles)), titles)


def _insert_randomly(order: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Inserts the numbers N … N + `count` - 1 at random positions into `order`, which consists of 0 … N - 1."""
    positions = np.sort(random.integers(0, len(order) + 1, count))
    return np.insert(order, positions, len(order) + random.permutation(count))


def _table(parts: list[PropertyRows], chunk: Catalogue) -> pa.Table:
    snapshot = np.concatenate([part.snapshot for part in parts])
    item = np.concatenate([part.item for part in parts])
    return pa.table(
        {
            "timestamp": np.array(SNAPSHOTS_MS)[snapshot],
            "itemid": chunk.listed_id[item],
            "property": pa.concat_arrays([part.name for part in parts]),
            "value": pa.concat_arrays([part.value for part in parts]),
        }
    )
