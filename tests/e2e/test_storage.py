"""A bucket instead of the volume: the pipeline in pods has the same files."""

from pathlib import Path

import pytest

from tests.e2e.machine import HOST
from tests.e2e.shops import Shop
from tests.e2e.test_pipeline import UNEQUAL
from tests.stores.servers import ObjectStore, start_store

pytestmark = pytest.mark.e2e


def test_a_bucket_replaces_the_volume(shop: Shop) -> None:
    with start_store("s3", HOST) as store:
        store.write("shop/events.csv", (shop.data / "shop" / "events.csv").read_bytes())
        keys = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cartwheel-credentials"}}
        shop.namespace.kubectl("create", "-f", "-", objects=[keys | {"stringData": store.environment()}])
        try:
            shop.run_pipeline(store.bucket, "--gpus", "0")
        finally:
            shop.namespace.kubectl("delete", "secret", "cartwheel-credentials")
        assert differing_objects(store, "dataset", shop.data) <= UNEQUAL
        found = differing_objects(store, "run/checkpoints", shop.data)
        assert {Path(name).name for name in found} <= {"state.json"}


def differing_objects(store: ObjectStore, folder: str, data: Path) -> set[str]:
    """Returns the names of the objects and files of a folder that differ."""
    objects = {name: store.read(f"{folder}/{name}") for name in store.list_files(f"{folder}/")}
    root = data / folder
    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert files
    return {name for name in objects.keys() | files.keys() if objects.get(name) != files.get(name)}
