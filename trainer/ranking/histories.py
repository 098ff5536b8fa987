"""Histories: the timeline rows of each visitor before the moment of a recommendation.

Shapes: N rows, V histories, B histories of a chunk, H rows of a chunk's longest history, L entries of a chunk's longest
list.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from contract.timelines import TimelineRows
from trainer.ranking.lists import Lists


@dataclass(frozen=True, kw_only=True)
class Histories:
    """V histories. Each is a range of consecutive rows of a timeline; ranges may overlap."""

    item: np.ndarray
    """[N] int64 items of the rows of timelines; the rows of a timeline are in order of time."""
    event: np.ndarray
    """[N] int64 indices of event kinds."""
    timestamp_ms: np.ndarray
    """[N] int64 times of the events."""
    begins: np.ndarray
    """[V] int64: index of the first row of each history, its oldest row."""
    ends: np.ndarray
    """[V] int64: one past the index of the last row of each history."""

    @classmethod
    def from_rows(cls, rows: TimelineRows, begins: np.ndarray, ends: np.ndarray) -> "Histories":
        """Builds V histories from timelines.

        Args:
          rows: N rows of timelines.
          begins: [V] index of the first row of each history.
          ends: [V] index after the last row of each history.
        """
        return cls(item=rows.item, event=rows.event, timestamp_ms=rows.timestamp_ms, begins=begins, ends=ends)

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def lengths(self) -> np.ndarray:
        """[V] int64: number of rows of each history."""
        return self.ends - self.begins

    def take(self, indices: np.ndarray) -> "Histories":
        """Returns the histories at `indices`, in the order of `indices`."""
        return replace(self, begins=self.begins[indices], ends=self.ends[indices])

    def padded(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the items, the event kinds and the times (ms) of histories `begin` to `end` - 1.

        Each array is [B, H] int64. A history's oldest row comes first; padding with 0 is on the right.
        """
        lengths = self.lengths[begin:end]
        offset = np.arange(lengths.max(initial=0))
        is_entry = offset < lengths[:, None]
        row = (self.begins[begin:end, None] + offset)[is_entry]
        columns = []
        for column in (self.item, self.event, self.timestamp_ms):
            matrix = np.zeros(is_entry.shape, np.int64)
            matrix[is_entry] = column[row]
            columns.append(matrix)
        return columns[0], columns[1], columns[2]

    def distinct_items(self, begin: int, end: int, num_items: int) -> Lists:
        """Lists the distinct items of histories `begin` to `end` - 1 by first occurrence; skips items ≥ `num_items`."""
        lengths = self.lengths[begin:end]
        owner = np.repeat(np.arange(end - begin), lengths)
        begins = self.begins[begin:end]
        row = np.arange(len(owner)) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
        is_first = (self._previous_row[row] < begins[owner]) & (self.item[row] < num_items)
        return Lists.from_pairs(owner[is_first], self.item[row[is_first]], end - begin)

    @cached_property
    def _previous_row(self) -> np.ndarray:
        """[N] int64: index of the nearest earlier row with the same item, in any timeline; -1 if there is none."""
        order = np.argsort(self.item, kind="stable")
        is_repeat = self.item[order[1:]] == self.item[order[:-1]]
        previous = np.full(len(self.item), -1)
        previous[order[1:][is_repeat]] = order[:-1][is_repeat]
        return previous
