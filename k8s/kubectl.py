"""Calls kubectl: methods take manifests and return JSON values; each error is one sentence."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from k8s.errors import KubectlError, explain

Object = dict[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster and namespace."""

    context: str | None = None
    """Context of kubectl's configuration; None: the current one."""
    namespace: str | None = None
    """Namespace; None: the namespace of the context."""

    def kustomize(self, folder: str) -> str:
        """Builds the manifests of the kustomization in `folder`. Needs no cluster."""
        return _run(["kubectl", "kustomize", folder])

    def parse(self, manifests: str) -> list[Object]:
        """Parses YAML manifests, and labels the objects as managed by submit.py. Needs no cluster."""
        label = "app.kubernetes.io/managed-by=submit.py"
        text = _run(["kubectl", "label", "--local", "--overwrite", "-f", "-", label, "-o", "json"], manifests)
        objects, rest = [], text.strip()
        while rest:  # concatenated objects without commas
            value, end = json.JSONDecoder().raw_decode(rest)
            objects.append(value)
            rest = rest[end:].lstrip()
        return objects

    def check(self, objects: Sequence[Object]) -> list[str]:
        """Asks the server in a dry run whether it would accept all objects.

        Returns:
          KIND/NAME of each object that does not exist yet.

        Raises:
          KubectlError: the server would refuse an object, or does not answer.
        """
        lines = self._call(["apply", "--dry-run=server", "-f", "-"], _list_of(objects)).splitlines()
        return [line.partition(" ")[0] for line in lines if line.endswith(" created (server dry run)")]

    def apply(self, objects: Sequence[Object]) -> None:
        """Creates the objects, or updates those that exist."""
        self._call(["apply", "-f", "-"], _list_of(objects))

    def get(self, kind: str, name: str) -> Object | None:
        """Returns an object, or None if it does not exist."""
        text = self._call(["get", kind, name, "--ignore-not-found", "-o", "json"])
        return json.loads(text) if text.strip() else None

    def find_all(self, kind: str, selector: str) -> list[Object]:
        """Lists those objects of a kind that match the label selector."""
        items: list[Object] = json.loads(self._call(["get", kind, "-l", selector, "-o", "json"]))["items"]
        return items

    def events(self, uid: str) -> list[Object]:
        """Lists the Kubernetes events of an object."""
        found = self._call(["get", "events", "--field-selector", f"involvedObject.uid={uid}", "-o", "json"])
        items: list[Object] = json.loads(found)["items"]
        return items

    def delete(self, kind: str, name: str) -> None:
        """Starts to delete an object and all that depends on it, such as pods; does not wait."""
        self._call(["delete", kind, name, "--ignore-not-found", "--cascade=foreground", "--wait=false"])

    def logs(self, pod: str, container: str, *options: str) -> str:
        """Returns the log of a container up to now. `options` are flags of `kubectl logs`."""
        return self._call(["logs", pod, "-c", container, *options])

    def follow_logs(self, pod: str, container: str, since: str | None) -> "subprocess.Popen[str]":
        """Starts a process that prints a container's log with timestamps, as it grows.

        Args:
          pod: name of the pod.
          container: name of the container.
          since: a time; earlier lines are not printed. None: all lines are printed.
        """
        options = [f"--since-time={since}"] if since else []
        return subprocess.Popen(
            self.command(["logs", "--follow", "--timestamps", pod, "-c", container, *options]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is handled by this process
        )

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Returns the command line of kubectl with `arguments`, for this cluster and namespace."""
        context = ["--context", self.context] if self.context else []
        namespace = ["--namespace", self.namespace] if self.namespace else []
        return ["kubectl", *context, *namespace, *arguments]

    def _call(self, arguments: Sequence[str], stdin: str | None = None) -> str:
        return _run(self.command(arguments), stdin)


def _list_of(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, allow_nan=False)


def _run(command: Sequence[str], stdin: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", check=False, start_new_session=True
        )
    except FileNotFoundError:
        raise KubectlError(
            "kubectl is not on PATH; install it: kubernetes.io/docs/tasks/tools, or your cloud's command line tools"
        ) from None
    if done.returncode:
        raise explain(done.stderr)
    return done.stdout
