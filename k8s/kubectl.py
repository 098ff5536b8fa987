"""kubectl as functions: manifests in, JSON values out, and what it refuses in one sentence."""

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
    """What kubectl could not do, and what to do about it.

    is_transient      the cluster did not answer: it may later
    is_unknown_kind   the cluster has no objects of that kind
    is_forbidden      the user may not do it
    """

    def __init__(
        self, text: str, *, is_transient: bool = False, is_unknown_kind: bool = False, is_forbidden: bool = False
    ) -> None:
        super().__init__(text)
        self.is_transient = is_transient
        self.is_unknown_kind = is_unknown_kind
        self.is_forbidden = is_forbidden


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster and namespace; None: those of the current context."""

    context: str | None = None
    namespace: str | None = None

    def kustomize(self, folder: str) -> str:
        """The manifests that a folder with a kustomization.yaml makes; needs no cluster."""
        return _run(["kubectl", "kustomize", folder])

    def parse(self, manifests: str) -> list[Object]:
        """YAML manifests as values, each labelled as made by submit.py; needs no cluster."""
        label = "app.kubernetes.io/managed-by=submit.py"
        text = _run(["kubectl", "label", "--local", "--overwrite", "-f", "-", label, "-o", "json"], manifests)
        objects, rest = [], text.strip()
        while rest:  # one object after the other, without commas
            value, end = json.JSONDecoder().raw_decode(rest)
            objects.append(value)
            rest = rest[end:].lstrip()
        return objects

    def apply(self, objects: Sequence[Object]) -> None:
        """Creates the objects, or changes those that are there."""
        self._ask(["apply", "-f", "-"], json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind: str, name: str) -> Object | None:
        """An object, None if there is none."""
        text = self._ask(["get", kind, name, "--ignore-not-found", "-o", "json"])
        return json.loads(text) if text.strip() else None

    def find_all(self, kind: str, selector: str) -> list[Object]:
        """The objects with the labels of a selector."""
        items: list[Object] = json.loads(self._ask(["get", kind, "-l", selector, "-o", "json"]))["items"]
        return items

    def delete(self, kind: str, name: str) -> None:
        """Deletes an object and what belongs to it, and returns once all is gone."""
        self._ask(["delete", kind, name, "--ignore-not-found", "--cascade=foreground", "--wait"])

    def logs(self, pod: str, container: str, *options: str) -> str:
        """What a container has said so far."""
        return self._ask(["logs", pod, "-c", container, *options])

    def follow_logs(self, pod: str, container: str, since: str | None) -> "subprocess.Popen[str]":
        """A process that prints a container's lines, each after its time, as they come; from `since` on."""
        options = [f"--since-time={since}"] if since else []
        return subprocess.Popen(
            self.command(["logs", "--follow", "--timestamps", pod, "-c", container, *options]),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C is ours to answer
        )

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The command line that asks this cluster."""
        context = ["--context", self.context] if self.context else []
        namespace = ["--namespace", self.namespace] if self.namespace else []
        return ["kubectl", *context, *namespace, *arguments]

    def _ask(self, arguments: Sequence[str], stdin: str | None = None) -> str:
        return _run(self.command(arguments), stdin)


def _run(command: Sequence[str], stdin: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", check=False, start_new_session=True
        )
    except FileNotFoundError:
        raise KubectlError(
            "kubectl is not on PATH; install it (kubernetes.io/docs/tasks/tools, or your cloud's tools) and try again"
        ) from None
    if done.returncode:
        raise _explain(done.stderr)
    return done.stdout


def _explain(stderr: str) -> KubectlError:
    """What kubectl wrote as it failed, in one sentence."""
    lines = [line for line in stderr.splitlines() if line.strip() and not _NOTICE.match(line)]
    last = lines[-1] if lines else stderr.strip() or "kubectl failed without a word"
    if "(Forbidden)" in stderr:
        refused = last.partition("(Forbidden): ")[2] or last
        return KubectlError(
            f"no permission: {refused}; ask for a role that may create, get, list and delete jobs, configmaps, "
            "services and serviceaccounts (with --overlay jobset jobsets too), and get pods and their logs",
            is_forbidden=True,
        )
    if _UNKNOWN_USER.search(stderr):
        return KubectlError(f"the cluster does not know you: {last}; log in again")
    if _UNREACHABLE.search(stderr):
        return KubectlError(
            f"the cluster does not answer: {last}; `kubectl config current-context` tells which one is asked",
            is_transient=True,
        )
    missing = _MISSING_KIND.search(stderr)
    if missing:
        kind = missing[1] or missing[2]
        return KubectlError(
            f"this cluster has no {kind}; install its controller, or take another --overlay", is_unknown_kind=True
        )
    return KubectlError(f"kubectl: {last}")
