"""Evaluation cases and their relevant items, from the timelines of a split.

Shapes: N timeline rows, T timelines, V cases, P (case, relevant item) pairs, I items, E event kinds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from contract.schema import Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows, timeline_starts
from trainer.data.dataset import Dataset
from trainer.ranking.histories import Histories
from trainer.ranking.lists import Lists

HELD_OUT_SHARE = 0.2
"""Share of the validation split's visitors that are held out from the training of a second stage."""


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Evaluation cases. Each has a visitor, the moment of the recommendations, and the relevant items.

    There are two rankings: one hides the seen items (those of the history), the other shows them. If `hides_seen` is
    True, the primary ranking hides them, otherwise the secondary ranking does.
    """

    visitor: np.ndarray
    """[V] int64 vocabulary indices; unknown visitors share out-of-vocabulary indices."""
    timeline: np.ndarray
    """[V] int64 timeline of each case, ascending; all cases of a timeline have the same visitor."""
    history: Histories
    """V histories: the visitor's rows before the moment, including repeated and unknown items."""
    timestamp_ms: np.ndarray
    """[V] int64: the moment."""
    relevant: Lists
    """V lists of the relevant items in the primary ranking: distinct items of the vocabulary, ascending."""
    secondary_relevant: Lists
    """V lists of the relevant items in the secondary ranking; they include seen items if this ranking shows them."""
    kinds: tuple[str, ...]
    """E names: the event kinds that make an item relevant."""
    is_kind: np.ndarray
    """[P, E] bool: whether the relevant item had an event of the kind."""
    is_new: np.ndarray
    """[V] bool: True if no relevant item is a seen item."""
    hides_seen: bool
    """Whether the primary ranking hides seen items."""
    num_items: int
    """Number of items, I."""
    num_without_history: int
    """Number of cases that were skipped because they have no history."""
    num_without_relevant: int
    """Number of cases that were skipped because they have no relevant item in the vocabulary."""
    unknown_item_share: float
    """Share of the target rows, in [0, 1], with an item outside the vocabulary, which no system can rank."""

    def __len__(self) -> int:
        return len(self.visitor)

    @property
    def rankings(self) -> tuple[str, str]:
        """The name of the primary ranking, then that of the secondary ranking."""
        return ("seen_hidden", "seen_shown") if self.hides_seen else ("seen_shown", "seen_hidden")

    @property
    def num_visitors(self) -> int:
        """Number of visitors with at least one case."""
        return len(np.unique(self.timeline))

    def sample(self, size: int, *, seed: int) -> "Cases":
        """Returns all cases of random visitors, in their original order.

        Draws at least one visitor, and stops before there are more than `size` cases.
        """
        if size >= len(self):
            return self
        _, visitor, lengths = np.unique(self.timeline, return_inverse=True, return_counts=True)
        drawn = np.random.default_rng(seed).permutation(len(lengths))
        num_drawn = max(int(np.searchsorted(np.cumsum(lengths[drawn]), size, side="right")), 1)
        return self.take(np.flatnonzero(np.isin(visitor, drawn[:num_drawn])))

    def sample_cases(self, size: int, *, seed: int) -> "Cases":
        """Returns at most `size` random cases, in their original order."""
        if size >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:size]))

    def split_visitors(self, share: float, *, seed: int) -> tuple["Cases", "Cases"]:
        """Splits the cases by visitor; each visitor is in the second part with the probability `share`.

        A visitor's part depends only on the seed and the number of the timeline, so it is the same in every protocol.
        """
        draws = np.random.default_rng(seed).random(self.timeline.max(initial=-1) + 1)
        is_drawn = draws[self.timeline] < share
        return self.take(np.flatnonzero(~is_drawn)), self.take(np.flatnonzero(is_drawn))

    def take(self, kept: np.ndarray) -> "Cases":
        """Returns the cases at the indices `kept`, which must be ascending."""
        return replace(
            self,
            visitor=self.visitor[kept],
            timeline=self.timeline[kept],
            history=self.history.take(kept),
            timestamp_ms=self.timestamp_ms[kept],
            relevant=self.relevant.take(kept),
            secondary_relevant=self.secondary_relevant.take(kept),
            is_kind=self.is_kind[np.isin(self.relevant.owner, kept)],
            is_new=self.is_new[kept],
        )


Kinds = Mapping[str, int]
"""The event kinds that make an item relevant: the name of each and its index in rows."""


def returning_visitors(rows: TimelineRows, num_items: int, kinds: Kinds) -> Cases:
    """Returns one case for each visitor who has rows before the split and a new item in the split.

    The history is the visitor's rows before the split. All cases have the time of the earliest target row of the split.

    The primary ranking hides seen items, so only new items are relevant. In the secondary ranking, all known items of
    the visitor's target rows are relevant. Rows with a kind outside `kinds` make no item relevant.
    """
    timeline = np.cumsum(rows.position == 0) - 1  # [N]
    visitor = rows.visitor[timeline_starts(rows.position)]  # [T]
    is_before, is_after = rows.is_target == 0, (rows.is_target == 1) & np.isin(rows.event, list(kinds.values()))
    has_history = np.bincount(timeline[is_before], minlength=len(visitor)) > 0  # [T]
    has_targets = np.bincount(timeline[is_after], minlength=len(visitor)) > 0  # [T]
    is_returning = has_history & has_targets
    is_known = rows.item < num_items
    is_target = is_after & is_returning[timeline]

    pair = timeline * num_items + rows.item  # known items only: one number for each (timeline, item) pair
    touched = np.unique(pair[is_target & is_known])
    new = np.setdiff1d(touched, pair[is_before & is_known])  # [P], sorted, distinct
    has_relevant = np.zeros(len(visitor), bool)
    has_relevant[new // num_items] = True
    kept = np.flatnonzero(has_relevant)  # [V] timelines
    bounds = np.searchsorted(timeline[is_before], np.arange(len(visitor) + 1))
    is_kind = [np.isin(new, pair[is_target & is_known & (rows.event == kind)]) for kind in kinds.values()]
    return Cases(
        visitor=visitor[kept],
        timeline=kept,
        history=Histories.from_rows(rows[is_before], bounds[kept], bounds[kept + 1]),
        timestamp_ms=np.full(len(kept), rows.timestamp_ms[rows.is_target == 1].min(initial=np.iinfo(np.int64).max)),
        relevant=Lists.from_pairs(new // num_items, new % num_items, len(visitor)).take(kept),
        secondary_relevant=Lists.from_pairs(touched // num_items, touched % num_items, len(visitor)).take(kept),
        kinds=tuple(kinds),
        is_kind=np.stack(is_kind, axis=1),
        is_new=np.ones(len(kept), bool),
        hides_seen=True,
        num_items=num_items,
        num_without_history=int((has_targets & ~has_history).sum()),
        num_without_relevant=int((is_returning & ~has_relevant).sum()),
        unknown_item_share=float((is_target & ~is_known).sum() / max(is_target.sum(), 1)),
    )


def next_items(rows: TimelineRows, num_items: int, kinds: Kinds) -> Cases:
    """Returns one case for each target row of a known item, if the visitor has earlier rows.

    The row's item is relevant, and the visitor's earlier rows are the history. The primary ranking shows seen items.
    Rows with a kind outside `kinds` have no case, but are part of histories.
    """
    timeline = np.cumsum(rows.position == 0) - 1  # [N]
    codes = np.array(list(kinds.values()))
    is_target, has_history = (rows.is_target == 1) & np.isin(rows.event, codes), rows.position > 0
    is_known = rows.item < num_items
    row = np.flatnonzero(is_target & has_history & is_known)  # [V]
    # a row is a return if its (timeline, item) pair occurred before
    pair = timeline * (rows.item.max(initial=0) + 1) + rows.item
    is_first = np.zeros(len(rows), bool)
    is_first[np.unique(pair, return_index=True)[1]] = True
    relevant = Lists(rows.item[row], np.arange(len(row) + 1))
    num_possible = int((is_target & has_history).sum())
    return Cases(
        visitor=rows.visitor[row],
        timeline=timeline[row],
        history=Histories.from_rows(rows, row - rows.position[row], row),
        timestamp_ms=rows.timestamp_ms[row],
        relevant=relevant,
        secondary_relevant=relevant,
        kinds=tuple(kinds),
        is_kind=rows.event[row][:, None] == codes,
        is_new=is_first[row],
        hides_seen=False,
        num_items=num_items,
        num_without_history=int((is_target & ~has_history).sum()),
        num_without_relevant=num_possible - len(row),
        unknown_item_share=(num_possible - len(row)) / max(num_possible, 1),
    )


Protocol = Callable[[TimelineRows, int, Kinds], Cases]
"""Returns cases, given a split's timelines, the number of items and the event kinds that make an item relevant."""


def build_cases(
    dataset: Dataset, split: Split, protocol: Protocol = returning_visitors, kinds: Sequence[str] = ()
) -> Cases:
    """Builds the cases of a split.

    Args:
      split: validation or test.
      protocol: `returning_visitors` or `next_items`.
      kinds: event kinds that make an item relevant; empty: all.

    Raises:
      ContractError: the dataset has no such split.
    """
    codes = {kind: code for code, kind in enumerate(dataset.manifest.event_kinds) if not kinds or kind in kinds}
    return protocol(read_timelines(dataset.shards(split)), dataset.num_items, codes)


def most_common_cases(dataset: Dataset, split: Split, kinds: Sequence[str] = ()) -> Cases:
    """Returns the cases of `next_items` if they have over ten times as many visitors as those of `returning_visitors`.

    Otherwise, returns those of `returning_visitors`.

    Raises:
      ContractError: the dataset has no such split.
    """
    returning, following = (build_cases(dataset, split, of, kinds) for of in (returning_visitors, next_items))
    return following if following.num_visitors > 10 * returning.num_visitors else returning
