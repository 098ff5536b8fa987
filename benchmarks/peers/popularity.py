"""Peers that rank by counts: popular and trending items, and the items that a visitor chose most often."""

from dataclasses import dataclass

import numpy as np

from benchmarks.peers.interface import PeerData, Requests, fill_up, history_weights


@dataclass(frozen=True)
class Popular:
    """Ranks items by their training events."""

    data: PeerData

    def scores(self, requests: Requests) -> np.ndarray:
        """[B, I] float32."""
        return np.tile(self.data.counts.astype(np.float32), (len(requests.visitor), 1))


@dataclass(frozen=True, kw_only=True)
class Trending:
    """Ranks items by their recent events before each request."""

    data: PeerData
    half_life_days: float
    """Half-life of the weight of an event."""

    def scores(self, requests: Requests) -> np.ndarray:
        """[B, I] float32."""
        moments, row = np.unique(requests.timestamp_ms, return_inverse=True)
        return np.stack([self.data.events.recent(self.half_life_days, int(moment)) for moment in moments])[row]


@dataclass(frozen=True, kw_only=True)
class OwnFrequency:
    """Ranks the items of a visitor's history by how often and how recently the visitor chose them, then popular items.

    Strong where visitors repeat their choices (Hu et al., SIGIR 2020: "personalised top frequency").
    """

    data: PeerData
    recency: float
    """Power of the age of a row."""

    def scores(self, requests: Requests) -> np.ndarray:
        """[B, I] float32."""
        counts = self.data.counts
        return fill_up(history_weights(requests, len(counts), self.recency), counts)
