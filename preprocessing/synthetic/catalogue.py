"""Draws the items that the property files list, and the snapshot that first lists each item.

The files list most items of the event log, and many items without events.

Shapes: I items of the assortment, L listed items.
"""

from dataclasses import dataclass

import numpy as np

from preprocessing.synthetic.assortment import Assortment
from preprocessing.synthetic.draws import draw_weighted
from preprocessing.synthetic.scale import SNAPSHOTS_MS, Scale
from preprocessing.synthetic.tree import Tree

_LISTED = 417_053
_SEEN = 235_061
_SEEN_UNLISTED = 49_815  # all ids from 0 to 466,867 occur in the events or in the properties
_UNLISTED_POPULARITY = (
    0.45  # an item with d visitors is unlisted about d ** -0.45 times as often as one with one visitor
)
_UNSEEN_FROM_START = 0.6
_LONGEST_LEAD = 3  # snapshots between the listing of an item and its first event
_AVAILABLE_AT_END = 0.1295
_AVAILABILITY_OF_LIVING = 1.2  # added to the log-odds of availability if the item is still in fashion


@dataclass(frozen=True)
class Catalogue:
    """Ids of all items, and features of the listed items.

    Listed items are the items in the property files. Some of them have no events, and some items with events are not
    listed.
    """

    item_id: np.ndarray
    """[I] id of each item in the assortment, or -1 if the item has no events."""

    listed_id: np.ndarray
    """[L] ids of the listed items."""

    shelf: np.ndarray
    """[L] shelf of each listed item."""

    style: np.ndarray
    """[L] style of each listed item, in [0, 1]."""

    snapshot: np.ndarray
    """[L] index of the weekly snapshot that first lists the item."""

    is_available: np.ndarray
    """[L] whether the item is available at the last snapshot."""

    def rows(self, selection: slice) -> "Catalogue":
        """Returns a catalogue that lists only the selected items. Its `item_id` still has the ids of all items."""
        columns = (self.listed_id, self.shelf, self.style, self.snapshot, self.is_available)
        return Catalogue(self.item_id, *(column[selection] for column in columns))


def list_items(
    tree: Tree, items: Assortment, first_seen_ms: np.ndarray, scale: Scale, random: np.random.Generator
) -> Catalogue:
    """Samples the ids of all items, and the items that are in the property files.

    Args:
      first_seen_ms: [I] time of each item's first event, in milliseconds since 1970.
    """
    popularity = items.quota.sum(axis=0)
    seen = np.flatnonzero(popularity)
    listed = _choose_listed(items.shelf[seen], popularity[seen], random)
    num_unseen = max(0, scale.count(_LISTED) - len(listed))
    ids = random.permutation(len(seen) + num_unseen)
    item_id = np.full(len(popularity), -1)
    item_id[seen] = ids[: len(seen)]

    chosen = seen[listed]
    shelf = np.r_[items.shelf[chosen], draw_weighted(tree.view_weight, random.random(num_unseen))]
    snapshot = np.r_[
        _first_snapshots(items.born[chosen], first_seen_ms[chosen], random), _unseen_snapshots(num_unseen, random)
    ]
    is_alive = np.r_[items.ended[chosen] >= 1, np.zeros(num_unseen, bool)]
    columns = (
        np.r_[item_id[chosen], ids[len(seen) :]],
        shelf,
        np.r_[items.style[chosen], random.random(num_unseen)],
        snapshot,
        _choose_available(is_alive, random),
    )
    order = random.permutation(len(shelf))
    return Catalogue(item_id, *(column[order] for column in columns))


def _choose_listed(shelf: np.ndarray, popularity: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws which of N items are in the property files; returns their indices, ascending.

    Items are sorted by shelf. The most popular item of each shelf is always listed.
    """
    lasting = _UNLISTED_POPULARITY * np.log(popularity) + random.gumbel(size=len(shelf))
    best = np.lexsort([-popularity, shelf])[np.flatnonzero(np.diff(shelf, prepend=-1))]
    lasting[best] = np.inf
    num_listed = round(len(shelf) * (1 - _SEEN_UNLISTED / _SEEN))
    return np.sort(np.argsort(-lasting, kind="stable")[:num_listed])


def _first_snapshots(born: np.ndarray, first_seen_ms: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws the weekly snapshot that first lists each item; returns its index, [N].

    Items older than the log (`born` is 0) get the first snapshot. Others get one shortly before their first event.
    """
    at_first_event = np.searchsorted(SNAPSHOTS_MS, first_seen_ms, side="right") - 1
    lead = random.integers(0, _LONGEST_LEAD + 1, len(born))
    return np.where(born == 0, 0, np.maximum(at_first_event - lead, 0))


def _unseen_snapshots(count: int, random: np.random.Generator) -> np.ndarray:
    later = random.integers(0, len(SNAPSHOTS_MS), count)
    return np.where(random.random(count) < _UNSEEN_FROM_START, 0, later)


def _choose_available(is_alive: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws which items are available at the last snapshot; returns a mask [L].

    The share of available items is fixed. Items still in fashion (`is_alive` [L]) are more likely to be available.
    """
    score = _AVAILABILITY_OF_LIVING * is_alive + random.gumbel(size=len(is_alive))
    is_available = np.zeros(len(is_alive), bool)
    is_available[np.argsort(-score, kind="stable")[: round(len(is_alive) * _AVAILABLE_AT_END)]] = True
    return is_available
