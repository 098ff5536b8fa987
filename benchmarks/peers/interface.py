"""What a peer gets (training data and requests), and helpers that several peers share.

Shapes: B requests, H longest history, T training timelines, V visitors and I items of the vocabularies, N events.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp

from benchmarks.peers.trend import EventLog, read_events
from contract.schema import Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows, timeline_starts
from trainer.data.dataset import Dataset
from trainer.data.interactions import read_interactions

_NO_PREFERENCE = 1e-6  # weight of popularity, small enough to order only items with the same score


class Requests(NamedTuple):
    """B visitors for whom to rank the catalogue."""

    visitor: np.ndarray
    """[B] vocabulary indices; an index of V or more is an unknown visitor."""
    history: np.ndarray
    """[B, H] item indices, oldest first; the entries after the first `lengths` are padding."""
    lengths: np.ndarray
    """[B] lengths of the histories."""
    timestamp_ms: np.ndarray
    """[B] times of the requests."""


class Peer(Protocol):
    """A fitted recommender that Cartwheel is compared with."""

    def scores(self, requests: Requests) -> np.ndarray:
        """Returns finite float32 scores [B, I]; higher is better."""


@dataclass(frozen=True, eq=False)
class PeerData:
    """The events of a dataset in the forms that peers need; each form is computed at its first use.

    Instances are hashed by identity.
    """

    dataset: Dataset

    @cached_property
    def counts(self) -> np.ndarray:
        """[I] number of training events of each item."""
        return self.dataset.item_counts

    @cached_property
    def timelines(self) -> "TrainingTimelines":
        return read_training_timelines(self.dataset)

    @cached_property
    def interactions(self) -> sp.csr_matrix:
        """[V, I] number of training events of each visitor-item pair."""
        return read_interactions(self.dataset, (1.0,) * len(self.dataset.manifest.event_kinds))

    @cached_property
    def events(self) -> EventLog:
        """The events of all splits. For a request, a peer may use only earlier events."""
        return read_events(self.dataset)


@dataclass(frozen=True)
class TrainingTimelines:
    """T timelines as sparse matrices. An item that repeats in a timeline is stored once."""

    baskets: sp.csr_matrix
    """[T, I] float32: 1 if the timeline contains the item."""
    positions: sp.csr_matrix
    """[T, I] float32: position of the item's last event in the timeline, from 1."""
    end_ms: np.ndarray
    """[T] times of the last events."""


def read_training_timelines(dataset: Dataset) -> TrainingTimelines:
    """Reads the timelines of the training split."""
    parts = []
    for shard in dataset.shards(Split.TRAIN):
        rows = read_timelines([shard])
        parts.append(rows[rows.is_target == 1])
    return timelines_of(TimelineRows.concatenate(parts), dataset.num_items)


def timelines_of(rows: TimelineRows, num_items: int) -> TrainingTimelines:
    """Builds sparse matrices from the rows of whole timelines; skips item indices of `num_items` or more."""
    timeline = np.cumsum(rows.position == 0) - 1
    is_last = np.append(rows.position[1:] == 0, True)[: len(rows)]
    known = np.flatnonzero(rows.item < num_items)
    pair = (timeline * num_items + rows.item)[known]
    _, from_end = np.unique(pair[::-1], return_index=True)
    latest = known[len(known) - 1 - from_end]
    shape = (len(timeline_starts(rows.position)), num_items)
    entry = (timeline[latest], rows.item[latest])
    positions = sp.csr_matrix((rows.position[latest] + 1.0, entry), shape, np.float32)
    baskets = sp.csr_matrix((np.ones(len(latest), np.float32), entry), shape)
    return TrainingTimelines(baskets, positions, rows.timestamp_ms[is_last])


def history_weights(requests: Requests, num_items: int, recency: float, *, is_distinct: bool = False) -> sp.csr_matrix:
    """Returns float32 weights [B, I] of the items in each history.

    A history's row weighs (1 + number of later rows) ** -`recency`. A repeated item gets the weight of its latest row
    if `is_distinct`, otherwise the sum of its weights. Item indices of `num_items` or more are skipped.
    """
    age = requests.lengths[:, None] - 1 - np.arange(requests.history.shape[1])
    query, column = np.nonzero((age >= 0) & (requests.history < num_items))
    item = requests.history[query, column]
    if is_distinct:
        _, from_end = np.unique((query * num_items + item)[::-1], return_index=True)
        latest = len(item) - 1 - from_end
        query, column, item = query[latest], column[latest], item[latest]
    weight = (1.0 + age[query, column]) ** -recency
    weights = sp.csr_matrix((weight.astype(np.float32), (query, item)), (len(requests.lengths), num_items))
    weights.sum_duplicates()
    return weights


def fill_up(scores: sp.csr_matrix | np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Replaces scores [B, I] of at most 0 by negative ones, higher for more popular items; returns float32.

    `counts` [I] has the number of training events of each item.
    """
    fallback = (counts / (counts.max(initial=0) + 1.0) - 1).astype(np.float32)
    dense = np.ascontiguousarray(scores if isinstance(scores, np.ndarray) else scores.toarray(), np.float32)
    np.copyto(dense, fallback, where=dense <= 0)
    return dense


def break_ties(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Breaks ties between scores [B, I] by popularity; returns float32.

    `counts` [I] has the number of training events of each item.
    """
    return (scores + _NO_PREFERENCE * counts / (counts.max(initial=0) + 1.0)).astype(np.float32)
