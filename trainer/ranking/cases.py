"""Who is ranked for and what counts as right: evaluation cases out of the timelines of a split.

Shapes: N timeline rows, T timelines, V visitors with a case, I items.
"""

from dataclasses import dataclass, replace

import numpy as np

from contract.schema import Split
from contract.shards import read_timelines
from contract.timelines import TimelineRows, timeline_starts
from trainer.dataset import Dataset
from trainer.ranking.lists import Lists


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Visitors with what they did before the cut and the new items they touched after it.

    visitor                  [V] int64 vocabulary indices; unknown visitors share out-of-vocabulary ones
    history                  V lists of the items before the cut, oldest first, repetitions and unknown items included
    relevant                 V lists of what is to be found: distinct items of the vocabulary, ascending
    num_items                I
    num_new_visitors         left out: no row before the cut
    num_without_relevant     left out: nothing but items of their history, or items unknown to the vocabulary
    unknown_item_share       of the rows of visitors with a history: those whose item the vocabulary lacks, so that no
                             system can rank it, in [0, 1]
    """

    visitor: np.ndarray
    history: Lists
    relevant: Lists
    num_items: int
    num_new_visitors: int
    num_without_relevant: int
    unknown_item_share: float

    def __len__(self) -> int:
        return len(self.visitor)

    def sample(self, size: int, *, seed: int) -> "Cases":
        """At most `size` of the cases, drawn without replacement, in their order."""
        if size >= len(self):
            return self
        kept = np.sort(np.random.default_rng(seed).choice(len(self), size, replace=False))
        return replace(
            self, visitor=self.visitor[kept], history=self.history.take(kept), relevant=self.relevant.take(kept)
        )


def build_cases(dataset: Dataset, split: Split) -> Cases:
    """The returning visitors of a split: those with a row before the cut who touch a new item after it.

    Raises:
      ContractError: the dataset has no such split.
    """
    return returning_visitors(read_timelines(dataset.shards(split)), dataset.num_items)


def returning_visitors(rows: TimelineRows, num_items: int) -> Cases:
    """Cases out of timelines, whose `is_target` rows lie after the cut and whose other rows before it."""
    timeline = np.cumsum(rows.position == 0) - 1  # [N]
    visitor = rows.visitor[timeline_starts(rows.position)]  # [T]
    is_before, is_after = rows.is_target == 0, rows.is_target == 1
    has_history = np.bincount(timeline[is_before], minlength=len(visitor)) > 0  # [T]
    has_targets = np.bincount(timeline[is_after], minlength=len(visitor)) > 0  # [T]
    is_returning = has_history & has_targets
    is_known = rows.item < num_items
    counts = is_after & is_returning[timeline]

    pair = timeline * num_items + rows.item  # of known items only: one number a (timeline, item) pair
    new = np.setdiff1d(pair[counts & is_known], pair[is_before & is_known])  # sorted, distinct
    has_relevant = np.zeros(len(visitor), bool)
    has_relevant[new // num_items] = True
    kept = np.flatnonzero(has_relevant)  # [V] timelines
    return Cases(
        visitor=visitor[kept],
        history=Lists.from_pairs(timeline[is_before], rows.item[is_before], len(visitor)).take(kept),
        relevant=Lists.from_pairs(new // num_items, new % num_items, len(visitor)).take(kept),
        num_items=num_items,
        num_new_visitors=int((has_targets & ~has_history).sum()),
        num_without_relevant=int((is_returning & ~has_relevant).sum()),
        unknown_item_share=float((counts & ~is_known).sum() / max(counts.sum(), 1)),
    )
