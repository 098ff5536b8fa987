"""submit.py runs a pipeline on a real node, and its files equal those of the same run without a cluster."""

from pathlib import Path

import pytest

from tests.e2e.shops import Shop, differing, run_locally

pytestmark = pytest.mark.e2e

UNEQUAL = {
    "transform/transform_fn/saved_model.pb",  # not the same in any two processes
    "transform/transform_fn/fingerprint.pb",
    "manifest.json",  # contains the path of the events, and the digests of the others
}


def test_a_pipeline_has_the_files_of_a_local_run(shop: Shop, files: Path, tmp_path: Path) -> None:
    run_locally(files, tmp_path)
    assert differing(tmp_path / "dataset", shop.data / "dataset") <= UNEQUAL
    one, two = tmp_path / "run", shop.data / "run"
    # state.json contains the checksum of the dataset
    assert {Path(name).name for name in differing(one / "checkpoints", two / "checkpoints")} <= {"state.json"}
    assert (one / "blend.json").read_bytes() == (two / "blend.json").read_bytes()
