"""Generates a shop in memory, by running all steps in order.

Shapes: D is the number of interests.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from preprocessing.synthetic.assortment import Assortment, stock_shelves
from preprocessing.synthetic.catalogue import Catalogue, list_items
from preprocessing.synthetic.clock import Times, draw_times, first_times
from preprocessing.synthetic.journeys import Events, Interests, draw_journeys
from preprocessing.synthetic.matching import match_items
from preprocessing.synthetic.properties import property_tables
from preprocessing.synthetic.scale import Scale, SynthesisConfig
from preprocessing.synthetic.tastes import Wishes, count_wishes, draw_wishes
from preprocessing.synthetic.tree import Tree, grow_tree
from preprocessing.synthetic.visitors import draw_visitors

# each step draws from a random stream of its own, so that a change of one step doesn't affect the others
_TREE, _VISITORS, _JOURNEYS, _TIMES, _WISHES, _ITEMS, _MATCHING, _CATALOGUE, _PROPERTIES, _ROWS, _TITLES = range(11)


@dataclass(frozen=True)
class Shop:
    """A synthetic shop: its events and items, and their hidden causes.

    The causes are visitors' wishes and items' styles, which no file contains.
    """

    config: SynthesisConfig
    """The settings."""

    tree: Tree
    """The category tree."""

    interests: Interests
    """The interests of all visitors."""

    events: Events
    """The events of all interests."""

    times: Times
    """The times of the events."""

    wishes: Wishes
    """The shelf (a category) and the style that each interest of a visitor looks for."""

    items: Assortment
    """The items that occur in events."""

    item: np.ndarray
    """[D] index in `items` of each interest's item."""

    catalogue: Catalogue
    """The ids of all items, and the items that are listed in the property files."""

    def properties(self) -> Iterator[pa.Table]:
        """Yields all property rows, in tables of up to about 1.6 million rows."""
        seed = (self.config.seed, _PROPERTIES)
        scale = Scale(self.config.visitors)
        return property_tables(self.tree, self.catalogue, scale, seed, _stream(self.config, _TITLES))

    def row_generator(self) -> np.random.Generator:
        """Returns a new random generator, to shuffle rows and to choose the rows to duplicate."""
        return _stream(self.config, _ROWS)


def generate_shop(config: SynthesisConfig) -> Shop:
    """Generates a shop; the same config gives the same shop."""
    scale = Scale(config.visitors)
    tree = grow_tree(scale, _stream(config, _TREE))
    visitors = draw_visitors(scale, _stream(config, _VISITORS))
    interests, events = draw_journeys(visitors, _stream(config, _JOURNEYS))
    times = draw_times(interests, events, visitors.is_robot, _stream(config, _TIMES))

    begin = first_times(times, events, len(interests.visitor))
    wishes = draw_wishes(tree, interests, begin, visitors.is_robot, _stream(config, _WISHES))
    items = stock_shelves(count_wishes(wishes, tree.num_shelves), scale, _stream(config, _ITEMS))
    item = match_items(wishes, items, _stream(config, _MATCHING))

    first_seen_ms = np.zeros(len(items.shelf), np.int64)
    latest_first = np.argsort(-begin.timestamp_ms, kind="stable")
    first_seen_ms[item[latest_first]] = begin.timestamp_ms[latest_first]  # the last assignment wins: the earliest
    catalogue = list_items(tree, items, first_seen_ms, scale, _stream(config, _CATALOGUE))
    return Shop(config, tree, interests, events, times, wishes, items, item, catalogue)


def _stream(config: SynthesisConfig, step: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, step])
