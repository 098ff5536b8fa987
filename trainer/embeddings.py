"""Tables read and updated row by row, each row owned by one replica.

Row r of a table lies with replica r % R, at place r // R of a plain variable on its device, outside the strategy's
mirroring: a table takes 1/R of the memory on a replica, and nothing copies or adds whole tables. One replica is the
plain case of the same code.

Shapes: N ids asked for by a step, U distinct ids among them, D columns, R replicas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.distribution import Replicas, rows_owned
from trainer.optimizers import RowOptimizer

CHUNK_ROWS = 65_536
"""Rows that are initialized, saved or restored at a time, so that no table is ever in memory twice."""


class RowShards:
    """A float32 array [rows, D] of which this process holds the rows of its own replicas."""

    def __init__(self, *, rows: int, dim: int, replicas: Replicas, fill: float = 0.0) -> None:
        self.rows = rows
        self.dim = dim
        self.fill = fill
        self._replicas = replicas
        self.shards: dict[int, tf.Variable] = {}
        for replica in replicas.local:
            with tf.device(replicas.device(replica)):
                shape = (rows_owned(rows, replica, replicas.count), dim)
                self.shards[replica] = tf.Variable(tf.fill(shape, fill), trainable=False)

    def assign(self, start: int, values: np.ndarray) -> None:
        """Sets the rows start … start + n - 1 to `values` [n, D]; each owner keeps its own."""
        count = self._replicas.count
        for replica, shard in self.shards.items():
            own = values[(replica - start) % count :: count]
            first = rows_owned(start, replica, count)
            places = np.arange(first, first + len(own))
            shard.scatter_update(tf.IndexedSlices(tf.constant(own), tf.constant(places)))

    def chunks(self, replica: int) -> Iterator[np.ndarray]:
        """The rows of one of this process's replicas in order, at most CHUNK_ROWS [n, D] at a time."""
        shard = self.shards[replica]
        for start in range(0, shard.shape[0], CHUNK_ROWS):
            yield shard.sparse_read(tf.range(start, min(start + CHUNK_ROWS, shard.shape[0]))).numpy()


@dataclass(frozen=True)
class Lookup:
    """The rows that a step asked for.

    rows          [U] distinct ids, the same on every replica
    values        [≥ U, D] their vectors, the same on every replica; zeros from U on
    place         [N] the place in `rows` of each id that this replica asked for, [N/R] when divided
    is_divided    each replica uses only its own share of the ids
    """

    rows: tf.Tensor
    values: tf.Tensor
    place: tf.Tensor
    all_places: tf.Tensor
    is_divided: bool

    def vectors(self) -> tf.Tensor:
        """[N, D], or this replica's [N/R, D] when divided."""
        return tf.gather(self.values, self.place)


class ShardedTable:
    """An embedding table and its optimizer's slots.

    A step calls `lookup` once for all ids it needs, which are those of the global batch and the same on every replica,
    then `update` with the gradient of what it read. Both are called within `Replicas.run`.
    """

    def __init__(self, *, rows: int, dim: int, replicas: Replicas, optimizer: RowOptimizer | None) -> None:
        """A table of zeros; without an optimizer its rows are set by a solver and never updated."""
        self.rows = rows
        self.dim = dim
        self.values = RowShards(rows=rows, dim=dim, replicas=replicas)
        slots = optimizer.slots if optimizer else {}
        self.slots = {name: RowShards(rows=rows, dim=dim, replicas=replicas, fill=fill) for name, fill in slots.items()}
        self._replicas = replicas
        self._optimizer = optimizer

    def lookup(self, replica: int, ids: tf.Tensor, *, is_divided: bool) -> Lookup:
        """Reads the rows of `ids` [N], the same on every replica.

        Args:
          is_divided: replica k uses only ids k·N/R … (k+1)·N/R - 1.
        """
        rows, place = tf.unique(ids)
        mine = place
        if is_divided:
            size = ids.shape[0] // self._replicas.count
            mine = place[replica * size : (replica + 1) * size]
        return Lookup(rows, self._read(replica, rows, ids.shape[0]), mine, place, is_divided)

    def update(self, replica: int, lookup: Lookup, gradient: tf.Tensor, step: tf.Tensor) -> None:
        """Moves the rows that were read.

        Args:
          gradient: of the global loss's share that this replica computed, by `lookup.vectors()`, the same shape.
          step: counts from 0, scalar int64.

        Raises:
          ValueError: the table has no optimizer.
        """
        if self._optimizer is None:
            raise ValueError("a table without an optimizer cannot be updated along a gradient")
        rows = lookup.rows
        if self._replicas.count == 1:
            summed = tf.math.unsorted_segment_sum(gradient, lookup.place, tf.size(rows))
        else:
            own = self._own(replica, rows)
            summed = tf.gather(self._sum_over_replicas(lookup, gradient), own)
            rows = tf.gather(rows, own) // self._replicas.count
        slots = {name: slot.shards[replica] for name, slot in self.slots.items()}
        self._optimizer.apply(self.values.shards[replica], slots, rows, summed, step)

    def _read(self, replica: int, rows: tf.Tensor, size: int) -> tf.Tensor:
        """Distinct rows [U]: each owner puts its own into a zero array, and the sum is everyone's.

        What is exchanged has a fixed `size` [N, D]: a collective operation in a loop is bound to its first shape.
        """
        shard = self.values.shards[replica]
        if self._replicas.count == 1:
            return shard.sparse_read(rows)
        own = self._own(replica, rows)
        read = shard.sparse_read(tf.gather(rows, own) // self._replicas.count)
        return self._replicas.all_reduce(tf.scatter_nd(own[:, None], read, [size, self.dim]))

    def _sum_over_replicas(self, lookup: Lookup, gradient: tf.Tensor) -> tf.Tensor:
        """[N, D]: the sum over the global batch for each distinct row, zeros from U on."""
        size = lookup.all_places.shape[0]
        if lookup.is_divided:
            # gathered and then added in the order of the batch: the sum does not depend on the number of replicas
            return tf.math.unsorted_segment_sum(self._replicas.all_gather(gradient), lookup.all_places, size)
        return self._replicas.all_reduce(tf.math.unsorted_segment_sum(gradient, lookup.place, size))

    def _own(self, replica: int, rows: tf.Tensor) -> tf.Tensor:
        """Places in `rows` of those that this replica owns."""
        return tf.where(tf.equal(rows % self._replicas.count, replica))[:, 0]


Overlay = Callable[[int, np.ndarray], None]
"""Changes rows start, start + 1, … [n, D] in place."""


def initialize(table: ShardedTable, *, name: str, seed: int, stddev: float, overlay: Overlay | None = None) -> None:
    """Fills a table with normally distributed values that depend on (seed, name, row) alone.

    Every process generates all rows and keeps its own: that costs a second for a million rows of 64.

    Args:
      overlay: puts what is known better in their place.
    """
    draw = _normal_rows(name, seed, stddev, table.dim)
    for number, start in enumerate(range(0, table.rows, CHUNK_ROWS)):
        rows = draw(number, min(CHUNK_ROWS, table.rows - start))
        if overlay is not None:
            overlay(start, rows)
        table.values.assign(start, rows)


def _normal_rows(name: str, seed: int, stddev: float, dim: int) -> Callable[[int, int], np.ndarray]:
    key = [seed, *name.encode()]

    def draw(chunk: int, rows: int) -> np.ndarray:
        # NumPy and not TensorFlow: the same values whatever device the table lies on
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([*key, chunk])))
        return generator.standard_normal((rows, dim), np.float32) * np.float32(stddev)

    return draw
