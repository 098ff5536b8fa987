"""Divides the training rows of an epoch into streams of equal length, and plans the reading of windows.

The blocks of all shards get an order that depends on (seed, epoch). A stream is a range of the training rows in this
order. Each global batch has the same number of rows from every stream. A window has the rows of T consecutive batches;
the rows of a stream are shuffled within each window. The number of streams depends only on the settings and the
dataset. So workers can read different streams, and the global batches are the same for any number of workers.

Shapes: F shards, S streams, T steps of a window, n rows that a reader needs of each global batch, P pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from contract.shards import Piece

_MIN_BLOCKS = 8
"""Minimum of the mean number of blocks that a stream has in a window. A block that is in two windows is read twice."""


class ShardBlocks(NamedTuple):
    """The blocks of a shard, in the order of the file."""

    rows: np.ndarray
    """[blocks] int64: number of training rows of each block."""
    offset: np.ndarray
    """[blocks] int64: position of each block in the file, in bytes."""


class Window(NamedTuple):
    """The part of a shuffling window that one reader needs."""

    pieces: list[Piece]
    """[P] the blocks to read."""
    rows: np.ndarray
    """[T, n] int64: for each step, indices of rows among all training rows of `pieces`; -1 for padding."""


@dataclass(frozen=True)
class Streams:
    """Divides the training rows of an epoch into streams, as the docstring of this module explains."""

    shards: Sequence[ShardBlocks]
    """The blocks of all shards [F]."""
    batch_size: int
    """Number of rows of a global batch."""
    max_streams: int
    """Upper limit of S."""
    window_blocks: int
    """Number of blocks in a shuffling window, on average and over all streams; rounded up to whole steps."""

    @cached_property
    def num_rows(self) -> int:
        """Number of training rows of an epoch."""
        return sum(int(shard.rows.sum()) for shard in self.shards)

    @property
    def num_steps(self) -> int:
        """Number of global batches of an epoch."""
        return -(-self.num_rows // self.batch_size)

    @cached_property
    def count(self) -> int:
        """Number of streams, S: a divisor of the batch size, as large as the settings and the dataset allow."""
        blocks = min(self.window_blocks, self._num_blocks)
        most = min(self.max_streams, max(1, blocks // _MIN_BLOCKS))
        return max(count for count in range(1, most + 1) if self.batch_size % count == 0)

    @property
    def batch_rows(self) -> int:
        """Number of rows that each stream supplies to a global batch."""
        return self.batch_size // self.count

    @cached_property
    def window_steps(self) -> int:
        """T, the number of global batches in a window."""
        rows = self.window_blocks * self.num_rows // max(self._num_blocks, 1)
        return max(1, min(-(-rows // self.batch_size), self.num_steps))

    @property
    def num_windows(self) -> int:
        """Number of shuffling windows of an epoch."""
        return -(-self.num_steps // self.window_steps)

    def plan(self, blocks: "EpochBlocks", window: int, own: range) -> Window:
        """Plans which blocks a reader reads for a shuffling window, and which rows it uses in each step.

        Args:
          blocks: all blocks in the order of an epoch; see `order`.
          window: index of the window in the epoch.
          own: indices of the n rows of a global batch that the reader needs.
        """
        edges = self.num_rows * np.arange(self.count + 1) // self.count
        size = self.window_steps * self.batch_rows
        pieces: list[Piece] = []
        rows, num_read = [], 0
        for stream in range(own.start // self.batch_rows, -(-own.stop // self.batch_rows)):
            first, last = np.minimum(edges[stream] + window * size + [0, size], edges[stream + 1])
            read = blocks.with_rows(first, last)
            pieces += read.pieces()
            generator = np.random.default_rng([*blocks.key, stream, window])
            shuffled = np.full(size, -1)
            shuffled[: last - first] = num_read + first - read.start + generator.permutation(last - first)
            num_read += read.end - read.start
            begin = stream * self.batch_rows
            columns = slice(max(own.start - begin, 0), min(own.stop - begin, self.batch_rows))
            rows.append(shuffled.reshape(self.window_steps, self.batch_rows)[:, columns])
        steps = min(self.window_steps, self.num_steps - window * self.window_steps)
        return Window(pieces, np.concatenate(rows, axis=1)[:steps])

    def order(self, seed: int, epoch: int) -> "EpochBlocks":
        """Returns all blocks in the order of an epoch.

        The shards are permuted. The order starts at a random block and wraps around, so the streams of two epochs
        differ even if there is only one shard.
        """
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(self.shards))
        sizes = [len(self.shards[shard].rows) for shard in order]
        rows = np.concatenate([self.shards[shard].rows for shard in order])
        columns = np.stack(
            [
                np.repeat(order, sizes),
                np.concatenate([np.arange(size) for size in sizes]),
                np.concatenate([self.shards[shard].offset for shard in order]),
            ],
            axis=1,
        )
        start = generator.integers(max(len(rows), 1))
        edges = np.concatenate([[0], np.cumsum(np.roll(rows, -start))])
        return EpochBlocks((seed, epoch), np.roll(columns, -start, axis=0), edges)

    @property
    def _num_blocks(self) -> int:
        return sum(len(shard.rows) for shard in self.shards)


class EpochBlocks(NamedTuple):
    """All blocks in the order of an epoch, or some consecutive ones."""

    key: tuple[int, int]
    """Seed of the run and number of the epoch."""
    columns: np.ndarray
    """[blocks, 3] int64: index of the shard, index of the block in the shard, byte offset of the block in the file."""
    edges: np.ndarray
    """[blocks + 1] int64: number of the epoch's training rows before each block; the last entry includes all blocks."""

    @property
    def start(self) -> int:
        """Number of the epoch's training rows before the first of these blocks."""
        return int(self.edges[0])

    @property
    def end(self) -> int:
        """Number of the epoch's training rows up to the end of the last of these blocks."""
        return int(self.edges[-1])

    def with_rows(self, first: int, last: int) -> "EpochBlocks":
        """Returns the blocks that contain the training rows `first` … `last` - 1 of the epoch."""
        if first >= last:
            return self._replace(columns=self.columns[:0], edges=self.edges[:1])
        begin = int(np.searchsorted(self.edges, first, "right")) - 1
        end = int(np.searchsorted(self.edges, last, "left"))
        return self._replace(columns=self.columns[begin:end], edges=self.edges[begin : end + 1])

    def pieces(self) -> list[Piece]:
        """Groups the blocks into pieces; a piece is a run of blocks that follow each other in a shard."""
        is_next = (np.diff(self.columns[:, :2], axis=0) == [0, 1]).all(axis=1)
        starts = np.concatenate([[0], np.flatnonzero(~is_next) + 1])[: len(self.columns)]
        counts = np.diff(np.append(starts, len(self.columns)))
        firsts = zip(self.columns[starts].tolist(), counts.tolist(), strict=True)
        return [Piece(shard, first, offset, count) for (shard, first, offset), count in firsts]
