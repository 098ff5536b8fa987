"""Exchanges table rows between replicas.

An owner sends a row once to each replica that needs the row, and receives its gradient. Every replica knows the ids of
the whole global batch, so all replicas know who sends what to whom.

Shapes: R replicas, n ids that one replica requests, U rows that it receives for them, D columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from trainer.distributed.collectives import Collectives
from trainer.distributed.replicas import Replicas

CAPACITIES = np.unique(np.ceil(16 * 1.25 ** np.arange(72)).astype(np.int64))
"""Numbers of rows that messages between workers are padded to. A collective operation keeps the shapes of its first
call, so each capacity has a separate operation. On average, an eighth of the traffic is padding."""


@dataclass(frozen=True)
class Route:
    """Which rows each replica requests, and from which owner."""

    served: list[tf.Tensor]
    """R pieces [n], one per requesting replica: indices, into this replica's shard, of the requested rows."""
    counts: tf.Tensor
    """[R, R] int64: number of rows that replica d requests from owner o, at [d, o]."""
    positions: tf.Tensor
    """[n] for each id that this replica requests, the index of its row among the received rows, ordered by owner."""

    @classmethod
    def by_row(cls, ids: Sequence[tf.Tensor], replica: int) -> "Route":
        """Builds a route that requests each distinct row once.

        Args:
          ids: for each of R replicas, the ids [n] that it requests.
          replica: the replica that uses the route.
        """
        distinct = [tf.unique(own) for own in ids]
        route = cls.by_id([rows for rows, _ in distinct], replica)
        return replace(route, positions=tf.gather(route.positions, distinct[replica].idx))

    @classmethod
    def by_id(cls, ids: Sequence[tf.Tensor], replica: int) -> "Route":
        """Builds a route that requests one row for every id, duplicates included; see `by_row`."""
        count = len(ids)
        if count == 1:
            size = tf.size(ids[0], tf.int64)
            return cls(list(ids), size[None, None], tf.range(size))
        owners = [rows % count for rows in ids]
        by_owner = [tf.where(tf.equal(owners[replica], owner))[:, 0] for owner in range(count)]
        return cls(
            served=[
                tf.boolean_mask(rows, tf.equal(owner, replica)) // count
                for rows, owner in zip(ids, owners, strict=True)
            ],
            counts=tf.stack([tf.math.bincount(owner, minlength=count, dtype=tf.int64) for owner in owners]),
            positions=tf.math.invert_permutation(tf.concat(by_owner, axis=0)),
        )

    def split_by_owner(self, rows: tf.Tensor, replica: int) -> list[tf.Tensor]:
        """Splits rows [U, D] in the order of `positions` into R pieces [n, D], one per owner."""
        return tf.split(rows, self.counts[replica], num=len(self.served))


def exchange(replicas: Replicas, replica: int, pieces: Sequence[tf.Tensor], counts: tf.Tensor) -> list[tf.Tensor]:
    """Sends a piece, an array of rows, to each replica; called within `Replicas.run`.

    Args:
      replicas: all replicas.
      replica: index of this replica.
      pieces: R pieces [n, D], one for each replica.
      counts: [R, R] int64; counts[d, s] rows go from replica s to replica d; the same on every replica.

    Returns:
      R pieces [n, D], one from each replica.
    """
    if replicas.collectives is None:
        return _exchange_in_process(replica, pieces)
    return _exchange_between_workers(replicas.collectives, replica, pieces, counts)


def _exchange_in_process(replica: int, pieces: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Copies each piece to the device that uses it: one graph contains all replicas."""

    def collect(strategy: tf.distribute.Strategy, *per_replica: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        return [strategy.experimental_local_results(piece) for piece in per_replica]

    by_destination = tf.distribute.get_replica_context().merge_call(collect, args=tuple(pieces))
    return [tf.identity(piece) for piece in by_destination[replica]]


def _exchange_between_workers(
    collectives: Collectives, replica: int, pieces: Sequence[tf.Tensor], counts: tf.Tensor
) -> list[tf.Tensor]:
    """Runs one collective operation; every piece is padded to the capacity of the largest."""
    between_replicas = tf.linalg.set_diag(counts, tf.zeros([len(pieces)], tf.int64))
    level = tf.searchsorted(CAPACITIES, tf.reduce_max(between_replicas)[None])[0]
    capacity = tf.gather(tf.constant(CAPACITIES), level)
    empty = tf.zeros([0, pieces[0].shape[1]], pieces[0].dtype)
    # a replica's piece for itself is not sent
    padded = [_pad(empty if number == replica else piece, capacity) for number, piece in enumerate(pieces)]
    exchanged = collectives.all_to_all(replica, tf.stack(padded), level, len(CAPACITIES))
    received = tf.ensure_shape(exchanged, [len(pieces), None, pieces[0].shape[1]])
    return [
        pieces[replica] if number == replica else received[number, : counts[replica, number]]
        for number in range(len(pieces))
    ]


def _pad(piece: tf.Tensor, capacity: tf.Tensor) -> tf.Tensor:
    missing = capacity - tf.shape(piece, tf.int64)[0]
    return tf.pad(piece, [[0, missing], [0, 0]])
