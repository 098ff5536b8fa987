"""Lists of different lengths in one array.

Shapes: V lists, N entries in all, B lists of a chunk, L entries of the chunk's longest list.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lists:
    """V lists of integers."""

    values: np.ndarray
    """[N] int64: the entries of all lists, in order of the lists."""
    starts: np.ndarray
    """[V + 1] int64: list v is values[starts[v]:starts[v + 1]]."""

    @classmethod
    def from_pairs(cls, owner: np.ndarray, values: np.ndarray, num_lists: int) -> "Lists":
        """Builds V lists from N entries.

        Args:
          owner: [N] index of the list that each entry belongs to; must be non-decreasing.
          values: [N] the entries.
          num_lists: the number of lists, V; lists without entries are empty.
        """
        return cls(values, np.searchsorted(owner, np.arange(num_lists + 1)))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """[V] int64: number of entries of each list."""
        return np.diff(self.starts)

    @property
    def owner(self) -> np.ndarray:
        """[N] int64: index of the list that each entry belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, indices: np.ndarray) -> "Lists":
        """Returns the lists at `indices`, in the order of `indices`."""
        lengths = self.lengths[indices]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        # shifts each list from its start in the result to its start in the original
        entries = np.arange(starts[-1]) + np.repeat(self.starts[indices] - starts[:-1], lengths)
        return Lists(self.values[entries], starts)

    def padded(self, begin: int, end: int) -> np.ndarray:
        """Returns [B, L] int64: lists `begin` to `end` - 1, padded with 0 on the right; L is the longest length."""
        lengths = self.lengths[begin:end]
        is_entry = np.arange(lengths.max(initial=0)) < lengths[:, None]
        matrix = np.zeros(is_entry.shape, np.int64)
        matrix[is_entry] = self.values[self.starts[begin] : self.starts[end]]
        return matrix
