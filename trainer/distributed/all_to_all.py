"""Rows that travel between replicas: each once, from its owner to who needs it, and its gradient back.

Every replica knows the ids of the whole global batch, so that all know who sends what to whom without asking.

Shapes: R replicas, n ids that one of them asks for, U rows that travel for these, D columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from trainer.distributed.replicas import Replicas

_GROUP_KEY = 1 << 20
"""Far from the keys that TensorFlow gives its own collective operations."""

CAPACITIES = np.unique(np.ceil(16 * 1.25 ** np.arange(72)).astype(np.int64))
"""Rows that a piece is filled up to between workers: their operations are bound to the shapes they first had, and there
are as many of them as there are shapes. On average an eighth of what travels is filling."""


@dataclass(frozen=True)
class Route:
    """Who owns the rows that each replica asks for, and which of them travel.

    served   R pieces [n]: the places, in this replica's shard, of the rows that each replica asks for
    counts   [R, R] int64: how many rows replica d asks for of owner o, at [d, o]
    place    [n] where the row of each id that this replica asks for stands among those it receives, owner after owner
    """

    served: list[tf.Tensor]
    counts: tf.Tensor
    place: tf.Tensor

    @classmethod
    def by_row(cls, ids: Sequence[tf.Tensor], replica: int) -> "Route":
        """Of the ids [n] that each of R replicas asks for, each distinct row once, as replica `replica` sees it."""
        distinct = [tf.unique(own) for own in ids]
        route = cls.by_id([rows for rows, _ in distinct], replica)
        return replace(route, place=tf.gather(route.place, distinct[replica].idx))

    @classmethod
    def by_id(cls, ids: Sequence[tf.Tensor], replica: int) -> "Route":
        """Of the ids [n] that each of R replicas asks for, one for each id, in their order."""
        count = len(ids)
        if count == 1:  # nothing is sorted and nothing travels
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
            place=tf.math.invert_permutation(tf.concat(by_owner, axis=0)),
        )

    def split_by_owner(self, rows: tf.Tensor, replica: int) -> list[tf.Tensor]:
        """Rows [U, D] that stand as they are received, as R pieces [n, D]."""
        return tf.split(rows, self.counts[replica], num=len(self.served))


def exchange(
    replicas: Replicas, replica: int, pieces: Sequence[tf.Tensor], counts: tf.Tensor, key: int
) -> list[tf.Tensor]:
    """What each of R replicas has for this one, R pieces [n, D]; called within `Replicas.run`.

    Args:
      pieces: R pieces [n, D], what this replica has for each.
      counts: [R, R] int64 rows from replica s to replica d, at [d, s]; the same on every replica.
      key: of this exchange and no other in a step; the same on every replica.
    """
    if replicas.workers == 1:
        return _exchange_in_process(replica, pieces)
    return _exchange_between_workers(replicas, replica, pieces, counts, key)


def _exchange_in_process(replica: int, pieces: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """One graph holds all replicas: a piece is copied to the device that uses it, and nothing else moves."""

    def collect(strategy: tf.distribute.Strategy, *given: tf.Tensor) -> list[tuple[tf.Tensor, ...]]:
        return [strategy.experimental_local_results(piece) for piece in given]

    by_destination = tf.distribute.get_replica_context().merge_call(collect, args=tuple(pieces))
    return [tf.identity(piece) for piece in by_destination[replica]]


def _exchange_between_workers(
    replicas: Replicas, replica: int, pieces: Sequence[tf.Tensor], counts: tf.Tensor, key: int
) -> list[tf.Tensor]:
    """One operation among all; every piece is filled up to the capacity of the largest."""
    travelling = tf.linalg.set_diag(counts, tf.zeros([replicas.count], tf.int64))
    level = tf.searchsorted(CAPACITIES, tf.reduce_max(travelling)[None])[0]
    capacity = tf.gather(tf.constant(CAPACITIES), level)
    empty = tf.zeros([0, pieces[0].shape[1]], pieces[0].dtype)
    # what a replica has for itself does not travel
    filled = [_fill_up(empty if number == replica else piece, capacity) for number, piece in enumerate(pieces)]
    moved = tf.raw_ops.CollectiveAllToAllV2(
        input=tf.stack(filled),
        group_size=replicas.count,
        group_key=_GROUP_KEY,
        instance_key=tf.cast(key * len(CAPACITIES), tf.int32) + level,
        ordering_token=[],
        communication_hint="nccl" if "GPU" in replicas.devices[0] else "ring",
    )
    received = tf.ensure_shape(moved, [replicas.count, None, pieces[0].shape[1]])
    return [
        pieces[replica] if number == replica else received[number, : counts[replica, number]]
        for number in range(replicas.count)
    ]


def _fill_up(piece: tf.Tensor, capacity: tf.Tensor) -> tf.Tensor:
    missing = capacity - tf.shape(piece, tf.int64)[0]
    return tf.pad(piece, [[0, missing], [0, 0]])
