from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import binaries
from tests.cluster.control_plane import ControlPlane, running
from tests.cluster.namespaces import Namespace, create


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with running(tmp_path_factory.mktemp("cluster"), binaries.find()) as started:
        yield started


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Namespace]:
    created = create(plane)
    yield created
    created.end()
