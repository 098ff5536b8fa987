"""Collective operations between replicas, started in the same order on every device.

If devices start collective operations in different orders, they wait for each other forever. Therefore, each device has
an ordering token, a resource that all its operations use. TensorFlow runs the operations on a resource in the order in
which Python created them, and this order is the same on all replicas. Without tokens, TensorFlow would put the
operations of all devices of a process into one chain, in which the first device would wait for the last one.

All operations belong to one group, so NCCL has one communicator per device.
"""

import itertools
from collections import Counter

import tensorflow as tf

_GROUP_KEYS = itertools.count(1 << 20)
"""Keys of groups; TensorFlow's own collective operations use lower keys. TensorFlow fixes the size of a group and the
shapes of its operations when they first run, so each training run in a process needs a new group. All workers start the
same runs in the same order, so their keys agree."""


class Collectives:
    """Collective operations between all replicas. Every replica must call them, within a graph.

    All replicas must trace the same operations in the same order.
    """

    def __init__(self, devices: dict[int, str], count: int) -> None:
        """Creates an ordering token for each replica of this process.

        Args:
          devices: device name of each replica of this process, by the replica's index.
          count: number of replicas, over all workers.
        """
        self._count = count
        self._group_key = next(_GROUP_KEYS)
        self._hint = "nccl" if any("GPU" in device for device in devices.values()) else "ring"
        self._tokens: dict[int, tf.Variable] = {}
        for replica, device in devices.items():
            with tf.init_scope(), tf.device(device):
                self._tokens[replica] = tf.Variable(0.0, trainable=False)
        self._num_keys = Counter[int]()

    def all_reduce(self, replica: int, value: tf.Tensor) -> tf.Tensor:
        """Sums `value` over all replicas; all values must have the same static shape."""
        key = self._take_keys(replica, 1)
        return tf.raw_ops.CollectiveReduceV2(
            input=value,
            group_size=self._count,
            group_key=self._group_key,
            instance_key=key,
            ordering_token=[self._tokens[replica].handle],
            merge_op="Add",
            final_op="Id",
            communication_hint=self._hint,
            name=f"all_reduce_{key}",
        )

    def all_gather(self, replica: int, value: tf.Tensor) -> tf.Tensor:
        """Concatenates the replicas' values along the first axis; all must have the same static shape."""
        key = self._take_keys(replica, 1)
        return tf.raw_ops.CollectiveGatherV2(
            input=value,
            group_size=self._count,
            group_key=self._group_key,
            instance_key=key,
            ordering_token=[self._tokens[replica].handle],
            communication_hint=self._hint,
            name=f"all_gather_{key}",
        )

    def all_to_all(self, replica: int, pieces: tf.Tensor, variant: tf.Tensor, num_variants: int) -> tf.Tensor:
        """Sends pieces[d] to replica d; returns the received pieces [R, …], in order of senders.

        Args:
          replica: index of this replica.
          pieces: [R, …] one piece for each replica.
          variant: number of the shape of `pieces`, a scalar int32 in [0, num_variants), equal on all replicas. Each
            shape needs its own number, because an operation keeps the shape of its first call.
          num_variants: number of shapes that `pieces` may have.
        """
        key = self._take_keys(replica, num_variants)
        return tf.raw_ops.CollectiveAllToAllV2(
            input=pieces,
            group_size=self._count,
            group_key=self._group_key,
            instance_key=key + variant,
            ordering_token=[self._tokens[replica].handle],
            communication_hint=self._hint,
            name=f"all_to_all_{key}",
        )

    def _take_keys(self, replica: int, count: int) -> int:
        """Reserves `count` consecutive keys of collective operations; returns the first key."""
        self._num_keys[replica] += count
        return self._num_keys[replica] - count


class LocalCollectives:
    """The operations of `Collectives` between the logical CPUs of one process, which share memory."""

    def all_reduce(self, replica: int, value: tf.Tensor) -> tf.Tensor:  # noqa: ARG002
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    def all_gather(self, replica: int, value: tf.Tensor) -> tf.Tensor:  # noqa: ARG002
        return tf.concat(_all_local_values(value), axis=0)

    def all_to_all(
        self,
        replica: int,
        pieces: tf.Tensor,
        variant: tf.Tensor,  # noqa: ARG002
        num_variants: int,  # noqa: ARG002
    ) -> tf.Tensor:
        return tf.stack([sent[replica] for sent in _all_local_values(pieces)])


def _all_local_values(value: tf.Tensor) -> tuple[tf.Tensor, ...]:
    def collect(strategy: tf.distribute.Strategy, per_replica: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return strategy.experimental_local_results(per_replica)

    return tf.distribute.get_replica_context().merge_call(collect, args=(value,))
