"""Many lists of different lengths, kept end to end.

Shapes: V lists, N entries in all, B lists of a chunk, L the longest list of a chunk.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lists:
    """V lists of integers.

    values   [N] int64: the entries, list after list
    starts   [V + 1] int64: list v is values[starts[v]:starts[v + 1]]
    """

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def from_pairs(cls, owner: np.ndarray, values: np.ndarray, num_lists: int) -> "Lists":
        """Lists out of entries [N] and the list each belongs to, [N], non-decreasing."""
        return cls(values, np.searchsorted(owner, np.arange(num_lists + 1)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """[V] int64."""
        return np.diff(self.starts)

    @property
    def owner(self) -> np.ndarray:
        """[N] int64: the list that each entry belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, places: np.ndarray) -> "Lists":
        """The lists at `places`, in that order."""
        lengths = self.lengths[places]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        # entry n of the result lies n - starts[its list] behind the begin of its list in the original
        entries = np.arange(starts[-1]) + np.repeat(self.starts[places] - starts[:-1], lengths)
        return Lists(self.values[entries], starts)

    def padded(self, begin: int, end: int) -> np.ndarray:
        """[B, L] int64: lists begin … end-1, filled from the left, 0 behind the end of a list."""
        lengths = self.lengths[begin:end]
        is_entry = np.arange(lengths.max(initial=0)) < lengths[:, None]
        matrix = np.zeros(is_entry.shape, np.int64)
        matrix[is_entry] = self.values[self.starts[begin] : self.starts[end]]
        return matrix
