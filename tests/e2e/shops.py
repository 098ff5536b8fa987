"""A namespace with a volume that contains the files of a synthetic shop, and the same run without a cluster."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.namespaces import Namespace, create
from tests.e2e.node import Node

VISITORS = 1000
SETTINGS = ["model.dim=8", "epochs=40", "input.batch_size=256", "patience=none"]
PLACEMENT = ["--registry", "localhost/cartwheel", "--tag", "test", "--cpu", "500m", "--memory", "3Gi", "--poll", "1"]
SECONDS = 1800
"""Time limit of a step."""
_USER = 10001


@dataclass
class Shop:
    """A namespace and its volume."""

    namespace: Namespace
    data: Path
    """Directory of the volume, /data in the pods."""

    def start(self, command: str, *arguments: str) -> "subprocess.Popen[str]":
        """Starts submit.py with a command that submits steps."""
        return self.namespace.start(command, *PLACEMENT, *arguments)

    def run_pipeline(self, root: str, *arguments: str) -> dict[str, Any]:
        """Runs the pipeline from the files in `root`; returns the result of its last step."""
        steps = [*training(root, "run"), "--output", f"{root}/models/cartwheel/1"]
        process = self.start("pipeline", "--events", f"{root}/shop/events.csv", *steps, *arguments)
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        result: dict[str, Any] = json.loads(output[output.rindex("\n{") :] if "\n{" in output else output)
        return result

    def run_pod(self, name: str, *command: str, gpus: int = 0) -> str:
        """Runs a command in a pod with the trainer's image and the volume; returns its output."""
        limits = {"memory": "3Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
        container = {
            "name": "main",
            "image": "localhost/cartwheel/trainer:test",
            "command": list(command),
            "resources": {"limits": limits, "requests": {"cpu": "500m"}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "cartwheel-data"}}],
        }
        self.namespace.create("Pod", name, spec)
        phase = ["get", "pod", name, "-o", "jsonpath={.status.phase}"]
        ends = ("Succeeded", "Failed")
        self.namespace.plane.wait(f"end of pod {name}", lambda: self.namespace.kubectl(*phase) in ends, SECONDS)
        log = self.namespace.kubectl("logs", name)
        assert self.namespace.kubectl(*phase) == "Succeeded", log
        return log


def training(root: str, run: str) -> list[str]:
    """Returns the arguments of a training run that writes to a folder of `root`."""
    return ["--preset", "mf", "--data", f"{root}/dataset", "--workdir", f"{root}/{run}", "--set", *SETTINGS]


def write_shop(folder: Path) -> Path:
    """Writes the files of a synthetic shop."""
    files = folder / "shop"
    _run("preprocessing", "synthesize", "--visitors", str(VISITORS), "--seed", "0", "--output", str(files))
    return files


def run_locally(files: Path, folder: Path) -> None:
    """Prepares and trains without a cluster, with the same folders below `folder` as below /data."""
    _run("preprocessing", "prepare", "--events", str(files / "events.csv"), "--output", str(folder / "dataset"))
    _run("trainer", "train", *training(str(folder), "run"))


def differing(first: Path, second: Path) -> set[str]:
    """Returns the names of the files that are different or that only one folder has."""
    one, two = (
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (first, second)
    )
    assert one, f"{first} contains no files"
    return {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}


@contextmanager
def open_shop(node: Node, files: Path, data: Path) -> Iterator[Shop]:
    """Creates a namespace with a volume that contains the files; deletes both."""
    shutil.copytree(files, data / "shop")
    for folder, _, names in os.walk(data):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(path, _USER, _USER)  # Kubernetes does not change the owner of a directory of the node
    namespace = create(node.plane)
    claim = {"namespace": namespace.name, "name": "cartwheel-data", "kind": "PersistentVolumeClaim"}
    spec = {"capacity": {"storage": "50Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": claim}
    namespace.create("PersistentVolume", namespace.name, spec | {"hostPath": {"path": str(data)}})
    try:
        yield Shop(namespace, data)
    finally:
        namespace.end()
        namespace.plane.kubectl("delete", "persistentvolume", namespace.name, "--wait=false")


def _run(package: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", package, *arguments], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr[-5000:]
