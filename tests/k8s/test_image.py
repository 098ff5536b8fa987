"""Checks of the Dockerfile and its requirements without building it."""

import re
import subprocess

import pytest

from tests.k8s.rendering import K8S, ROOT, tool

PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", re.MULTILINE)


def pins(path: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / path).read_text()))


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [tool("hadolint"), str(K8S / "Dockerfile")], capture_output=True, text=True, check=False, timeout=600
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("image", ["preprocessing", "trainer"])
def test_an_image_installs_a_subset_of_the_tested_packages(image: str) -> None:
    installed = pins(f"k8s/requirements/{image}.txt")
    assert installed.items() <= pins("constraints.txt").items()
    assert {"tensorflow", "s3fs", "gcsfs"} <= installed.keys()


def test_the_image_for_gpus_adds_cuda_and_nothing_else() -> None:
    added = pins("k8s/requirements/gpu.txt")
    assert added
    assert all(name.startswith("nvidia-") for name in added)


def test_every_requirement_has_hashes() -> None:
    for path in (K8S / "requirements").iterdir():
        blocks = re.split(r"\n(?=[A-Za-z0-9])", path.read_text().strip())
        assert all("--hash=sha256:" in block for block in blocks), path.name


def test_the_image_for_gpus_finds_the_driver() -> None:
    _, _, stage = (K8S / "Dockerfile").read_text().partition("FROM base AS trainer-gpu\n")
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", stage.partition("\nFROM ")[0]))
    assert variables["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib64"  # Google Kubernetes Engine
    assert variables["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"  # NVIDIA's container toolkit
