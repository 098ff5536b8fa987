"""Creates the tf.distribute strategy, and runs the collective operations of a training step.

There are R replicas over all workers. While a step is traced, each replica knows its index as a Python number, so that
it can select its share of a table.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy

from trainer.distributed.cluster import Cluster
from trainer.distributed.collectives import Collectives, LocalCollectives
from trainer.distributed.gpus import choose_gpus
from trainer.distributed.preemption import Preempted

LOST_WORKER = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
"""Errors that TensorFlow raises if another worker died, was replaced by a new process, or does not answer in time."""


@dataclass(frozen=True)
class Replicas:
    """The replicas that train together."""

    strategy: tf.distribute.Strategy
    """TensorFlow's strategy over all replicas."""
    count: int
    """R, over all workers."""
    devices: tuple[str, ...]
    """Devices of this process's replicas."""
    first: int
    """Index of this process's first replica."""
    workers: int
    """Number of processes."""
    collectives: Collectives | LocalCollectives | None = None
    """Operations between the replicas; None: there is only one replica."""

    @property
    def is_chief(self) -> bool:
        """Whether this process is the chief, which writes logs, metrics and the record of the run."""
        return self.first == 0

    @property
    def worker(self) -> int:
        """Index of this process among the workers."""
        return self.first // len(self.devices)

    @property
    def local(self) -> range:
        """Indices of this process's replicas."""
        return range(self.first, self.first + len(self.devices))

    def device(self, replica: int) -> str:
        """Returns the device of `replica`, which must be a replica of this process."""
        return self.devices[replica - self.first]

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls `function(replica, *arguments)` on every replica; returns the result of the first local replica."""
        if self.count == 1:
            with tf.device(self.devices[0]):
                return function(0, *arguments)

        def on_replica(*values: Any) -> Any:
            replica = _current_replica()
            with tf.device(self.device(replica)):
                return function(replica, *values)

        return tf.nest.map_structure(
            lambda value: self.strategy.experimental_local_results(value)[0], self.strategy.run(on_replica, arguments)
        )

    def all_reduce(self, value: tf.Tensor) -> tf.Tensor:
        """Sums `value` over all replicas. Every replica must call this, within `run` and within a graph."""
        if self.collectives is None:
            return value
        return self.collectives.all_reduce(_current_replica(), value)

    def all_reduce_together(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Applies `all_reduce` to several tensors of the same type, in one operation."""
        if self.count == 1:
            return list(values)
        summed = self.all_reduce(tf.concat([tf.reshape(value, [-1]) for value in values], axis=0))
        pieces = tf.split(summed, [value.shape.num_elements() for value in values])
        return [tf.reshape(piece, value.shape) for piece, value in zip(pieces, values, strict=True)]

    def all_gather(self, value: tf.Tensor) -> tf.Tensor:
        """Concatenates the replicas' values along the first axis; all must have the same shape.

        Every replica must call this, within `run` and within a graph.
        """
        if self.collectives is None:
            return value
        return self.collectives.all_gather(_current_replica(), value)

    def sum_over_workers(self, value: np.ndarray) -> np.ndarray:
        """Sums arrays of the same shape, one from each worker. Every worker must call this, outside `run`."""
        if self.workers == 1 or not value.size:  # a collective operation on an empty tensor crashes the process
            return value
        summed: np.ndarray = self._sum_over_workers(tf.constant(value)).numpy()
        return summed

    @cached_property
    def _sum_over_workers(self) -> Callable[[tf.Tensor], tf.Tensor]:
        def on_replica(replica: int, own: tf.Tensor) -> tf.Tensor:
            return self.all_reduce(own if replica == self.first else tf.zeros_like(own))

        return tf.function(lambda value: self.run(on_replica, value), autograph=False)

    def any_worker_each(self, *flags: bool) -> tuple[bool, ...]:
        """Returns, for each flag, whether it is True on any worker.

        Every worker must call this, outside `run`.
        """
        summed = self.sum_over_workers(np.array(flags, np.float32))
        return tuple((summed > 0).tolist())

    def any_worker(self, flag: bool) -> bool:
        """Returns whether the flag is True on any worker. Every worker must call this, outside `run`."""
        return self.any_worker_each(flag)[0]

    def wait_for_all(self) -> None:
        """Waits until all workers have called this method. Must be called outside `run`."""
        self.any_worker(False)


def start_replicas(devices: int | None, cluster: Cluster | None, gpus: int | None = None) -> Replicas:
    """Creates this process's replicas and connects all workers; call it before TensorFlow's first operation.

    Args:
      devices: number of GPUs or, on a machine without GPUs, of logical CPUs; None: all GPUs, or one CPU.
      cluster: the workers; None: this process trains alone.
      gpus: number of GPUs that must exist; replaces `devices`.

    Raises:
      ValueError: there are fewer devices than requested, or TensorFlow has already started with fewer.
    """
    names = choose_gpus(gpus or devices, is_required=gpus is not None) or _choose_cpus(devices or 1)
    if cluster is not None:
        return _start_workers(names, cluster)
    if len(names) == 1:
        return Replicas(tf.distribute.get_strategy(), 1, names, 0, 1)
    # logical CPUs share memory, so reducing on one of them is as fast as a ring; GPUs reduce with `Collectives`
    strategy = tf.distribute.MirroredStrategy(list(names), cross_device_ops=tf.distribute.ReductionToOneDevice())
    count = len(names)
    collectives = Collectives(dict(enumerate(names)), count) if "GPU" in names[0] else LocalCollectives()
    return Replicas(strategy, count, names, 0, 1, collectives)


@contextmanager
def preempt_on_worker_loss(cluster: Cluster | None) -> Iterator[None]:
    """Raises `Preempted` instead of TensorFlow's errors about a lost worker."""
    try:
        yield
    except LOST_WORKER as error:
        if cluster is None:
            raise
        raise Preempted(
            f"worker {cluster.index} lost the connection to another of the {len(cluster.hosts)} workers "
            f"({type(error).__name__}); start all workers again to resume from the last checkpoint"
        ) from error


def check_batch_divides(batch_size: int, replicas: int) -> None:
    """Raises ValueError unless the batch size is divisible by the number of replicas."""
    if batch_size % replicas == 0:
        return
    below = batch_size // replicas * replicas
    nearest = " or ".join(str(size) for size in (below, below + replicas) if size)
    raise ValueError(f"input.batch_size={batch_size} is not divisible by {replicas} replicas; use {nearest}")


def _start_workers(names: Sequence[str], cluster: Cluster) -> Replicas:
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.NCCL if "GPU" in names[0] else communication.RING
    )
    handler = signal.getsignal(signal.SIGTERM)
    with _local_devices(names):
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if threading.current_thread() is threading.main_thread():
        # creating the strategy has replaced the SIGTERM handler with TensorFlow's own, which saves no checkpoint
        signal.signal(signal.SIGTERM, handler)
    local, workers = len(names), len(cluster.hosts)
    first, count = cluster.index * local, workers * local
    full_names = tuple(f"/job:worker/replica:0/task:{cluster.index}/device:{name}" for name in names)
    collectives = Collectives(dict(enumerate(full_names, first)), count)
    return Replicas(strategy, count, full_names, first, workers, collectives)


@contextmanager
def _local_devices(names: Sequence[str]) -> Iterator[None]:
    """Makes `MultiWorkerMirroredStrategy` use the devices `names` instead of its default."""
    extended = collective_all_reduce_strategy.CollectiveAllReduceExtended
    choose = extended._initialize_local_devices

    def choose_given(_: Any, resolver: Any, worker: str) -> tuple[tuple[str, ...], str]:  # noqa: ARG001
        return tuple(f"{worker}/device:{name}" for name in names), names[0].partition(":")[0]

    extended._initialize_local_devices = choose_given
    try:
        yield
    finally:
        extended._initialize_local_devices = choose


def _current_replica() -> int:
    return int(tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group))


def _choose_cpus(count: int) -> tuple[str, ...]:
    """Returns the names of `count` logical CPUs; splits the CPU into them unless TensorFlow already has enough."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or []
    if max(len(configured), 1) < count:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        except RuntimeError:
            raise ValueError(
                f"devices={count} cannot be applied, because TensorFlow already runs with {max(len(configured), 1)} "
                "logical CPUs in this process; start a new process, or restart the notebook's kernel"
            ) from None
    return tuple(f"CPU:{number}" for number in range(count))


def rows_owned(rows: int, replica: int, replicas: int) -> int:
    """Returns the number of table rows r with r % `replicas` = `replica`."""
    return max(0, -((replica - rows) // replicas))
