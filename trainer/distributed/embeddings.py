"""Tables read and updated row by row, each row owned by one replica.

Row r of a table lies with replica r % R, at place r // R of a plain variable on its device, outside the strategy's
mirroring: a table takes 1/R of the memory on a replica, and nothing copies or adds whole tables. One replica is the
plain case of the same code.

Shapes: N ids asked for by a step, n by one replica, U distinct ids among these, D columns, R replicas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.distributed.all_to_all import Route, exchange
from trainer.distributed.optimizers import RowOptimizer
from trainer.distributed.replicas import Replicas, rows_owned

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

    @property
    def replicas(self) -> int:
        """R, over all processes."""
        return self._replicas.count

    def assign(self, start: int, values: np.ndarray) -> None:
        """Sets the rows start … start + n - 1 to `values` [n, D]; each owner keeps its own."""
        for replica in self.shards:
            own = values[(replica - start) % self.replicas :: self.replicas]
            self.assign_owned(replica, rows_owned(start, replica, self.replicas), own)

    def assign_owned(self, replica: int, first: int, values: np.ndarray) -> None:
        """Sets what one of this process's replicas has at its places first … first + n - 1 to `values` [n, D]."""
        places = tf.range(first, first + len(values))
        self.shards[replica].scatter_update(tf.IndexedSlices(tf.constant(values), places))

    def chunks(self, replica: int) -> Iterator[np.ndarray]:
        """The rows of one of this process's replicas in order, at most CHUNK_ROWS [n, D] at a time."""
        shard = self.shards[replica]
        for start in range(0, shard.shape[0], CHUNK_ROWS):
            # unlike numpy(), which copies once more what was just read
            yield np.asarray(shard.sparse_read(tf.range(start, min(start + CHUNK_ROWS, shard.shape[0]))))


@dataclass(frozen=True)
class Lookup:
    """The rows that a replica asked for in a step.

    values      [U, D] distinct rows
    place       [n] the place in `values` of each id that this replica asked for
    sent        the route by which gradients travel, from who asked for a row to its owner
    """

    values: tf.Tensor
    place: tf.Tensor
    sent: Route

    def vectors(self) -> tf.Tensor:
        """[n, D]: the row of each id that this replica asked for."""
        return tf.gather(self.values, self.place)


class ShardedTable:
    """An embedding table and its optimizer's slots.

    A step calls `lookup` once for all ids it needs, then `update` with the gradient of what it read. Both are called
    within `Replicas.run`.
    """

    def __init__(self, *, rows: int, dim: int, replicas: Replicas, optimizer: RowOptimizer | None) -> None:
        """A table of zeros; without an optimizer its rows are set by a solver and never updated."""
        self.rows = rows
        self.dim = dim
        self.values = RowShards(rows=rows, dim=dim, replicas=replicas)
        slots = optimizer.slots if optimizer else {}
        self.slots = {
            name: RowShards(rows=rows, dim=slot.dim or dim, replicas=replicas, fill=slot.fill)
            for name, slot in slots.items()
        }
        self._replicas = replicas
        self._optimizer = optimizer
        self._read_key, self._update_key = next(replicas.keys), next(replicas.keys)

    def lookup(self, replica: int, divided: tf.Tensor, shared: tf.Tensor | None = None) -> Lookup:
        """Reads rows; the ids are those of the global batch, the same on every replica.

        Args:
          divided: [N] ids, of which replica k uses k·N/R … (k+1)·N/R - 1.
          shared: [S] ids that every replica uses; None: there are none.

        Returns:
          The rows of this replica's n = N/R + S ids, in this order.
        """
        count = self._replicas.count
        size = divided.shape[0] // count
        ids = [divided[number * size : (number + 1) * size] for number in range(count)]
        if shared is not None:
            ids = [tf.concat([own, shared], axis=0) for own in ids]
        route = Route.by_row(ids, replica)
        read = [self.values.shards[replica].sparse_read(rows) for rows in route.served]
        if count > 1:
            read = exchange(self._replicas, replica, read, route.counts, self._read_key)
        # where nothing is shared, few ids come twice: each sends its own gradient, and the owner adds them in the order
        # of the batch, so that the sum is the same to the bit for any number of replicas
        is_summed_first = shared is not None or count == 1
        return Lookup(
            tf.concat(read, axis=0), route.place, sent=route if is_summed_first else Route.by_id(ids, replica)
        )

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
        sent = lookup.sent
        added = tf.math.unsorted_segment_sum(gradient, sent.place, tf.reduce_sum(sent.counts[replica]))
        rows, summed = sent.served[0], added
        if self._replicas.count > 1:
            pieces = sent.split_by_owner(added, replica)
            received = exchange(self._replicas, replica, pieces, tf.transpose(sent.counts), self._update_key)
            rows, place = tf.unique(tf.concat(sent.served, axis=0))
            summed = tf.math.unsorted_segment_sum(tf.concat(received, axis=0), place, tf.size(rows))
        slots = {name: slot.shards[replica] for name, slot in self.slots.items()}
        self._optimizer.apply(self.values.shards[replica], slots, rows, summed, step)


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
