"""Starts and ends a Kubernetes control plane with JobSet and Kueue on this machine, by default with fake nodes."""

import base64
import ctypes
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.binaries import ADDONS, Binaries
from tests.cluster.kubelet import Kubelet, nodes
from tests.k8s.rendering import yaml

START_SECONDS = 180
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_WEBHOOKS = {"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}
_IN_PODS = {"Deployment", "ConfigMap", "APIService", "PriorityLevelConfiguration", "FlowSchema"}
"""Kinds of objects that only the addons' pods need. They are not applied: the addons run as processes instead."""
USERS = {
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "ada": "cartwheel-submitters",
    "bob": "",
    **{f"system:serviceaccount:{name}-system:{name}-controller-manager": "system:serviceaccounts" for name in ADDONS},
}
"""Group of each user. The token of a user is the user's name. Ada has the Role of k8s/namespace; Bob has no Role."""


@dataclass
class ControlPlane:
    """A running cluster."""

    folder: Path
    """Directory of certificates, data and logs."""
    binaries: Binaries
    """The programs of the cluster."""
    address: str = "127.0.0.1"
    """Address of the API server."""
    api_port: int = 0
    """Port of the API server."""
    kubelet: Kubelet | None = None
    """The fake nodes."""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """The running processes."""

    def kubeconfig(self, user: str) -> Path:
        """Writes the configuration of kubectl for a user, or returns the existing one."""
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        if not path.exists():
            cluster = {"server": f"https://{self.address}:{self.api_port}", "insecure-skip-tls-verify": True}
            config = {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "clusters": [{"name": "here", "cluster": cluster}],
                "users": [{"name": "me", "user": {"token": user}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            }
            path.write_text(json.dumps(config))
        return path

    def kubectl(self, *arguments: str, objects: Any = None, user: str = "admin", is_checked: bool = True) -> str:
        """Calls kubectl as a user, with objects on standard input; returns its output.

        If `is_checked`, the call must succeed; otherwise, the result also contains standard error.
        """
        text = None if objects is None else json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig(user)), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
        assert not is_checked or done.returncode == 0, done.stderr
        return done.stdout if is_checked else done.stdout + done.stderr

    def launch(self, name: str, *arguments: str, **environment: str) -> None:
        """Starts a program. The kernel kills it when this process ends, even by SIGKILL."""
        with open(self.folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                [self.binaries.programs[name], *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                preexec_fn=end_with_parent,  # noqa: PLW1509 (no other thread runs yet)
            )

    def end(self) -> None:
        """Ends all processes, the last started first."""
        if self.kubelet is not None:
            self.kubelet.end()
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in reversed(self.processes.values()):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait(self, what: str, is_true: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Waits until a condition is true; fails after `seconds`, or if a process ended."""
        end = time.monotonic() + seconds
        while not is_true():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    pytest.fail(f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}")
            assert time.monotonic() < end, f"no {what} after {seconds:g} s"
            time.sleep(0.2)


def end_with_parent() -> None:
    """Prepares a new process: the kernel kills it when its parent ends. It gives way to other processes."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(19)


@contextmanager
def running(folder: Path, binaries: Binaries) -> Iterator[ControlPlane]:
    """Runs a cluster with JobSet, Kueue and five fake nodes."""
    with running_without_nodes(ControlPlane(folder, binaries)) as plane:
        _start_nodes(plane)
        plane.wait("nodes", lambda: plane.kubectl("get", "nodes").count(" Ready") == 5)
        yield plane


@contextmanager
def running_without_nodes(plane: ControlPlane) -> Iterator[ControlPlane]:
    """Runs a control plane with JobSet and Kueue; ends it and its nodes."""
    try:
        _start(plane)
        yield plane
    finally:
        plane.end()


def _start(plane: ControlPlane) -> None:
    _create_certificate(plane.folder)
    tokens = [f"{','.join([user] * 3 + [group] * bool(group))}\n" for user, group in USERS.items()]
    (plane.folder / "tokens.csv").write_text("".join(tokens))
    etcd, peer, plane.api_port, *webhooks = free_ports(3 + 2 * len(ADDONS))
    _start_storage(plane, etcd, peer)
    _start_api_server(plane, etcd)
    plane.wait("API server", lambda: plane.kubectl("get", "--raw", "/readyz", is_checked=False) == "ok")
    _start_controllers(plane)
    for index, name in enumerate(ADDONS):
        _start_addon(plane, name, webhooks[2 * index], webhooks[2 * index + 1])
    plane.wait("service account", lambda: "default" in plane.kubectl("get", "serviceaccounts", is_checked=False))


def _create_certificate(folder: Path) -> None:
    """Creates a self-signed certificate for all servers. Its key also signs tokens of service accounts."""
    names = "subjectAltName=DNS:jobset-webhook-service.jobset-system.svc,DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=cartwheel"]
    paths = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    subprocess.run([*command, "-addext", names, *paths], check=True, capture_output=True)


def _start_storage(plane: ControlPlane, port: int, peer: int) -> None:
    client, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    flags = {
        "data-dir": plane.folder / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
        "unsafe-no-fsync": "true",
    }
    plane.launch("etcd", *_flags(flags))


def _start_api_server(plane: ControlPlane, etcd: int) -> None:
    certificate, key = plane.folder / "tls.crt", plane.folder / "tls.key"
    flags = {
        "etcd-servers": f"http://127.0.0.1:{etcd}",
        "bind-address": plane.address,
        "secure-port": plane.api_port,
        "advertise-address": plane.address,
        "endpoint-reconciler-type": "none",
        "tls-cert-file": certificate,
        "tls-private-key-file": key,
        "token-auth-file": plane.folder / "tokens.csv",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": certificate,
        "service-account-signing-key-file": key,
        "service-cluster-ip-range": "10.96.0.0/16",
        "authorization-mode": "RBAC",
        "kubelet-client-certificate": certificate,
        "kubelet-client-key": key,
        "kubelet-preferred-address-types": "InternalIP",
        "default-unreachable-toleration-seconds": 1,  # pods leave a lost node at once, not after five minutes
    }
    plane.launch("kube-apiserver", *_flags(flags))


def _start_controllers(plane: ControlPlane) -> None:
    certificate, key = plane.folder / "tls.crt", plane.folder / "tls.key"
    keys = {
        "node-monitor-grace-period": "24h",  # the fake nodes send no heartbeats
        "service-account-private-key-file": key,
        "root-ca-file": certificate,
        "use-service-account-credentials": "true",
    }
    for name, others in (("kube-controller-manager", keys), ("kube-scheduler", {})):
        (port,) = free_ports(1)
        flags = {
            "kubeconfig": plane.kubeconfig(f"system:{name}"),
            "bind-address": "127.0.0.1",
            "secure-port": port,
            "leader-elect": "false",
        }
        plane.launch(name, *_flags(flags | others))


def _start_nodes(plane: ControlPlane) -> None:
    (port,) = free_ports(1)
    plane.kubelet = Kubelet(plane.folder, f"https://127.0.0.1:{plane.api_port}", port)
    plane.kubelet.start()
    plane.kubectl("create", "-f", "-", objects=nodes(port))


def _start_addon(plane: ControlPlane, name: str, webhook: int, health: int) -> None:
    """Starts an addon's controller as a process; the webhooks of its manifests are directed to it."""
    text = plane.binaries.manifests[name].read_text()
    objects = [value for value in yaml.safe_load_all(text) if value and value["kind"] not in _IN_PODS]
    authority = base64.b64encode((plane.folder / "tls.crt").read_bytes()).decode()
    for value in objects:
        _redirect(value, webhook, authority)
    first = {"Namespace": 0, "CustomResourceDefinition": 1}
    objects.sort(key=lambda value: first.get(value["kind"], 3 if value["kind"] in _WEBHOOKS else 2))
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", objects=objects)
    config = plane.folder / f"{name}.json"
    config.write_text(json.dumps(_addon_config(name, plane.folder, webhook, health)))
    kubeconfig = plane.kubeconfig(f"system:serviceaccount:{name}-system:{name}-controller-manager")
    plane.launch(name, f"--config={config}", KUBECONFIG=str(kubeconfig))
    if name == "kueue":
        plane.wait("certificate of Kueue", lambda: _mount_kueue_certificate(plane))
    plane.wait(name, lambda: is_ready(health))


def _mount_kueue_certificate(plane: ControlPlane) -> bool:
    """Copies Kueue's certificate from its Secret to a folder, as a kubelet does; returns False if there is none yet."""
    folder = plane.folder / "kueue-certificates"
    folder.mkdir(exist_ok=True)
    text = plane.kubectl("get", "secret", "kueue-webhook-server-cert", "--namespace=kueue-system", "-o", "json")
    data = json.loads(text).get("data", {})
    for file in ("tls.key", "tls.crt"):
        if file not in data:
            return False
        (folder / file).write_bytes(base64.b64decode(data[file]))
    return True


def _redirect(value: dict[str, Any], port: int, authority: str) -> None:
    """Directs the webhooks of an object, and the Service that leads to them, to a port of this machine."""
    if value["kind"] == "Service":
        value["spec"] = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    configs = [webhook["clientConfig"] for webhook in value.get("webhooks", [])]
    if value["kind"] == "CustomResourceDefinition" and "webhook" in value["spec"].get("conversion", {}):
        configs.append(value["spec"]["conversion"]["webhook"]["clientConfig"])
    for config in configs:
        config["service"]["port"] = port
        config["caBundle"] = authority  # Kueue replaces it by its own


def _addon_config(name: str, folder: Path, webhook: int, health: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        # JobSet reads its own certificate from a fixed path below /tmp; without its own, Kueue reads one below /etc
        "internalCertManagement": {"enable": name == "kueue"},
        "webhook": {"host": "127.0.0.1", "port": webhook, "certDir": str(folder)},
        "metrics": {"bindAddress": "0"},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health}"},
    }
    if name == "jobset":
        return config | {"apiVersion": "config.jobset.x-k8s.io/v1alpha1"}
    return config | {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "featureGates": {"VisibilityOnDemand": False},
        "webhook": config["webhook"] | {"certDir": str(folder / "kueue-certificates")},
        "integrations": {"frameworks": ["batch/job", "jobset.x-k8s.io/jobset"]},
    }


def is_ready(port: int) -> bool:
    """Returns True if a controller's health endpoint answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Returns free ports of the loopback interface."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [value.getsockname()[1] for value in sockets]
    for value in sockets:
        value.close()
    return ports


def _flags(flags: dict[str, Any]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]
