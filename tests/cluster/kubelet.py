"""A fake kubelet for all nodes, without containers. Pods run until a test ends them, and log the lines that it sets.

This kubelet replaces kwok, which does not build with the release of Kubernetes' packages that the other programs need.
Also, logs that are followed never end in kwok.
"""

import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.3
SAVED = 75
Object = dict[str, Any]


@dataclass
class Kubelet:
    """The kubelet of all nodes."""

    folder: Path
    """Directory with the certificate tls.crt and its key tls.key."""
    api: str
    """URL of the API server."""
    port: int
    """Port on which logs are served."""
    log: list[str] = field(default_factory=list)
    """Log lines of every container."""
    exits: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Exit code and reason of each pod that is to end, by name."""
    lost: set[str] = field(default_factory=set)
    """Names of the nodes that do not answer."""

    def __post_init__(self) -> None:
        self._running: set[str] = set()
        self._is_ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._server.serve_forever, self._run_pods)
        ]

    def start(self) -> None:
        """Starts to run pods and to serve logs."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stops running pods and serving logs."""
        self._is_ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _run_pods(self) -> None:
        while not self._is_ended.wait(POLL_SECONDS):
            try:
                pods = self._call("GET", "/api/v1/pods")["items"]
                self._running = {_name(pod) for pod in pods if pod["status"].get("phase") == "Running"}
                for pod in pods:
                    if pod["spec"].get("nodeName") not in {None, *self.lost}:
                        self._advance(pod)
            except (OSError, urllib.error.HTTPError):
                continue  # changed meanwhile, or the cluster is ending: the next poll sees it

    def _advance(self, pod: Object) -> None:
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{_name(pod)}"
        phase = pod["status"].get("phase", "Pending")
        is_deleted = "deletionTimestamp" in pod["metadata"]
        if phase in ("Succeeded", "Failed"):
            if is_deleted:
                self._call("DELETE", f"{path}?gracePeriodSeconds=0")
        elif is_deleted:  # saves and ends
            self._call("PATCH", f"{path}/status", {"status": _ended(pod, SAVED, "Error")})
        elif phase == "Pending":
            self._call("PATCH", f"{path}/status", {"status": _started(pod)})
        elif _name(pod) in self.exits:
            self._call("PATCH", f"{path}/status", {"status": _ended(pod, *self.exits[_name(pod)])})

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.api}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "Bearer admin", "Content-Type": "application/strategic-merge-patch+json"},
        )
        context = ssl._create_unverified_context()
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return json.load(answer)

    def _handler(kubelet) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (the handler has a self of its own)
        class Logs(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Serves the log at /containerLogs/NAMESPACE/POD/CONTAINER. A followed log ends with the container."""
                pod = self.path.split("/")[3]
                self.send_response(200)
                self.end_headers()
                lines = [f"2026-01-01T00:00:{second:02}Z {line}\n" for second, line in enumerate(kubelet.log)]
                self.wfile.write("".join(lines).encode())
                self.wfile.flush()
                while "follow=true" in self.path and pod in kubelet._running and not kubelet._is_ended.is_set():
                    time.sleep(POLL_SECONDS)

            def log_message(self, *arguments: object) -> None:
                """Logs no requests, to keep the output of the tests short."""

        return Logs


def nodes(port: int) -> list[Object]:
    """Builds five nodes with the labels and taints of GKE: two with 8 GPUs, two spot nodes with 8, and one without.

    Args:
      port: port of the kubelet.
    """
    return [
        _node(name, gpus, is_spot, port)
        for name, gpus, is_spot in (("a", 8, False), ("b", 8, False), ("c", 8, True), ("d", 8, True), ("e", 0, False))
    ]


def _node(name: str, gpus: int, is_spot: bool, port: int) -> Object:
    labels, taints = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}, []
    resources = {"cpu": "96", "memory": "768Gi", "ephemeral-storage": "500Gi", "pods": "110"}
    if gpus:
        labels["cloud.google.com/gke-accelerator"] = "nvidia-l4"
        taints.append({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"})
        resources["nvidia.com/gpu"] = str(gpus)
    if is_spot:
        labels["cloud.google.com/gke-spot"] = "true"
        taints.append({"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"})
    status = {
        "allocatable": resources,
        "capacity": resources,
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}],
    }
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"taints": taints}, "status": status}


def _started(pod: Object) -> Object:
    begun = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": _now(), "finishedAt": _now()}}
    return {
        "phase": "Running",
        "startTime": _now(),
        "conditions": [{"type": kind, "status": "True"} for kind in ("Initialized", "Ready", "ContainersReady")],
        "initContainerStatuses": _statuses(pod["spec"].get("initContainers", []), begun),
        "containerStatuses": _statuses(pod["spec"]["containers"], {"running": {"startedAt": _now()}}),
    }


def _ended(pod: Object, exit_code: int, reason: str) -> Object:
    stop = {"exitCode": exit_code, "reason": reason, "startedAt": _now(), "finishedAt": _now()}
    return {
        "phase": "Failed" if exit_code else "Succeeded",
        "conditions": [{"type": kind, "status": "False"} for kind in ("Ready", "ContainersReady")],
        "containerStatuses": _statuses(pod["spec"]["containers"], {"running": None, "terminated": stop}),
    }


def _statuses(containers: list[Object], state: Object) -> list[Object]:
    fixed = {"imageID": "", "ready": "running" in state, "restartCount": 0}
    return [{"name": value["name"], "image": value["image"], "state": state, **fixed} for value in containers]


def _name(pod: Object) -> str:
    name: str = pod["metadata"]["name"]
    return name


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
