from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Node, running_node
from tests.e2e.shops import Shop, open_shop, write_shop


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node")) as started:
        yield started


@pytest.fixture(scope="session")
def files(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a synthetic shop, written only if there is a node."""
    return write_shop(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def shop(node: Node, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A namespace with a volume, on which the pipeline has run."""
    with open_shop(node, files, tmp_path_factory.mktemp("volume")) as opened:
        opened.run_pipeline("/data")
        yield opened
