"""Config and cluster to a tf.distribute strategy, and the few collective operations a training step needs.

R replicas over all workers. A replica knows its index as a Python number while its step is traced, so that it can pick
its own share of a table.
"""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.distributed.cluster import Cluster
from trainer.distributed.preemption import Preempted

# what TensorFlow raises where another worker is gone, was replaced by a new process, or does not answer in time
_LOST_WORKER = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)


@dataclass(frozen=True)
class Replicas:
    """The replicas that train together, and those of this process.

    count     R, over all workers
    devices   devices of this process's replicas
    first     index of the first of them
    workers   processes
    keys      numbers what is exchanged between workers; all ask for the same numbers in the same order
    """

    strategy: tf.distribute.Strategy
    count: int
    devices: tuple[str, ...]
    first: int
    workers: int
    keys: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_chief(self) -> bool:
        """True for the one process that writes logs, metrics and the run's record."""
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
        """The device of one of this process's replicas."""
        return self.devices[replica - self.first]

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls `function(replica, *arguments)` on every replica; returns what the first of this process gave.

        The arguments are the same for all replicas.
        """
        if self.count == 1:
            with tf.device(self.devices[0]):
                return function(0, *arguments)

        def on_replica(*values: Any) -> Any:
            index = tf.get_static_value(tf.distribute.get_replica_context().replica_id_in_sync_group)
            replica = int(index)
            with tf.device(self.device(replica)):
                # without the copy, MultiWorkerMirroredStrategy finds no device for what it should reduce
                return function(replica, *tf.nest.map_structure(tf.identity, values))

        return tf.nest.map_structure(
            lambda value: self.strategy.experimental_local_results(value)[0], self.strategy.run(on_replica, arguments)
        )

    def all_reduce(self, value: tf.Tensor) -> tf.Tensor:
        """The sum of `value` over all replicas; called within `run`."""
        if self.count == 1:
            return value
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    def all_reduce_together(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The sums of several tensors of one type over all replicas, which travel as one; called within `run`."""
        if self.count == 1:
            return list(values)
        summed = self.all_reduce(tf.concat([tf.reshape(value, [-1]) for value in values], axis=0))
        pieces = tf.split(summed, [value.shape.num_elements() for value in values])
        return [tf.reshape(piece, value.shape) for piece, value in zip(pieces, values, strict=True)]

    def all_gather(self, value: tf.Tensor) -> tf.Tensor:
        """The replicas' values one after the other along the first axis; called within `run`."""
        if self.count == 1:
            return value
        return tf.distribute.get_replica_context().all_gather(value, axis=0)

    def sum_over_workers(self, value: np.ndarray) -> np.ndarray:
        """The sum of the workers' arrays of one shape; every worker calls it, outside `run`, and waits for all."""
        if self.workers == 1 or not value.size:  # a collective operation on no entries ends the process
            return value

        def on_replica(replica: int, own: tf.Tensor) -> tf.Tensor:
            return self.all_reduce(own if replica == self.first else tf.zeros_like(own))

        summed: np.ndarray = self.run(on_replica, tf.constant(value)).numpy()
        return summed

    def any_worker_each(self, *flags: bool) -> tuple[bool, ...]:
        """Of each flag whether some worker says so; every worker calls it, outside `run`, and waits for the others."""
        if self.workers == 1:
            return flags
        own = tf.constant(flags, tf.float32)
        summed = self.run(lambda replica, value: self.all_reduce(value), own)  # noqa: ARG005
        return tuple((summed.numpy() > 0).tolist())

    def any_worker(self, flag: bool) -> bool:
        """True where some worker says so, see `any_worker_each`."""
        return self.any_worker_each(flag)[0]

    def wait_for_all(self) -> None:
        """Returns once every worker has come here; called outside `run`."""
        self.any_worker(False)


def start_replicas(devices: int | None, cluster: Cluster | None) -> Replicas:
    """Every replica this config and cluster ask for; to be called before TensorFlow's first operation.

    Args:
      devices: replicas in this process; None: all GPUs, or one CPU.
      cluster: the workers that train together; None: this process alone.

    Raises:
      ValueError: more devices than there are, or TensorFlow had started with fewer logical CPUs.
    """
    # the strategy of several workers must exist before anything else touches TensorFlow's context
    names = _choose_devices(devices) if cluster is None else ()
    if cluster is not None:
        return _start_workers(devices, cluster)
    if len(names) == 1:
        return Replicas(tf.distribute.get_strategy(), 1, names, 0, 1)
    # logical CPUs share their memory: adding on one is as fast as a ring, and unlike a ring's keys, which are numbered
    # anew by each strategy, it lets a process train with two replicas and then with four
    operations = None if "GPU" in names[0] else tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(list(names), cross_device_ops=operations)
    return Replicas(strategy, len(names), names, 0, 1)


@contextmanager
def preempt_on_worker_loss(cluster: Cluster | None) -> Iterator[None]:
    """Ends a run as preempted where another of its workers is lost: no fault of this one, and what was saved stays.

    Raises:
      Preempted: instead of TensorFlow's error.
    """
    try:
        yield
    except _LOST_WORKER as error:
        if cluster is None:
            raise
        raise Preempted(
            f"worker {cluster.index} lost another of the {len(cluster.hosts)} workers ({type(error).__name__}); "
            "started again together, they go on from what was saved"
        ) from error


def check_batch_divides(batch_size: int, replicas: int) -> None:
    """Raises ValueError unless every replica gets the same number of a batch's rows; names the nearest that do."""
    if batch_size % replicas == 0:
        return
    below = batch_size // replicas * replicas
    nearest = " or ".join(str(size) for size in (below, below + replicas) if size)
    raise ValueError(f"batch {batch_size} does not divide among {replicas} replicas; use {nearest}")


def _start_workers(devices: int | None, cluster: Cluster) -> Replicas:
    names = _choose_devices(devices)
    is_gpu = "GPU" in names[0]
    if not is_gpu and len(names) > 1:
        raise ValueError(f"devices={devices} on CPUs goes with one worker only; start more workers instead")
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.NCCL if is_gpu else communication.RING
    )
    handler = signal.getsignal(signal.SIGTERM)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if threading.current_thread() is threading.main_thread():
        # with the strategy, TensorFlow has put a handler of its own in the place of the program's, which saves and ends
        signal.signal(signal.SIGTERM, handler)
    workers = len(cluster.hosts)
    local = strategy.num_replicas_in_sync // workers
    kind = "GPU" if is_gpu else "CPU"
    task = f"/job:worker/replica:0/task:{cluster.index}"
    full = tuple(f"{task}/device:{kind}:{number}" for number in range(local))
    return Replicas(strategy, strategy.num_replicas_in_sync, full, cluster.index * local, workers)


def _choose_devices(devices: int | None) -> tuple[str, ...]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if devices is not None and devices > len(gpus):
            raise ValueError(f"devices={devices} but this machine has {len(gpus)} GPUs; lower it or leave it out")
        return tuple(f"GPU:{number}" for number in range(devices or len(gpus)))
    count = devices or 1
    _make_logical_cpus(count)
    return tuple(f"CPU:{number}" for number in range(count))


def _make_logical_cpus(count: int) -> None:
    """Splits the CPU into logical devices, unless TensorFlow already runs with enough of them."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or []
    if max(len(configured), 1) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise ValueError(
            f"devices={count} must be asked for before TensorFlow starts; it runs with {len(configured)} logical CPUs"
        ) from None


def rows_owned(rows: int, replica: int, replicas: int) -> int:
    """How many of `rows` rows lie with a replica, when row r lies with replica r % R."""
    return max(0, -((replica - rows) // replicas))
