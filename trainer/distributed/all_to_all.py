"""Exchanges table rows between replicas.

Each replica has ids to request, and sorts them by owner. The replicas gather how many ids each replica requests from
each owner. Then the replicas send the ids to the owners, and the owners send the rows back. Gradients take the same
route as the ids, from the requesting replicas to the owners.

In each exchange, a replica sends one message of `capacity` rows to every replica, including itself. The last rows of a
message are padding. One tensor [R · capacity, D] contains all messages, so a graph has the same operations for any
number of replicas. Integers are int64, because TensorFlow processes int32 in host memory.

Shapes: R replicas, D columns; for one replica: n ids that it requests, S rows that all replicas request from it, M rows
that it receives, including padding (R · capacity, or n if there is only one replica).
"""

from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from trainer.distributed.collectives import Collectives, LocalCollectives
from trainer.distributed.replicas import Replicas

CAPACITIES = np.unique(np.ceil(16 * 1.02 ** np.arange(800)).astype(np.int64))
"""Possible numbers of rows of a message, each about 2% (at least one row) larger than the one before.

Messages are padded to one of them. A collective operation keeps the shapes of its first call, so each capacity has its
own operation, identified by its key; the graph has one node for all of them."""


@dataclass(frozen=True)
class Messages:
    """Sizes of the messages between replicas, and the operations that send them."""

    collectives: Collectives | LocalCollectives
    """The operations that send the messages."""
    replica: int
    """Index of the replica that sends the messages."""
    level: tf.Tensor
    """Index of `capacity` in CAPACITIES, scalar int32."""
    capacity: tf.Tensor
    """Rows of every message, scalar int64: the smallest of CAPACITIES that the longest message fits into."""
    counts: tf.Tensor
    """[R, R] int64: counts[d, o] is the number of rows that replica d requests from owner o."""

    @classmethod
    def of_counts(cls, collectives: Collectives | LocalCollectives, replica: int, counts: tf.Tensor) -> "Messages":
        """Gathers the `counts` of all replicas, to compute the sizes of all messages.

        Args:
          collectives: operations that gather the counts and send the messages.
          replica: index of this replica.
          counts: [R] number of ids that this replica requests from each replica.
        """
        size = counts.shape[0]
        gathered = tf.reshape(collectives.all_gather(replica, counts), [size, size])
        level = tf.searchsorted(CAPACITIES, tf.reduce_max(gathered)[None])[0]
        return cls(collectives, replica, level, tf.gather(tf.constant(CAPACITIES), level), gathered)

    def slots(self, counts: tf.Tensor) -> tf.Tensor:
        """Returns the indices of all rows that are not padding; `counts` [R]: number of such rows in each message."""
        return tf.where(tf.reshape(tf.sequence_mask(counts, self.capacity), [-1]))[:, 0]

    def pack(self, rows: tf.Tensor, slots: tf.Tensor) -> tf.Tensor:
        """Returns messages [M, …] with `rows` at the indices `slots`, and zeros elsewhere."""
        size = self.counts.shape[0] * self.capacity
        return tf.scatter_nd(slots[:, None], rows, [size, *rows.shape[1:]])

    def exchange(self, rows: tf.Tensor) -> tf.Tensor:
        """Sends `rows` [M, …], one message per replica; returns the received rows [M, …], in order of senders."""
        size = self.counts.shape[0]
        pieces = tf.reshape(rows, [size, self.capacity, *rows.shape[1:]])
        received = self.collectives.all_to_all(self.replica, pieces, self.level, len(CAPACITIES))
        return tf.reshape(received, [-1, *rows.shape[1:]])


@dataclass(frozen=True)
class Route:
    """The rows that a replica requests from each replica, and the rows that each replica requests from it."""

    positions: tf.Tensor
    """[n] index of each requested id's row among the M received rows."""
    num_rows: tf.Tensor
    """M, scalar."""
    served: tf.Tensor
    """[S] indices of the requested rows in the shard of this replica: first the rows that replica 0 requests, in the
    order of its requests, then the rows that replica 1 requests, …"""
    slots: tf.Tensor | None = None
    """[S] index of each row of `served` in the messages to send; None: there is only one replica."""
    messages: Messages | None = None
    """The messages of the route; None: there is only one replica."""

    @classmethod
    def by_row(cls, replicas: Replicas, replica: int, ids: tf.Tensor) -> "Route":
        """Builds a route for this replica's ids [n]; requests a repeated id only once. Every replica calls this."""
        distinct = tf.unique(ids)
        route = cls.by_id(replicas, replica, distinct.y)
        return replace(route, positions=tf.gather(route.positions, distinct.idx))

    @classmethod
    def by_id(cls, replicas: Replicas, replica: int, ids: tf.Tensor) -> "Route":
        """Builds a route for this replica's ids [n]; requests each id, even if repeated. Every replica calls this."""
        size = tf.size(ids, tf.int64)
        if replicas.collectives is None:
            return cls(tf.range(size), size, ids)
        owner = ids % replicas.count
        # a stable sort, because owners add gradients in the order of the ids
        order = tf.cast(tf.argsort(owner, stable=True), tf.int64)
        bounds = tf.searchsorted(
            tf.gather(owner, order), tf.range(replicas.count + 1, dtype=tf.int64), out_type=tf.int64
        )
        counts = bounds[1:] - bounds[:-1]
        messages = Messages.of_counts(replicas.collectives, replica, counts)
        own_slots = messages.slots(counts)
        received = messages.exchange(messages.pack(tf.gather(ids, order) // replicas.count, own_slots))
        slots = messages.slots(messages.counts[:, replica])
        return cls(
            positions=tf.scatter_nd(order[:, None], own_slots, size[None]),
            num_rows=replicas.count * messages.capacity,
            served=tf.gather(received, slots),
            slots=slots,
            messages=messages,
        )

    def send_to_requesters(self, rows: tf.Tensor) -> tf.Tensor:
        """Sends rows to the replicas that requested them. `rows`: [S, D]. Returns the received rows, [M, D]."""
        if self.messages is None:
            return rows
        return self.messages.exchange(self.messages.pack(rows, self.slots))

    def send_to_owners(self, rows: tf.Tensor) -> tf.Tensor:
        """Sends rows, such as gradients, to the rows' owners. `rows`: [M, D]. Returns the received rows, [S, D]."""
        if self.messages is None:
            return rows
        return tf.gather(self.messages.exchange(rows), self.slots)
