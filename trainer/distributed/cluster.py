"""Kubernetes environment to TF_CONFIG; the only place of the trainer that reads or writes the environment."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Cluster:
    """The hosts that train together and this process's place among them.

    hosts   host:port of every worker, in order
    index   this worker; 0 is the chief
    """

    hosts: tuple[str, ...]
    index: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < len(self.hosts):
            raise ValueError(f"worker index {self.index} is not one of the {len(self.hosts)} workers")


def join_cluster() -> Cluster | None:
    """The cluster this process belongs to, with TF_CONFIG set for TensorFlow; None: it trains alone."""
    cluster = read_cluster(os.environ)
    if cluster is not None:
        os.environ["TF_CONFIG"] = tf_config(cluster)
    return cluster


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster told by TF_CONFIG, or by the index of a Kubernetes Indexed Job.

    A Job sets, beside Kubernetes' own JOB_COMPLETION_INDEX: CARTWHEEL_WORKERS (how many), CARTWHEEL_JOB (the Job's
    name), CARTWHEEL_SERVICE (its headless Service), and CARTWHEEL_PORT. Worker 3 is then JOB-3.SERVICE:PORT.

    Returns:
      None without either, or with a single worker.

    Raises:
      ValueError: what the environment says is incomplete or contradicts itself.
    """
    if "TF_CONFIG" in environment:
        return _from_tf_config(environment["TF_CONFIG"])
    if int(environment.get("CARTWHEEL_WORKERS", "1")) == 1:
        return None
    names = ("JOB_COMPLETION_INDEX", "CARTWHEEL_WORKERS", "CARTWHEEL_JOB", "CARTWHEEL_SERVICE", "CARTWHEEL_PORT")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise ValueError(f"CARTWHEEL_WORKERS asks for several workers but {', '.join(missing)} is not set")
    index, workers, job, service, port = (environment[name] for name in names)
    hosts = tuple(f"{job}-{worker}.{service}:{port}" for worker in range(int(workers)))
    return Cluster(hosts, int(index))


def tf_config(cluster: Cluster) -> str:
    """The value of TF_CONFIG that TensorFlow reads."""
    task = {"type": "worker", "index": cluster.index}
    return json.dumps({"cluster": {"worker": list(cluster.hosts)}, "task": task})


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text)
        hosts = config.get("cluster", {}).get("worker", [])
        task = config.get("task", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG is not the JSON object that TensorFlow expects ({error}): {text}") from error
    if len(hosts) < 2:
        return None
    if task.get("type") != "worker":
        raise ValueError(f"TF_CONFIG names a task of type {task.get('type')}; every task must be a worker")
    return Cluster(tuple(hosts), int(task["index"]))
