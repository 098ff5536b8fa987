"""Session kNN: scores items by the nearest training timelines (V-SKNN, and STAN by Garg et al., SIGIR 2019).

Shapes: B requests, T training timelines, I items, E (request, timeline) pairs.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from benchmarks.peers.interface import PeerData, Requests, fill_up, history_weights
from benchmarks.peers.items import dense_product
from trainer.data.trend import DAY_MS
from trainer.models.item_products import largest


@dataclass(frozen=True, kw_only=True)
class SessionNeighbours:
    """V-SKNN (Ludewig and Jannach, UMUAI 2018), or STAN (Garg et al., SIGIR 2019).

    It is STAN if `timeline_half_life_days` and `position_decay` are given.
    """

    data: PeerData
    recency: float
    """Exponent of `history_weights`; with 0, the age of a row has no effect."""
    num_neighbours: int
    """Number of nearest timelines that are kept."""
    length_power: float
    """The similarity of a timeline of n items is divided by n to this power."""
    idf_power: float
    """The score of an item in n of T timelines is multiplied by log((T + 1) / n) to this power."""
    timeline_half_life_days: float | None = None
    """Days over which the similarity of a timeline halves; None: age has no effect."""
    position_decay: float | None = None
    """Number of rows over which an item's weight decays by the factor e; None: no decay. Rows are counted from the
    latest item that the timeline shares with the history.
    """

    def scores(self, requests: Requests) -> np.ndarray:
        timelines, counts = self.data.timelines, self.data.counts
        history = history_weights(requests, len(counts), self.recency, is_distinct=True)
        near = largest(
            (history @ timelines.baskets.T @ sp.diags(self._timeline_weights())).tocsr(), self.num_neighbours
        )
        if self.position_decay is None:
            reached = dense_product(near, timelines.baskets)
        else:
            reached = self._near_shared_item(near, requests)
        item_timelines = np.bincount(timelines.baskets.indices, minlength=len(counts))
        idf = np.log((timelines.baskets.shape[0] + 1) / np.maximum(item_timelines, 1))
        return fill_up(reached * (idf**self.idf_power).astype(np.float32), counts)

    def _timeline_weights(self) -> np.ndarray:
        """Returns float32 weights [T] of the timelines; a timeline that is longer or ended earlier weighs less."""
        timelines = self.data.timelines
        weights = np.maximum(np.diff(timelines.baskets.indptr), 1.0) ** -self.length_power
        if self.timeline_half_life_days is not None:
            age_days = (timelines.end_ms.max() - timelines.end_ms) / DAY_MS
            # bounded, or float32 would lose the oldest timelines
            weights = weights * np.exp2(-np.minimum(age_days / self.timeline_half_life_days, 60))
        return weights.astype(np.float32)

    def _near_shared_item(self, near: sp.csr_matrix, requests: Requests) -> np.ndarray:
        """Returns scores [B, I] from the nearest timelines; `near` [B, T] has the weights of these timelines."""
        positions, num_items = self.data.timelines.positions, len(self.data.counts)
        reached = np.zeros((near.shape[0], num_items), np.float32)
        age = np.full(num_items, np.inf)
        for query in range(near.shape[0]):
            items = requests.history[query, : requests.lengths[query]]
            items = items[items < num_items]
            age[items] = np.arange(len(items), 0, -1)  # for a repeated item, its latest row
            pairs = slice(near.indptr[query], near.indptr[query + 1])
            timeline = positions[near.indices[pairs]]
            if timeline.nnz:
                weight = near.data[pairs].repeat(np.diff(timeline.indptr)) * self._decay(timeline, age)
                reached[query] = np.bincount(timeline.indices, weight, minlength=num_items)
            age[items] = np.inf
        return reached

    def _decay(self, timeline: sp.csr_matrix, age: np.ndarray) -> np.ndarray:
        """Returns a weight for each item of each timeline. It decreases with the distance from the timeline's anchor.

        `timeline` [K, I] has the positions of the items in K timelines. The anchor of a timeline is its item with the
        lowest `age` [I]. Ages count back from the end of the visitor's history; items outside it have infinite age.
        """
        assert self.position_decay is not None
        lengths, age_of = np.diff(timeline.indptr), age[timeline.indices]
        # each row shares an item with the history, and no two items have the same age
        newest = np.minimum.reduceat(age_of, timeline.indptr[:-1]).repeat(lengths)
        anchor = timeline.data[age_of == newest].repeat(lengths)
        return np.exp(-np.abs(timeline.data - anchor) / self.position_decay)
