"""Peers that rank by counts: popular and trending items, and the items that a visitor chose most often."""

from dataclasses import dataclass

import numpy as np

from benchmarks.peers.interface import PeerData, Requests, fill_up, history_weights


@dataclass(frozen=True)
class Popular:
    """Ranks items by their number of training events."""

    data: PeerData

    def scores(self, requests: Requests) -> np.ndarray:
        """Returns float32 scores [B, I]."""
        return np.tile(self.data.counts.astype(np.float32), (len(requests.visitor), 1))


@dataclass(frozen=True, kw_only=True)
class Trending:
    """Ranks items by their events before each request. Recent events weigh more than older ones."""

    data: PeerData
    half_life_days: float
    """Half-life of the weight of an event."""

    def scores(self, requests: Requests) -> np.ndarray:
        """Returns float32 scores [B, I]."""
        moments, row = np.unique(requests.timestamp_ms, return_inverse=True)
        return np.stack([self.data.events.recent(self.half_life_days, int(moment)) for moment in moments])[row]


@dataclass(frozen=True, kw_only=True)
class OwnFrequency:
    """Ranks the items of a history by how often and how recently they occur; all other items follow, by popularity.

    This peer is strong if visitors choose the same items again (Hu et al., SIGIR 2020: "personalised top frequency").
    """

    data: PeerData
    recency: float
    """Exponent of `history_weights`; with 0, the age of a row has no effect."""

    def scores(self, requests: Requests) -> np.ndarray:
        """Returns float32 scores [B, I]."""
        counts = self.data.counts
        return fill_up(history_weights(requests, len(counts), self.recency), counts)
