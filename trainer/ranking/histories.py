"""What visitors had done when they were to be recommended something.

Shapes: N rows, V histories, B histories of a chunk, H the longest history of a chunk.
"""

from dataclasses import dataclass, replace

import numpy as np

from contract.timelines import TimelineRows


@dataclass(frozen=True, kw_only=True)
class Histories:
    """V histories, each a stretch of one log of rows: a timeline's many moments share its rows instead of copying them.

    item, event, timestamp_ms   [N] int64: rows, each timeline in order of time
    begins, ends                [V] int64: history v is the rows begins[v] … ends[v] - 1, oldest first
    """

    item: np.ndarray
    event: np.ndarray
    timestamp_ms: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    @classmethod
    def from_rows(cls, rows: TimelineRows, begins: np.ndarray, ends: np.ndarray) -> "Histories":
        """Histories out of rows [N] and the begins and ends [V] of the stretches."""
        return cls(item=rows.item, event=rows.event, timestamp_ms=rows.timestamp_ms, begins=begins, ends=ends)

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def lengths(self) -> np.ndarray:
        """[V] int64."""
        return self.ends - self.begins

    def take(self, places: np.ndarray) -> "Histories":
        """The histories at `places`, in that order."""
        return replace(self, begins=self.begins[places], ends=self.ends[places])

    def padded(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Items, events and timestamps [B, H] of histories begin … end-1, filled from the left, 0 behind an end."""
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
