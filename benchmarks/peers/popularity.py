"""Peers that rank by counts: popular and trending items, and the items that a visitor chose most often."""

from dataclasses import dataclass

import numpy as np

from benchmarks.peers.interface import PeerData, Requests, fill_up, history_weights


@dataclass(frozen=True)
class Popular:
    """Ranks items by their number of training events."""

    data: PeerData

    def scores(self, requests: Requests) -> np.ndarray:
        return np.tile(self.data.counts.astype(np.float32), (len(requests.visitor), 1))


@dataclass(frozen=True, kw_only=True)
class Trending:
    """Ranks items by their events before each request; recent events weigh more."""

    data: PeerData
    half_life_days: float
    """Half-life of the weight of an event."""

    def scores(self, requests: Requests) -> np.ndarray:
        moments, row = np.unique(requests.timestamp_ms, return_inverse=True)
        return np.stack([self.data.events.recent(self.half_life_days, int(moment)) for moment in moments])[row]


@dataclass(frozen=True, kw_only=True)
class OwnFrequency:
    """Ranks the history's items by frequency and recency, then all other items by popularity.

    See "personalised top frequency" (Hu et al., SIGIR 2020).
    """

    data: PeerData
    recency: float
    """Exponent of `history_weights`; with 0, the age of a row has no effect."""

    def scores(self, requests: Requests) -> np.ndarray:
        counts = self.data.counts
        return fill_up(history_weights(requests, len(counts), self.recency), counts)
