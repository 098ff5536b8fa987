"""A real node: containerd, kubelet and CoreDNS in a machine of their own, with the project's images."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane, running_without_nodes
from tests.e2e.machine import GATEWAY, HOST, NODE, PODS, Machine, running_machine
from tests.integration.containers import Images, open_images

NAME = "node"
TARGETS = ("preprocessing", "trainer")
"""The targets of the Dockerfile whose images the node has."""
CACHE = binaries.CACHE.parent / "node"
"""The image store of containerd, which is kept: importing the images takes minutes."""
_CNI = "/usr/lib/cni"
_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "ip": "iproute2",
    "nsenter": "util-linux",
    f"{_CNI}/bridge": "containernetworking-plugins",
}
"""Debian package of each program of a node."""
_SOCKET = "/run/containerd/containerd.sock"
_PAUSE = "localhost/cartwheel/pause:test"


@dataclass
class Node:
    """A running node."""

    machine: Machine
    plane: ControlPlane
    programs: dict[str, str]
    """Paths of its kubelet, CoreDNS and pause."""

    def start_kubelet(self) -> None:
        """Starts the kubelet."""
        flags = {
            "config": self.machine.folder / "kubelet.json",
            "kubeconfig": self.plane.kubeconfig("admin"),
            "hostname-override": NAME,
            "node-ip": NODE,
            "root-dir": self.machine.folder / "kubelet",
        }
        self.machine.launch("kubelet", self.programs["kubelet"], *(f"--{key}={value}" for key, value in flags.items()))

    def ctr(self, *arguments: str) -> str:
        """Calls containerd's client."""
        return self.machine.run("ctr", f"--address={_SOCKET}", "--namespace=k8s.io", *arguments)


def require() -> None:
    """Skips the test if this machine cannot run a node."""
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    missing = sorted({package for program, package in _PACKAGES.items() if shutil.which(program) is None})
    if missing:
        pytest.skip(f"a node needs the Debian packages {', '.join(missing)}")


@contextmanager
def running_node(folder: Path) -> Iterator[Node]:
    """Runs a control plane and one real node; skips the test if this machine cannot run them."""
    require()
    control, programs = binaries.find(), binaries.find_node_programs()
    with binaries.locked(CACHE), running_machine(folder) as machine:
        node = Node(machine, ControlPlane(folder, control, address=HOST), programs)
        _start_containerd(node)
        with open_images(folder / "base") as images:
            _import_images(node, images)
        with running_without_nodes(node.plane):
            _start(node)
            yield node


def _start_containerd(node: Node) -> None:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    networks = node.machine.folder / "networks"
    config = node.machine.folder / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "{CACHE}/containerd"
[{cri}]
sandbox_image = "{_PAUSE}"
# in a virtual machine or a container, even root may not protect a process from being killed for memory
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "{_CNI}"
conf_dir = "{networks}"
"""
    )
    networks.mkdir()
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
    (networks / "pods.conflist").write_text(json.dumps(network))
    node.machine.launch("containerd", "containerd", f"--config={config}")
    node.plane.wait("containerd", lambda: Path(f"/proc/{node.machine.init}/root{_SOCKET}").exists(), seconds=60)


def _import_images(node: Node, images: Images) -> None:
    """Builds the images and imports those that have changed since the last time."""
    record = CACHE / "images.json"
    imported = json.loads(record.read_text()) if record.exists() else {}
    names = [*(images.build(target) for target in TARGETS), images.wrap(Path(node.programs["pause"]), _PAUSE)]
    for name in names:
        identity = images.inspect(name, "{{.Id}}")
        if imported.get(name) != identity:
            archive = node.machine.folder / "image.tar"
            images.save(name, archive)
            node.ctr("images", "import", str(archive))
            archive.unlink()
            if name in imported:
                node.ctr("images", "remove", f"sha256:{imported[name]}")  # Kubernetes' name of the former image
            imported[name] = identity
            record.write_text(json.dumps(imported))


def _start(node: Node) -> None:
    """Starts the kubelet and CoreDNS, and waits until the node is ready."""
    folder, plane = node.machine.folder, node.plane
    (folder / "kubelet.json").write_text(json.dumps(_kubelet_config(folder)))
    node.start_kubelet()
    kubeconfig = plane.kubeconfig("admin")
    zone = f"bind {GATEWAY}\nerrors\nkubernetes cluster.local {{\nkubeconfig {kubeconfig}\n}}"
    (folder / "Corefile").write_text(f".:53 {{\n{zone}\n}}\n")
    node.machine.launch("coredns", node.programs["coredns"], "-conf", str(folder / "Corefile"))
    plane.wait("node", lambda: " Ready" in plane.kubectl("get", "nodes"))


def _kubelet_config(folder: Path) -> dict[str, object]:
    certificate, key = str(folder / "tls.crt"), str(folder / "tls.key")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": certificate},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": certificate,
        "tlsPrivateKeyFile": key,
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "makeIPTablesUtilChains": False,
        "clusterDNS": [GATEWAY],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        # this machine's disk may be almost full
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }
