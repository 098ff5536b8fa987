"""Embedding tables sharded by row over the replicas: lookup, update, initial values.

Replica r % R owns row r of a table, at index r // R of a variable on its device. The strategy does not mirror these
variables, so a replica stores only 1/R of a table, and no table is ever copied or summed as a whole. A single replica
runs the same code.

Shapes: n ids of one replica, M rows that it receives for them, D columns, R replicas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainer.distributed.all_to_all import Route
from trainer.distributed.optimizers import RowOptimizer
from trainer.distributed.random_rows import normal_rows
from trainer.distributed.replicas import Replicas, rows_owned

CHUNK_BYTES = 4 << 20
"""Size of the rows that are saved or restored at a time, so that no table is in memory twice."""

_COMPUTED_ROWS = 4096
"""Number of rows that are initialized at a time, few enough for the processor's cache."""


def chunk_rows(width: int) -> int:
    """Returns the number of rows of `width` 4-byte columns that are saved or restored at a time."""
    return max(1, CHUNK_BYTES // max(4 * width, 1))


class RowShards:
    """A float32 array [rows, D], divided among all replicas; a process stores only the rows of its replicas."""

    def __init__(self, *, rows: int, dim: int, replicas: Replicas, fill: float = 0.0) -> None:
        """Creates the shards of this process's replicas, with `fill` in all entries."""
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
        """Number of replicas of all processes, R."""
        return self._replicas.count

    def assign(self, start: int, values: np.ndarray) -> None:
        """Sets the rows start … start + n - 1 to `values` [n, D]; each replica stores the rows it owns."""
        for replica in self.shards:
            own = values[(replica - start) % self.replicas :: self.replicas]
            self.assign_owned(replica, rows_owned(start, replica, self.replicas), own)

    def assign_owned(self, replica: int, first: int, values: np.ndarray) -> None:
        """Sets the rows first … first + n - 1 of the shard of `replica` to `values` [n, D]."""
        indices = tf.range(first, first + len(values))
        self.shards[replica].scatter_update(tf.IndexedSlices(tf.constant(values), indices))

    def chunks(self, replica: int) -> Iterator[np.ndarray]:
        """Yields the rows of the shard of `replica` in order, in chunks [n, D] of at most `chunk_rows` rows."""
        shard, size = self.shards[replica], chunk_rows(self.dim)
        for start in range(0, shard.shape[0], size):
            # numpy() would copy the rows once more
            yield np.asarray(shard.sparse_read(tf.range(start, min(start + size, shard.shape[0]))))


@dataclass(frozen=True)
class Lookup:
    """The rows of an embedding table that a replica reads in a training step."""

    values: tf.Tensor
    """[M, D] the received rows: each distinct row once, and padding."""
    ids: tf.Tensor
    """[n] the requested ids."""
    route: Route
    """The route from the owners of the rows to this replica."""
    is_summed_first: bool
    """Whether an update adds up the gradients of equal ids before it sends them to the rows' owners."""

    def vectors(self) -> tf.Tensor:
        """[n, D]: the row of each id that this replica requested."""
        return tf.gather(self.values, self.route.positions)


class ShardedTable:
    """An embedding table and its optimizer's state, both divided among the replicas.

    A training step calls `lookup` once, with all ids, and then `update` for these rows, both within `Replicas.run`.
    """

    def __init__(self, *, rows: int, dim: int, replicas: Replicas, optimizer: RowOptimizer | None) -> None:
        """Creates a table of zeros; without an optimizer, `update` fails."""
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

    def lookup(self, replica: int, own: tf.Tensor, shared: tf.Tensor | None = None) -> Lookup:
        """Reads rows by id. Every replica passes the same number of ids.

        Args:
          replica: index of this replica.
          own: [m] ids that this replica reads.
          shared: [A] ids that all replicas read; None: no such ids.

        Returns:
          The rows of n = m + A ids: `own`, then `shared`.
        """
        ids = own if shared is None else tf.concat([own, shared], axis=0)
        route = Route.by_row(self._replicas, replica, ids)
        values = route.send_to_requesters(self.values.shards[replica].sparse_read(route.served))
        return Lookup(values, ids, route, is_summed_first=shared is not None or self._replicas.count == 1)

    def update(self, replica: int, lookup: Lookup, gradient: tf.Tensor, step: tf.Tensor) -> None:
        """Updates the rows of a lookup; raises ValueError if the table has no optimizer.

        `gradient`: [n, D], the gradient of this replica's share of the loss with respect to `lookup.vectors()`.
        `step`: number of the training step, scalar int64; the first step is 0.
        """
        if self._optimizer is None:
            raise ValueError("the table was created without an optimizer; create it with an optimizer to call `update`")
        # without shared ids, few ids occur twice: the gradient of each occurrence is sent, and the owner adds them in
        # the order of the batch, so that the sum is bit-identical for any number of replicas
        route = lookup.route if lookup.is_summed_first else Route.by_id(self._replicas, replica, lookup.ids)
        added = tf.math.unsorted_segment_sum(gradient, route.positions, route.num_rows)
        rows, summed = route.served, route.send_to_owners(added)
        if self._replicas.count > 1:
            rows, positions = tf.unique(rows)
            summed = tf.math.unsorted_segment_sum(summed, positions, tf.size(rows))
        slots = {name: slot.shards[replica] for name, slot in self.slots.items()}
        self._optimizer.apply(self.values.shards[replica], slots, rows, summed, step)


Overlay = Callable[[np.ndarray, np.ndarray], None]
"""A function that takes row numbers [n] and the values [n, D] of these rows, and changes values in place."""


def initialize(
    table: ShardedTable,
    *,
    name: str,
    seed: int,
    stddev: float,
    overlay: Overlay | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Fills a table with normally distributed values that depend only on (seed, name, row).

    Args:
      name: name of the table; tables with different names get different values.
      overlay: replaces the values of some rows; None: no replacement.
      on_progress: called after each chunk of rows.
    """
    for replica, shard in table.values.shards.items():
        for first in range(0, shard.shape[0], _COMPUTED_ROWS):
            rows = replica + table.values.replicas * np.arange(first, min(first + _COMPUTED_ROWS, shard.shape[0]))
            values = normal_rows(rows, table.dim, name=name, seed=seed, stddev=stddev)
            if overlay is not None:
                overlay(rows, values)
            table.values.assign_owned(replica, first, values)
            on_progress()
