"""Runs the trainer on s3:// with tensorflow-io's file system, without any other client.

Runs in its own environment, because a release of tensorflow-io works with only one of TensorFlow:
`make test-tensorflow-io`.
"""

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.stores.servers import ObjectStore, start_store
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.warm_python import start_python
from trainer.runs import checkpoint

pytestmark = [
    pytest.mark.integration,
    pytest.mark.tensorflow_io,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_io") is None,
        reason="tensorflow-io is not installed; run make test-tensorflow-io",
    ),
]

SETTINGS = [
    "input.batch_size=64",
    "model.dim=8",
    "steps_per_execution=2",
    "epochs=3",
    "checkpoint_every_steps=4",
    "blend=false",
]

LOAD = """
import sys
import tensorflow as tf
from common import storage
from common.signals import exit_process

assert storage.is_served_by_tensorflow(sys.argv[1])
score = tf.saved_model.load(sys.argv[1]).signatures["score"]
print(float(score(visitor_id=tf.constant(["v0"]), item_id=tf.constant(["i0"]))["score"][0]))
exit_process(0)
"""


def run(store: ObjectStore, *command: str) -> str:
    """Runs a process that must exit with 0 and returns its output; in this process, the plugin would abort at exit."""
    variables = os.environ | store.environment()
    process = start_python(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, logged = process.communicate(timeout=1200)
    assert process.returncode == 0, logged[-5000:]
    return printed


def train(store: ObjectStore, data: str, workdir: str, *settings: str) -> None:
    given = ["--data", data, "--workdir", workdir, "--set", *SETTINGS, *settings]
    run(store, "-m", "trainer", "train", "--preset", "mf", *given)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    build_dataset(str(folder / "data"), **checkerboard(), num_shards=3, block_rows=20)
    return folder


@pytest.fixture(scope="module")
def store(local: Path) -> Iterator[ObjectStore]:
    """A bucket with the dataset."""
    with start_store("s3") as running:
        for path in [path for path in local.rglob("*") if path.is_file()]:
            running.write(str(path.relative_to(local)), path.read_bytes())
        yield running


def test_only_tensorflow_can_open_s3_here() -> None:
    assert importlib.util.find_spec("s3fs") is None


def test_a_run_in_a_bucket_reaches_the_tables_of_one_on_a_disk(store: ObjectStore, local: Path, tmp_path: Path) -> None:
    train(store, str(local / "data"), str(local / "run"))
    train(store, f"{store.bucket}/data", f"{store.bucket}/run")
    for name in store.list_files("run/"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(store.read(f"run/{name}"))
    found, expected = (checkpoint.read_weights(str(run), "last").tables for run in (tmp_path, local / "run"))
    for name, table in expected.items():
        np.testing.assert_array_equal(found[name], table, err_msg=name)
    assert json.loads(store.read("run/run.json"))["data"] == f"{store.bucket}/data"


def test_a_model_exported_to_a_bucket_is_loaded_from_there(store: ObjectStore) -> None:
    command = ["--workdir", f"{store.bucket}/run", "--output", f"{store.bucket}/export/1"]
    printed = json.loads(run(store, "-m", "trainer", "export", *command, "--json"))
    assert printed["items"] == 20
    assert {"saved_model.pb", "variables/variables.index"} <= set(store.list_files("export/1/"))
    assert np.isfinite(float(run(store, "-c", LOAD, f"{store.bucket}/export/1")))
