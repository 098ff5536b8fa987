"""The shop's list of items: most of those that are looked at, more that nobody ever looks at, and when each is listed.

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
_SEEN_UNLISTED = 49_815  # all ids from 0 to 466,867 occur, either in the events or in the properties
_UNLISTED_POPULARITY = 0.45  # an item with d visitors stays unlisted about d ** -0.45 as often as one with a single one
_UNSEEN_FROM_START = 0.6
_LONGEST_LEAD = 3  # snapshots, before an item is first looked at
_AVAILABLE_AT_END = 0.1295
_AVAILABILITY_OF_LIVING = 1.2  # how much more likely an item that is still in fashion is available, as a logarithm


@dataclass(frozen=True)
class Catalogue:
    """Ids of all items, and the listed ones.

    item_id        [I] ids of the assortment's items, of those with a quota
    listed_id      [L] ids in random order of shelf and time
    shelf          [L]
    style          [L] in [0, 1]
    snapshot       [L] number of the snapshot at which an item is first listed
    is_available   [L] at the last snapshot
    """

    item_id: np.ndarray
    listed_id: np.ndarray
    shelf: np.ndarray
    style: np.ndarray
    snapshot: np.ndarray
    is_available: np.ndarray

    def rows(self, places: slice) -> "Catalogue":
        """The same with some of the listed items."""
        columns = (self.listed_id, self.shelf, self.style, self.snapshot, self.is_available)
        return Catalogue(self.item_id, *(column[places] for column in columns))


def list_items(
    tree: Tree, items: Assortment, first_seen_ms: np.ndarray, scale: Scale, random: np.random.Generator
) -> Catalogue:
    """Ids and listings.

    Args:
      first_seen_ms: [I] the first event of each item; not read where the quota is 0.
    """
    popularity = items.quota.sum(axis=0)
    seen = np.flatnonzero(popularity)
    listed = _choose_listed(items.shelf[seen], popularity[seen], random)
    num_unseen = max(0, scale.count(_LISTED) - len(listed))
    ids = random.permutation(len(seen) + num_unseen)
    item_id = np.full(len(popularity), -1)
    item_id[seen] = ids[: len(seen)]

    places = seen[listed]
    shelf = np.r_[items.shelf[places], draw_weighted(tree.view_weight, random.random(num_unseen))]
    snapshot = np.r_[
        _first_snapshots(items.born[places], first_seen_ms[places], random), _unseen_snapshots(num_unseen, random)
    ]
    is_alive = np.r_[items.ended[places] >= 1, np.zeros(num_unseen, bool)]
    columns = (
        np.r_[item_id[places], ids[len(seen) :]],
        shelf,
        np.r_[items.style[places], random.random(num_unseen)],
        snapshot,
        _choose_available(is_alive, random),
    )
    order = random.permutation(len(shelf))
    return Catalogue(item_id, *(column[order] for column in columns))


def _choose_listed(shelf: np.ndarray, popularity: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Places, ascending, of the seen items that have properties; the best of each shelf always has.

    Args:
      shelf: [N] ascending.
      popularity: [N] at least 1.
    """
    lasting = _UNLISTED_POPULARITY * np.log(popularity) + random.gumbel(size=len(shelf))
    best = np.lexsort([-popularity, shelf])[np.flatnonzero(np.diff(shelf, prepend=-1))]
    lasting[best] = np.inf
    num_listed = round(len(shelf) * (1 - _SEEN_UNLISTED / _SEEN))
    return np.sort(np.argsort(-lasting, kind="stable")[:num_listed])


def _first_snapshots(born: np.ndarray, first_seen_ms: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[N] snapshot at which each is listed: the first for old items, else some before it is first looked at."""
    at_first_look = np.searchsorted(SNAPSHOTS_MS, first_seen_ms, side="right") - 1
    lead = random.integers(0, _LONGEST_LEAD + 1, len(born))
    return np.where(born == 0, 0, np.maximum(at_first_look - lead, 0))


def _unseen_snapshots(count: int, random: np.random.Generator) -> np.ndarray:
    later = random.integers(0, len(SNAPSHOTS_MS), count)
    return np.where(random.random(count) < _UNSEEN_FROM_START, 0, later)


def _choose_available(is_alive: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """[L] whether an item is available at the end; a given share is, living ones more often."""
    score = _AVAILABILITY_OF_LIVING * is_alive + random.gumbel(size=len(is_alive))
    is_available = np.zeros(len(is_alive), bool)
    is_available[np.argsort(-score, kind="stable")[: round(len(is_alive) * _AVAILABLE_AT_END)]] = True
    return is_available
