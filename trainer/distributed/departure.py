"""The end of a run of several workers: they wait for each other, and the chief exits last."""

import socket
import time

import tensorflow as tf
from tensorflow.python.eager import context

from trainer.distributed.cluster import Cluster, is_chief
from trainer.distributed.preemption import Preempted

_REPORT_SECONDS = 3600
"""How long the other workers wait for the chief, which writes the report."""
_LEAVE_SECONDS = 8
"""How long the chief waits for the others to exit; TensorFlow reports a worker as lost after ten seconds."""


def leave_together(cluster: Cluster | None) -> None:
    """Waits until all workers have finished. The chief, which runs TensorFlow's coordinator, then exits last.

    If another worker exited while the chief is still writing the report, TensorFlow would log that this worker has
    crashed. If the chief were then lost, the run could not resume, because Kubernetes does not restart a worker that
    has succeeded.

    Args:
      cluster: the workers; None: this process trains alone, and does not wait.

    Raises:
      Preempted: another worker was lost, or did not finish within an hour.
    """
    if cluster is None:
        return
    try:
        context.context().wait_at_barrier("cartwheel_departure", 1000 * _REPORT_SECONDS)
    except tf.errors.OpError as error:
        raise Preempted(
            f"worker {cluster.index} lost the connection to another of the {len(cluster.hosts)} workers at the end of "
            f"the run ({type(error).__name__}); start all workers again to complete the run"
        ) from error
    if is_chief(cluster):
        end = time.monotonic() + _LEAVE_SECONDS
        while any(time.monotonic() < end and _answers(host) for host in cluster.hosts[1:]):
            time.sleep(0.1)


def _answers(host: str) -> bool:
    """Returns whether a process listens at `host` (host:port)."""
    name, _, port = host.rpartition(":")
    try:
        socket.create_connection((name, int(port)), timeout=1).close()
    except OSError:
        return False
    return True
