"""Calls kubectl: methods take manifests and return JSON values; errors are one sentence."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

_NOTICE = re.compile(r"Warning:|[EWI]\d{4} ")
_UNREACHABLE = re.compile(r"Unable to connect|connection refused|no such host|timeout|timed out|TLS handshake|\bEOF\b")
_UNKNOWN_USER = re.compile(r"Unauthorized|must be logged in|exec: executable|getting credentials")
_MISSING_KIND = re.compile(r'no matches for kind "(\w+)"|resource type "(\w+)"')


class KubectlError(Exception):
    """An error of kubectl, with what to do about it."""

    def __init__(
        self, text: str, *, is_transient: bool = False, is_unknown_kind: bool = False, is_forbidden: bool = False
    ) -> None:
        """Keeps the kind of the error.

        Args:
          text: the message.
          is_transient: the cluster did not answer; it may answer later.
          is_unknown_kind: the cluster has no objects of that kind.
          is_forbidden: the user lacks the right.
        """
        super().__init__(text)
        self.is_transient = is_transient
        self.is_unknown_kind = is_unknown_kind
        self.is_forbidden = is_forbidden


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster and namespace."""

    context: str | None = None
    """Context of kubectl's configuration; None: the current one."""
    namespace: str | None = None
    """Namespace; None: that of the context."""

    def kustomize(self, folder: str) -> str:
        """Builds the manifests of a folder with a kustomization.yaml; needs no cluster."""
        return _run(["kubectl", "kustomize", folder])

    def parse(self, manifests: str) -> list[Object]:
        """Parses YAML manifests and labels each as managed by submit.py; needs no cluster."""
        label = "app.kubernetes.io/managed-by=submit.py"
        text = _run(["kubectl", "label", "--local", "--overwrite", "-f", "-", label, "-o", "json"], manifests)
        objects, rest = [], text.strip()
        while rest:  # concatenated objects without commas
            value, end = json.JSONDecoder().raw_decode(rest)
            objects.append(value)
            rest = rest[end:].lstrip()
        return objects

    def apply(self, objects: Sequence[Object]) -> None:
        """Creates the objects, or updates those that exist."""
        self._call(
            ["apply", "-f", "-"], json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}, allow_nan=False)
        )

    def get(self, kind: str, name: str) -> Object | None:
        """Gets an object; None if there is none."""
        text = self._call(["get", kind, name, "--ignore-not-found", "-o", "json"])
        return json.loads(text) if text.strip() else None

    def find_all(self, kind: str, selector: str) -> list[Object]:
        """Lists the objects with the labels of a selector."""
        items: list[Object] = json.loads(self._call(["get", kind, "-l", selector, "-o", "json"]))["items"]
        return items

    def delete(self, kind: str, name: str) -> None:
        """Deletes an object and its dependents, and returns once all are gone."""
        self._call(["delete", kind, name, "--ignore-not-found", "--cascade=foreground", "--wait"])

    def logs(self, pod: str, container: str, *options: str) -> str:
        """Returns the log of a container so far."""
        return self._call(["logs", pod, "-c", container, *options])

    def follow_logs(self, pod: str, container: str, since: str | None) -> "subprocess.Popen[str]":
        """Starts a process that prints new log lines of a container, with timestamps, from the time `since` on."""
        options = [f"--since-time={since}"] if since else []
        return subprocess.Popen(
            self.command(["logs", "--follow", "--timestamps", pod, "-c", container, *options]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is handled by this process
        )

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Returns the command line of a call to this cluster."""
        context = ["--context", self.context] if self.context else []
        namespace = ["--namespace", self.namespace] if self.namespace else []
        return ["kubectl", *context, *namespace, *arguments]

    def _call(self, arguments: Sequence[str], stdin: str | None = None) -> str:
        return _run(self.command(arguments), stdin)


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
        raise _explain(done.stderr)
    return done.stdout


def _explain(stderr: str) -> KubectlError:
    """Turns the standard error of kubectl into one sentence."""
    lines = [line for line in stderr.splitlines() if line.strip() and not _NOTICE.match(line)]
    last = lines[-1] if lines else stderr.strip() or "kubectl failed without a message"
    if "(Forbidden)" in stderr:
        refused = last.partition("(Forbidden): ")[2] or last
        return KubectlError(
            f"no permission: {refused}; ask for a role that can create, get, list and delete jobs, configmaps, "
            "services and serviceaccounts (and jobsets for --overlay jobset), and get pods and their logs",
            is_forbidden=True,
        )
    if _UNKNOWN_USER.search(stderr):
        return KubectlError(f"the cluster does not accept your credentials: {last}; log in again")
    if _UNREACHABLE.search(stderr):
        return KubectlError(
            f"the cluster does not answer: {last}; `kubectl config current-context` shows which cluster it is",
            is_transient=True,
        )
    missing = _MISSING_KIND.search(stderr)
    if missing:
        kind = missing[1] or missing[2]
        return KubectlError(
            f"this cluster has no {kind}; install its controller, or use another --overlay", is_unknown_kind=True
        )
    return KubectlError(f"kubectl: {last}")
