"""CI installs the available programs if apt-get lacks one of them, and a clone contains all files that it needs."""

import subprocess
from pathlib import Path
from shutil import which

import pytest

ROOT = Path(__file__).parent.parent
RUN = ROOT / ".ci" / "run"
TOOLS = {"chromium": "chromium", "buildah": "buildah", "podman": "podman", "runc": "runc", "mmdebstrap": "mmdebstrap"}
TOOLS |= {"iproute2": "ip"}
APT_GET = """
case " $* " in *" runc "*) exit 100;; esac
for word; do
  case $word in iproute2) word=ip;; esac
  echo > "${0%/*}/$word"
  chmod +x "${0%/*}/$word"
done
"""
"""A fake apt-get. If runc is among the packages, it installs nothing; otherwise, it creates a program for each word."""


def run(folder: Path, user: int) -> list[str]:
    """Runs .ci/run where nothing is installed and `make` only prints CLUSTER_PROGRAMS and its arguments."""
    programs = {"apt-get": APT_GET, "id": f"echo {user}", "make": 'echo "${CLUSTER_PROGRAMS-} make $@"'}
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    for name in ("dirname", "chmod"):
        (folder / name).symlink_to(str(which(name)))
    command = [str(which("bash")), str(RUN)]
    done = subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=True, timeout=600)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("user", "lacking"),
    [(0, "runc"), (1000, "chromium buildah podman runc mmdebstrap iproute2")],
    ids=["root", "not root"],
)
def test_an_unavailable_package_does_not_prevent_the_others(user: int, lacking: str, tmp_path: Path) -> None:
    assert run(tmp_path, user) == [
        f"not available: {lacking}",
        " make --jobs=3 --output-sync=target check docs test-tensorflow-io",
        "cached make test-cluster",
        " make test-all",
    ]
    installed = {package for package, tool in TOOLS.items() if (tmp_path / tool).exists()}
    assert installed == set(TOOLS) - set(lacking.split())


def test_the_repository_has_only_files() -> None:
    # a link to a folder of one machine, such as .venv, stops `make setup` on all others
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "--stage"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "\tMakefile\n" in listed
    assert [line for line in listed.splitlines() if not line.startswith("100")] == []
