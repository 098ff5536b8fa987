from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane, running
from tests.cluster.namespaces import KUEUE, Namespace, create


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with running(tmp_path_factory.mktemp("cluster"), binaries.find()) as started:
        yield started


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    created = create(plane)
    yield created
    created.end()


@pytest.fixture
def queue(namespace: Namespace) -> Namespace:
    """A namespace with a separate queue, which has eight GPUs."""
    quotas = {"cpu": "96", "memory": "768Gi", "nvidia.com/gpu": "8"}
    resources = [{"name": name, "nominalQuota": value} for name, value in quotas.items()]
    group = {"coveredResources": list(quotas), "flavors": [{"name": "default", "resources": resources}]}
    spec = {"namespaceSelector": {}, "resourceGroups": [group]}
    objects: list[dict[str, Any]] = [
        {"apiVersion": KUEUE, "kind": "ResourceFlavor", "metadata": {"name": "default"}},
        {"apiVersion": KUEUE, "kind": "ClusterQueue", "metadata": {"name": namespace.name}, "spec": spec},
    ]
    namespace.plane.kubectl("apply", "--server-side", "-f", "-", objects=objects)
    namespace.create("LocalQueue", "research", {"clusterQueue": namespace.name}, version=KUEUE)
    return namespace
