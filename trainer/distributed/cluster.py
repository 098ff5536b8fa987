"""Finds the workers that train together, and sets TF_CONFIG from the Kubernetes environment.

Other modules of the trainer read environment variables only to examine the machine and to explain problems.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """The workers that train together."""

    hosts: tuple[str, ...]
    """host:port of every worker, in order."""
    index: int
    """Index of this process; 0 is the chief."""

    def __post_init__(self) -> None:
        workers = len(self.hosts)
        if not 0 <= self.index < workers:
            raise ValueError(
                f"worker index {self.index} is out of range for {workers} workers (0 to {workers - 1}); "
                "correct the task index in TF_CONFIG, or JOB_COMPLETION_INDEX and CARTWHEEL_WORKERS"
            )


def join_cluster() -> Cluster | None:
    """Returns the cluster of this process and sets TF_CONFIG for TensorFlow; None if the process trains alone."""
    cluster = read_cluster(os.environ)
    if cluster is not None:
        os.environ["TF_CONFIG"] = tf_config(cluster)
    return cluster


def is_chief(cluster: Cluster | None) -> bool:
    """Whether this process writes logs, metrics and outputs."""
    return cluster is None or cluster.index == 0


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """Reads the cluster from TF_CONFIG, or from the variables of a Kubernetes Indexed Job.

    A Job sets CARTWHEEL_WORKERS (the number of workers), CARTWHEEL_JOB (its name), CARTWHEEL_SERVICE (its headless
    Service) and CARTWHEEL_PORT; Kubernetes sets JOB_COMPLETION_INDEX. The address of worker 3 is JOB-3.SERVICE:PORT.

    Returns:
      The cluster; None if the variables are not set, or if there is only one worker.

    Raises:
      ValueError: the variables are incomplete or contradict each other.
    """
    if "TF_CONFIG" in environment:
        return _from_tf_config(environment["TF_CONFIG"])
    if int(environment.get("CARTWHEEL_WORKERS", "1")) == 1:
        return None
    names = ("JOB_COMPLETION_INDEX", "CARTWHEEL_WORKERS", "CARTWHEEL_JOB", "CARTWHEEL_SERVICE", "CARTWHEEL_PORT")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise ValueError(
            f"CARTWHEEL_WORKERS is {environment['CARTWHEEL_WORKERS']}, but these variables are not set: "
            f"{', '.join(missing)}; set them on every worker"
        )
    index, workers, job, service, port = (environment[name] for name in names)
    hosts = tuple(f"{job}-{worker}.{service}:{port}" for worker in range(int(workers)))
    return Cluster(hosts, int(index))


def tf_config(cluster: Cluster) -> str:
    """Returns the value of TF_CONFIG for a cluster."""
    task = {"type": "worker", "index": cluster.index}
    return json.dumps({"cluster": {"worker": list(cluster.hosts)}, "task": task})


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text)
        hosts = config.get("cluster", {}).get("worker", [])
        task = config.get("task", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"TF_CONFIG is not the JSON object that TensorFlow expects ({error}), got {text}; correct it, or unset it "
            "to train in a single process"
        ) from error
    if len(hosts) < 2:
        return None
    if task.get("type") != "worker":
        raise ValueError(
            f"TF_CONFIG has the task type {task.get('type')}, but only workers can train; use the type worker for "
            "all tasks"
        )
    return Cluster(tuple(hosts), int(task["index"]))
