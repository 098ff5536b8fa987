"""Who is ranked for and what counts as right: evaluation cases out of the timelines of a split.

Shapes: N timeline rows, T timelines, V cases, P (case, relevant item) pairs, I items, E kinds of events.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from contract.schema import EVENT_KINDS, Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows, timeline_starts
from trainer.data.dataset import Dataset
from trainer.ranking.histories import Histories
from trainer.ranking.lists import Lists


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Moments at which somebody is recommended something, and what he then turned to.

    visitor                  [V] int64 vocabulary indices; unknown visitors share out-of-vocabulary ones
    timeline                 [V] int64, ascending: cases of one number are of one visitor and not independent
    history                  V histories: the rows before the moment, repetitions and unknown items included
    timestamp_ms             [V] int64: the moment
    relevant                 V lists of what is to be found: distinct items of the vocabulary, ascending
    relevant_otherwise       the same for rankings with the history treated the other way: shown, it can be found again
    is_kind                  [P, E] bool: whether the relevant item had such an event
    is_new                   [V] bool: nothing relevant is in the history, so that it can be found while that is hidden
    hides_seen               whether the items of the history are hidden
    num_items                I
    num_without_history      left out: nothing before the moment
    num_without_relevant     left out: nothing to be found, or only items unknown to the vocabulary
    unknown_item_share       of the rows that could count: those whose item the vocabulary lacks, so that no system can
                             rank it, in [0, 1]
    """

    visitor: np.ndarray
    timeline: np.ndarray
    history: Histories
    timestamp_ms: np.ndarray
    relevant: Lists
    relevant_otherwise: Lists
    is_kind: np.ndarray
    is_new: np.ndarray
    hides_seen: bool
    num_items: int
    num_without_history: int
    num_without_relevant: int
    unknown_item_share: float

    def __len__(self) -> int:
        return len(self.visitor)

    @property
    def num_visitors(self) -> int:
        """Visitors with a case."""
        return len(np.unique(self.timeline))

    def sample(self, size: int, *, seed: int) -> "Cases":
        """The cases of visitors drawn without replacement, in their order: at most `size`, but of one visitor at least.

        All the cases of a visitor or none, so that visitors weigh as they do in the whole.
        """
        if size >= len(self):
            return self
        _, visitor, lengths = np.unique(self.timeline, return_inverse=True, return_counts=True)
        drawn = np.random.default_rng(seed).permutation(len(lengths))
        num_negatives = max(int(np.searchsorted(np.cumsum(lengths[drawn]), size, side="right")), 1)
        return self.take(np.flatnonzero(np.isin(visitor, drawn[:num_negatives])))

    def take(self, kept: np.ndarray) -> "Cases":
        """The cases at the places `kept`, ascending."""
        return replace(
            self,
            visitor=self.visitor[kept],
            timeline=self.timeline[kept],
            history=self.history.take(kept),
            timestamp_ms=self.timestamp_ms[kept],
            relevant=self.relevant.take(kept),
            relevant_otherwise=self.relevant_otherwise.take(kept),
            is_kind=self.is_kind[np.isin(self.relevant.owner, kept)],
            is_new=self.is_new[kept],
        )


def returning_visitors(rows: TimelineRows, num_items: int) -> Cases:
    """A case for each visitor with a row before the cut who touches a new item after it.

    The rows that are targets lie after the cut, the others before it; the moment is that of the first target of all.
    Relevant are the distinct new items that he touches after the cut; where seen items are shown, all that he touches.
    """
    timeline = np.cumsum(rows.position == 0) - 1  # [N]
    visitor = rows.visitor[timeline_starts(rows.position)]  # [T]
    is_before, is_after = rows.is_target == 0, rows.is_target == 1
    has_history = np.bincount(timeline[is_before], minlength=len(visitor)) > 0  # [T]
    has_targets = np.bincount(timeline[is_after], minlength=len(visitor)) > 0  # [T]
    is_returning = has_history & has_targets
    is_known = rows.item < num_items
    counts = is_after & is_returning[timeline]

    pair = timeline * num_items + rows.item  # of known items only: one number a (timeline, item) pair
    touched = np.unique(pair[counts & is_known])
    new = np.setdiff1d(touched, pair[is_before & is_known])  # [P], sorted, distinct
    has_relevant = np.zeros(len(visitor), bool)
    has_relevant[new // num_items] = True
    kept = np.flatnonzero(has_relevant)  # [V] timelines
    bounds = np.searchsorted(timeline[is_before], np.arange(len(visitor) + 1))
    kinds = [np.isin(new, pair[counts & is_known & (rows.event == kind)]) for kind in range(len(EVENT_KINDS))]
    return Cases(
        visitor=visitor[kept],
        timeline=kept,
        history=Histories.from_rows(rows[is_before], bounds[kept], bounds[kept + 1]),
        timestamp_ms=np.full(len(kept), rows.timestamp_ms[is_after].min(initial=np.iinfo(np.int64).max)),
        relevant=Lists.from_pairs(new // num_items, new % num_items, len(visitor)).take(kept),
        relevant_otherwise=Lists.from_pairs(touched // num_items, touched % num_items, len(visitor)).take(kept),
        is_kind=np.stack(kinds, axis=1),
        is_new=np.ones(len(kept), bool),
        hides_seen=True,
        num_items=num_items,
        num_without_history=int((has_targets & ~has_history).sum()),
        num_without_relevant=int((is_returning & ~has_relevant).sum()),
        unknown_item_share=float((counts & ~is_known).sum() / max(counts.sum(), 1)),
    )


def next_items(rows: TimelineRows, num_items: int) -> Cases:
    """A case for each target row that has rows before it: its item is to be found, given all of those.

    Visitors come back to items, so those of the history stay candidates.
    """
    timeline = np.cumsum(rows.position == 0) - 1  # [N]
    is_target, has_history = rows.is_target == 1, rows.position > 0
    is_known = rows.item < num_items
    place = np.flatnonzero(is_target & has_history & is_known)  # [V]
    # a row whose (timeline, item) pair has come before is a return
    pair = timeline * (rows.item.max(initial=0) + 1) + rows.item
    is_first = np.zeros(len(rows), bool)
    is_first[np.unique(pair, return_index=True)[1]] = True
    relevant = Lists(rows.item[place], np.arange(len(place) + 1))
    num_counted = int((is_target & has_history).sum())
    return Cases(
        visitor=rows.visitor[place],
        timeline=timeline[place],
        history=Histories.from_rows(rows, place - rows.position[place], place),
        timestamp_ms=rows.timestamp_ms[place],
        relevant=relevant,
        relevant_otherwise=relevant,
        is_kind=rows.event[place][:, None] == np.arange(len(EVENT_KINDS)),
        is_new=is_first[place],
        hides_seen=False,
        num_items=num_items,
        num_without_history=int((is_target & ~has_history).sum()),
        num_without_relevant=num_counted - len(place),
        unknown_item_share=(num_counted - len(place)) / max(num_counted, 1),
    )


Protocol = Callable[[TimelineRows, int], Cases]
"""Timelines of a split and the number of items to cases."""


def build_cases(dataset: Dataset, split: Split, protocol: Protocol = returning_visitors) -> Cases:
    """The cases of a split by a protocol: `returning_visitors` or `next_items`.

    Raises:
      ContractError: the dataset has no such split.
    """
    return protocol(read_timelines(dataset.shards(split)), dataset.num_items)
