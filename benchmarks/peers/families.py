"""The peers by name, each with a search space and a function that fits the peer.

A coordinate search takes 1 + Σ (number of values − 1) trials, because the values of a setting include the value
that the search starts from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from benchmarks.peers.implicit_models import fit_als, fit_bpr, fit_similarity
from benchmarks.peers.interface import Peer, PeerData
from benchmarks.peers.items import Ease, ItemNeighbours, ItemWalk, fit_ease
from benchmarks.peers.popularity import OwnFrequency, Popular, Trending
from benchmarks.peers.sessions import SessionNeighbours
from benchmarks.tuning import Search, Settings

_RECENCY = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Family:
    """A kind of recommender to compare with: how to fit it, and how to tune its settings."""

    fit: Callable[[PeerData, Settings], Peer]
    """Fits a peer with settings."""
    search: Search
    """The settings to try in tuning."""
    tasks: tuple[str, ...] = ("new", "repeats", "next")
    """Tasks that the peer can do; see `quality_ranking.TASKS`."""
    is_neighbour: bool = False
    """Whether the peer is a nearest-neighbour method, such as the item walk."""
    takes_trend: bool = True
    """Whether the peer is also measured with a trend. `popular` with a trend would equal `trending`."""
    is_trend: bool = False
    """Whether the peer's scores already depend on the recent events of all visitors."""


def _similar_items(kind: Any) -> Callable[[PeerData, Settings], Peer]:
    def fit(data: PeerData, settings: Settings) -> Peer:
        of_fit = tuple((name, value) for name, value in settings.items() if name != "recency")
        return ItemNeighbours(data=data, similarity=_similarity(kind, data, of_fit), recency=settings["recency"])

    return fit


# recency does not affect the similarities, so the last ones are reused
@lru_cache(maxsize=1)
def _similarity(kind: Any, data: PeerData, settings: tuple[tuple[str, Any], ...]) -> sp.csr_matrix:
    return fit_similarity(kind, data.interactions, **dict(settings))


@lru_cache(maxsize=1)
def _ease_weights(data: PeerData, l2: float, max_items: int) -> np.ndarray:
    return fit_ease(data.timelines.baskets, l2, max_items)


def _ease(data: PeerData, settings: Settings) -> Peer:
    weights = _ease_weights(data, settings["l2"], settings["max_items"])
    return Ease(data=data, weights=weights, recency=settings["recency"])


_SESSION_SEARCH = {
    "recency": (0.0, 0.5, 1.0, 2.0),
    "num_neighbours": (100, 200, 500, 1500),
    "length_power": (0.0, 0.5, 1.0),
    "idf_power": (0.0, 0.5, 1.0),
}
_SESSION_BEGIN = {"recency": 1.0, "num_neighbours": 500, "length_power": 0.5, "idf_power": 0.0}

FAMILIES: Mapping[str, Family] = {
    "popular": Family(lambda data, _: Popular(data), Search({}, {}), takes_trend=False),
    "trending": Family(
        lambda data, settings: Trending(data=data, **settings),
        Search({"half_life_days": 7.0}, {"half_life_days": (1.0, 3.0, 7.0, 14.0, 30.0, 90.0)}),
        takes_trend=False,
        is_trend=True,
    ),
    "own_frequency": Family(
        lambda data, settings: OwnFrequency(data=data, **settings),
        Search({"recency": 0.5}, {"recency": (0.0, 0.1, 0.25, 0.5, 1.0)}),
        tasks=("repeats", "next"),
    ),
    "item_walk": Family(
        lambda data, settings: ItemWalk(data=data, **settings),
        Search(
            {"item": 0.5, "neighbour": 0.25, "visitor": 0.5, "recency": 0.5, "is_distinct": True},
            {
                "recency": (*_RECENCY, 2.0),
                "visitor": (0.25, 0.5, 1.0),
                "neighbour": (0.0, 0.15, 0.25, 0.5),
                "item": (0.35, 0.5, 0.7, 1.0),
                "is_distinct": (True, False),
            },
        ),
        is_neighbour=True,
    ),
    "bm25_knn": Family(
        _similar_items("bm25"),
        Search(
            {"num_neighbours": 200, "k1": 1.2, "b": 0.75, "recency": 0.5},
            {"recency": _RECENCY, "k1": (0.1, 1.2, 5.0), "b": (0.25, 0.75, 1.0), "num_neighbours": (50, 200, 1000)},
        ),
        is_neighbour=True,
    ),
    "tfidf_knn": Family(
        _similar_items("tfidf"),
        Search({"num_neighbours": 200, "recency": 0.5}, {"recency": _RECENCY, "num_neighbours": (50, 200, 1000)}),
        is_neighbour=True,
    ),
    "session_knn": Family(
        lambda data, settings: SessionNeighbours(data=data, **settings),
        Search(_SESSION_BEGIN, _SESSION_SEARCH),
        is_neighbour=True,
    ),
    "stan": Family(
        lambda data, settings: SessionNeighbours(data=data, **settings),
        Search(
            _SESSION_BEGIN | {"timeline_half_life_days": 30.0, "position_decay": 5.0},
            {
                "timeline_half_life_days": (7.0, 30.0, None),
                "position_decay": (1.0, 5.0, None),
                "recency": (0.5, 1.0, 2.0),
                "num_neighbours": (100, 500, 1500),
                "length_power": (0.0, 0.5),
            },
        ),
        is_neighbour=True,
    ),
    "als": Family(
        lambda data, settings: fit_als(data, **settings),
        Search(
            {
                "factors": 64,
                "alpha": 40.0,
                "regularization": 0.01,
                "iterations": 10,
                "folds_in": True,
                "is_binary": True,
            },
            {
                "alpha": (1.0, 2.0, 5.0, 40.0, 160.0, 320.0),
                "factors": (32, 64, 128, 256),
                "regularization": (0.01, 10.0, 100.0),
                "is_binary": (True, False),
                "folds_in": (True, False),
            },
        ),
    ),
    "bpr": Family(
        lambda data, settings: fit_bpr(data, **settings),
        Search(
            {"factors": 64, "learning_rate": 0.1, "regularization": 0.01, "iterations": 100},
            {"learning_rate": (0.03, 0.1, 0.2), "iterations": (100, 300), "factors": (64, 128)},
        ),
        tasks=("new", "repeats"),  # it knows visitors of training only
    ),
    "ease": Family(
        _ease,
        Search(
            {"l2": 300.0, "max_items": 5000, "recency": 0.0},
            {"l2": (30.0, 100.0, 300.0, 1000.0, 3000.0), "recency": _RECENCY, "max_items": (5000, 12000)},
        ),
    ),
}
"""Every peer by name."""

LINKS = ("log", "linear")
HALF_LIVES_DAYS = (3.0, 7.0, 14.0, 30.0)
BETAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
TREND_BEGIN = {"link": "log", "half_life_days": 7.0, "beta": 0.5}
TREND_SEARCH = Search(TREND_BEGIN, {"half_life_days": HALF_LIVES_DAYS, "link": LINKS, "beta": BETAS})
"""The settings to try when the trend is added to a tuned peer; see `trend.TrendSettings`."""
