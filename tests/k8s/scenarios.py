"""A fake cluster for submit.py: pods, Jobs and logs."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.k8s.rendering import ROOT

TRAIN = ["train", "--preset", "mf", "--data", "gs://shop/dataset", "--workdir", "gs://shop/run"]
FAST = ["--poll", "0.05", "--patience", "0"]

LOG = [
    "12:00:00 INFO trainer.training.start: starting: 100 rows",
    "12:00:01 INFO trainer.runs.metrics_log: epoch 1: loss 5",
]


@dataclass(frozen=True)
class Cluster:
    """A fake cluster and the environment of submit.py."""

    folder: Path
    environment: dict[str, str]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        # -I -S: without site-packages and environment, only Python and the clone
        command = [sys.executable, "-I", "-S", str(ROOT / "k8s" / "submit.py"), *arguments]
        pipe = subprocess.PIPE
        # tests may run where Ctrl-C is ignored, as under `nohup … &`; a handler here restores it in the child
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def submit(self, *arguments: str) -> tuple[int, str, str]:
        """Runs submit.py; returns exit status, standard output and standard error."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=600)
        return process.returncode, output, errors

    def calls(self, verb: str) -> list[str]:
        path = self.folder / "calls"
        return [line for line in path.read_text().splitlines() if line.startswith(verb)] if path.exists() else []

    def hold(self, change: Callable[[dict], object]) -> None:
        """Changes the objects of the cluster directly. `change` gets them by KIND/NAME."""
        path = self.folder / "cluster.json"
        cluster = json.loads(path.read_text())
        change(cluster["objects"])
        path.write_text(json.dumps(cluster))

    def play(self, **scenario: Any) -> None:
        (self.folder / "scenario.json").write_text(json.dumps({"states": {}, "logs": {}} | scenario))


def job_state(*pods: dict, **condition: str) -> dict:
    """Builds a state of the cluster from its pods and a condition of the Job, such as Failed="BackoffLimitExceeded"."""
    conditions = [{"type": type_, "status": "True", "reason": reason} for type_, reason in condition.items()]
    return {"status": {"conditions": conditions}, "pods": list(pods)}


def pod(name: str, phase: str, *, index: int = 0, born: int = 0, container: str = "main", **state: Any) -> dict:
    """Builds a pod with the state of its container: running, terminated={…} or waiting={…}."""
    status: dict[str, Any] = {"phase": phase, "conditions": state.pop("conditions", [])}
    if state:
        status["containerStatuses"] = [{"name": container, "image": "shop/trainer-gpu:v1", "state": state}]
    limits = {"memory": "32Gi", "nvidia.com/gpu": "4"}
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": f"2026-01-01T00:{born:02}:00Z",
            "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
        },
        "spec": {"containers": [{"name": container, "resources": {"limits": limits}}]},
        "status": status,
    }


def stopped(name: str, exit_code: int, reason: str = "Error", **others: Any) -> dict:
    stop = {"exitCode": exit_code, "reason": reason, "finishedAt": f"2026-01-01T01:{others.get('born', 0):02}:00Z"}
    return pod(name, "Succeeded" if exit_code == 0 else "Failed", terminated=stop, **others)


def log(*lines: str, result: dict | None = None) -> list[str]:
    return [*LOG, *lines, *(json.dumps(result, indent=2).splitlines() if result else [])]


def done(step: str) -> dict:
    return job_state(stopped(f"{step}-a", 0, "Completed"), Complete="CompletionsReached")


WAITING = job_state(pod("train-a", "Pending"))
RUNNING = job_state(pod("train-a", "Running", running={}))
FINISHED = done("train")
RESULT = {"workdir": "gs://shop/run", "validation_metric": "ndcg@20", "best_step": 40, "best_validation": 0.1771}


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + 600
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)
