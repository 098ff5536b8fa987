import sys
from pathlib import Path

import pytest

from tests.k8s.rendering import tool
from tests.k8s.scenarios import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    programs = tmp_path / "bin"
    programs.mkdir()
    kubectl = programs / "kubectl"
    kubectl.write_text(f"#!{sys.executable} -ES\n" + Path(__file__).with_name("fake_kubectl.py").read_text())
    kubectl.chmod(0o755)
    environment = {"PATH": str(programs), "FAKE_KUBECTL": str(tmp_path), "REAL_KUBECTL": tool("kubectl")}
    return Cluster(tmp_path, environment)
