"""Creates a namespace for one test, in which Ada may submit, and runs submit.py as its users do."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.cluster.control_plane import ControlPlane
from tests.k8s.rendering import K8S, ROOT

SUBMIT_SECONDS = 120
TRAIN = ["train", "--preset", "mf", "--data", "gs://shop/dataset", "--workdir", "gs://shop/run"]
QUEUED = ["--queue", "research"]
KUEUE = "kueue.x-k8s.io/v1beta2"
"""Version of Kueue's objects."""
FAST = ["--poll", "0.2", "--patience", "0.05"]


@dataclass
class Namespace:
    """A namespace that enforces Pod Security `restricted` and contains the objects of k8s/namespace."""

    plane: ControlPlane
    name: str
    processes: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, *arguments: str, user: str = "ada") -> "subprocess.Popen[str]":
        """Starts submit.py."""
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(self.plane.kubeconfig(user)),
            "HOME": "/nonexistent",
        }
        command = [sys.executable, "-I", "-S", str(ROOT / "k8s" / "submit.py"), *arguments, "--namespace", self.name]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        self.processes.append(process)
        return process

    def submit(self, *arguments: str, user: str = "ada") -> tuple[int, str, str]:
        """Runs submit.py; returns its exit status, standard output and standard error."""
        process = self.start(*arguments, user=user)
        output, errors = process.communicate(timeout=SUBMIT_SECONDS)
        return process.returncode, output, errors

    def kubectl(self, *arguments: str, **others: Any) -> str:
        """Calls kubectl in this namespace."""
        return self.plane.kubectl("--namespace", self.name, *arguments, **others)

    def create(self, kind: str, name: str, spec: dict[str, Any], version: str = "v1") -> None:
        """Creates an object."""
        value = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.kubectl("create", "-f", "-", objects=[value])

    def running_pods(self) -> set[str]:
        """Returns the names of the running pods."""
        path = "{range .items[*]}{.metadata.name} {.status.phase}{'\\n'}{end}".replace("'", '"')
        lines = self.kubectl("get", "pods", "-o", f"jsonpath={path}").splitlines()
        return {name for name, phase in (line.split() for line in lines) if phase == "Running"}

    def wait_for_pods(self, count: int = 1, known: frozenset[str] = frozenset()) -> set[str]:
        """Waits until at least `count` pods run in addition to the known ones; returns the names of all new pods."""
        self.plane.wait("running pod", lambda: len(self.running_pods() - known) >= count, seconds=60)
        return self.running_pods() - known

    def end_pods(self, exit_code: int, reason: str = "Error", count: int = 1) -> frozenset[str]:
        """Waits for at least `count` running pods, and ends all running pods with an exit code; returns their names."""
        names = self.wait_for_pods(count)
        self.plane.kubelet.exits |= dict.fromkeys(names, (exit_code, reason))
        return frozenset(names)

    def log(self, *lines: str) -> None:
        """Sets the log of every container."""
        self.plane.kubelet.log = list(lines)

    def objects(self) -> set[str]:
        """Returns the objects that a submission may leave, as KIND/NAME."""
        kinds = "jobs,jobsets,configmaps,services,serviceaccounts,persistentvolumeclaims,pods"
        names = set(self.kubectl("get", kinds, "-o", "name").split())
        return {name for name in names if not re.search("kube-root-ca|serviceaccount/default", name)}

    def end(self) -> None:
        """Kills all processes of submit.py, and deletes the namespace without waiting."""
        for process in self.processes:
            process.kill()
            process.communicate()
        self.plane.kubectl("delete", "namespace", self.name, "--wait=false")


def create(plane: ControlPlane) -> Namespace:
    """Creates a namespace with everything in k8s/namespace."""
    name = f"shop-{uuid4().hex[:6]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    value = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    plane.kubectl("create", "-f", "-", objects=[value])
    plane.kubectl("apply", "--namespace", name, "-k", str(K8S / "namespace"))
    namespace = Namespace(plane, name)
    plane.wait("service account", lambda: "default" in namespace.kubectl("get", "serviceaccounts"))
    return namespace


def last_line(errors: str) -> str:
    return errors.splitlines()[-1]
