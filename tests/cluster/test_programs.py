"""Tests where a cluster's programs are found, and that they end with the tests, even if the tests are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.k8s.rendering import ROOT
from tests.k8s.scenarios import wait_until

LAUNCH = """
import sys, time, pathlib
from tests.cluster.binaries import Binaries
from tests.cluster.control_plane import ControlPlane
plane = ControlPlane(pathlib.Path(sys.argv[1]), Binaries({"sleep": "sleep"}, {}))
plane.launch("sleep", "600")
print(plane.processes["sleep"].pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="uses prctl")
def test_programs_end_with_a_killed_test(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    assert is_alive(pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not is_alive(pid))


def test_given_programs_are_preferred_and_others_need_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assets, path, cache = (tmp_path / name for name in ("assets", "path", "cache"))
    for folder, names in ((assets, ["etcd", "jobset"]), (path, ["etcd", "kube-scheduler"])):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
            (folder / name).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.delenv("CLUSTER_PROGRAMS", raising=False)
    found = [binaries.find_program(name) for name in ("etcd", "kube-scheduler", "kueue")]
    assert found == [str(assets / "etcd"), str(path / "kube-scheduler"), None]
    with pytest.raises(pytest.skip.Exception, match="Go, which builds the programs of a cluster, is not on PATH"):
        binaries.build_program("kueue", cache)
    monkeypatch.setenv("CLUSTER_PROGRAMS", "cached")
    with pytest.raises(pytest.skip.Exception, match="not in the cache; make test-cluster builds them"):
        binaries.build_program("kueue", cache)
    cache.mkdir()
    (cache / "kueue").touch()
    assert binaries.build_program("kueue", cache) == str(cache / "kueue")
    assert os.listdir(cache) == ["kueue"]
