"""Finds or builds the programs of a cluster: etcd, Kubernetes' control plane, JobSet and Kueue; also those of a node.

Programs in KUBEBUILDER_ASSETS or on PATH are used as they are. The others are built once from the Go modules in
`modules/`, and cached by the hash of their go.sum files. If CLUSTER_PROGRAMS is `cached`, the tests skip instead.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MODULES = Path(__file__).with_name("modules")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cartwheel" / "cluster"
PACKAGES = {
    "etcd": ("kubernetes", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": ("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": ("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kueue": ("kubernetes", "sigs.k8s.io/kueue/cmd/kueue"),
    "jobset": ("jobset", "sigs.k8s.io/jobset"),
}
"""Folder in `modules/` and Go package of each program.

JobSet has a separate folder, because it needs an older controller-runtime than Kueue.
"""
NODE_PACKAGES = {
    "kubelet": ("kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    "coredns": ("node", "./coredns"),
    "pause": ("node", "./pause"),
}
"""The same for the programs of a real node."""
ADDONS = ("jobset", "kueue")
BUILD_SECONDS = 3600


@dataclass(frozen=True)
class Binaries:
    """The programs of a cluster."""

    programs: dict[str, str]
    """Path of each program."""
    manifests: dict[str, Path]
    """File of manifests of each addon, rendered from its Go module."""


def find() -> Binaries:
    """Finds all programs and builds the missing ones; skips the tests if that is impossible."""
    if shutil.which("kubectl") is None or shutil.which("openssl") is None:
        pytest.skip("kubectl and openssl are needed for a cluster")
    folder = _cache(PACKAGES)
    with locked(folder):
        return Binaries(_find_all(PACKAGES, folder), {name: _manifest(name, folder) for name in ADDONS})


def find_node_programs() -> dict[str, str]:
    """Finds or builds the programs of a node that no Debian package has; returns their paths."""
    folder = _cache(NODE_PACKAGES)
    with locked(folder):
        return _find_all(NODE_PACKAGES, folder)


def _find_all(names: Iterable[str], folder: Path) -> dict[str, str]:
    return {name: find_program(name) or build_program(name, folder) for name in names}


def find_program(name: str) -> str | None:
    """Finds a program in KUBEBUILDER_ASSETS or on PATH."""
    return shutil.which(name, path=os.environ.get("KUBEBUILDER_ASSETS", "")) or shutil.which(name)


def build_program(name: str, folder: Path) -> str:
    """Builds a program unless it is in the folder, and returns its path; skips the test if Go is not installed."""
    path = folder / name
    if not path.exists():
        module, package = (PACKAGES | NODE_PACKAGES)[name]
        part = path.with_suffix(".part")
        _go("build", "-p=2", "-trimpath", f"-ldflags={_version_flags()}", "-o", str(part), package, module=module)
        part.rename(path)
    return str(path)


def _manifest(name: str, folder: Path) -> Path:
    path = folder / f"{name}.yaml"
    if not path.exists():
        module, package = PACKAGES[name]
        _go("mod", "download", _module_of(package), module=module)
        source = _go("list", "-m", "-f", "{{.Dir}}", _module_of(package), module=module).strip()
        command = ["kubectl", "kustomize", f"{source}/config/default"]
        path.write_text(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)
    return path


def _module_of(package: str) -> str:
    return "/".join(package.split("/")[:2])


def _version_flags() -> str:
    """Returns the linker flags that set the version of Kubernetes. Its servers do not start without them."""
    version = _go("list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes", module="kubernetes").strip()
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(["-s -w", *(f"-X {path}.{key}={value}" for path in packages for key, value in values.items())])


def _go(*arguments: str, module: str) -> str:
    if os.environ.get("CLUSTER_PROGRAMS") == "cached":
        pytest.skip("the programs of a cluster are not in the cache; make test-cluster builds them in half an hour")
    if shutil.which("go") is None:
        pytest.skip("Go, which builds the programs of a cluster, is not on PATH, nor are they in KUBEBUILDER_ASSETS")
    command = ["nice", "-n", "19", "go", arguments[0], *arguments[1:]]
    done = subprocess.run(
        command, cwd=MODULES / module, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )
    if done.returncode:
        pytest.skip(f"{' '.join(command[3:])} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def _cache(packages: Mapping[str, tuple[str, str]]) -> Path:
    """Returns the cache folder of programs, which depends on the packages in their go.sum files."""
    digest = hashlib.sha256()
    for module in sorted({module for module, _ in packages.values()}):
        digest.update((MODULES / module / "go.sum").read_bytes())
    return CACHE / digest.hexdigest()[:16]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Creates a folder, and waits until no other process uses it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
