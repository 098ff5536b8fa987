"""The shop and its visitors as one story; nothing is written yet.

Shapes: D interests.
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

# every part draws from a stream of its own, numbered, so that a change in one leaves the others as they are
_TREE, _VISITORS, _JOURNEYS, _TIMES, _WISHES, _ITEMS, _MATCHING, _CATALOGUE, _PROPERTIES, _ROWS, _TITLES = range(11)


@dataclass(frozen=True)
class Shop:
    """All that happened, and the hidden causes of it: wishes and the items' styles.

    item   [D] place in `items` of what each interest is about
    """

    config: SynthesisConfig
    tree: Tree
    interests: Interests
    events: Events
    times: Times
    wishes: Wishes
    items: Assortment
    item: np.ndarray
    catalogue: Catalogue

    def properties(self) -> Iterator[pa.Table]:
        """All property rows, in tables of some hundred thousands."""
        seed = (self.config.seed, _PROPERTIES)
        scale = Scale(self.config.visitors)
        return property_tables(self.tree, self.catalogue, scale, seed, _stream(self.config, _TITLES))

    def row_randomness(self) -> np.random.Generator:
        """What decides the order of the events' rows and which of them come twice."""
        return _stream(self.config, _ROWS)


def imagine_shop(config: SynthesisConfig) -> Shop:
    """A shop that depends on the config alone."""
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
    first_seen_ms[item[latest_first]] = begin.timestamp_ms[latest_first]  # the last assignment, the earliest, stays
    catalogue = list_items(tree, items, first_seen_ms, scale, _stream(config, _CATALOGUE))
    return Shop(config, tree, interests, events, times, wishes, items, item, catalogue)


def _stream(config: SynthesisConfig, job: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, job])
