"""The Java example gives the items and scores that Python gives."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.dataset_builder import build_dataset
from tests.trainer.ranking.fakes import DotModel
from trainer.export import export_model

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("mvn") and shutil.which("java")), reason="needs Maven and Java"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "java"
ITEMS = ["Größe-1", *(f"item-{index}" for index in range(1, 9))]
LIMIT_SECONDS = 1200


def test_the_java_example_recommends_as_python_does(tmp_path: Path) -> None:
    dataset = build_dataset(
        str(tmp_path / "dataset"), train=[("anna", ITEMS[0]), ("bob", ITEMS[1])], visitors=["anna", "bob"], items=ITEMS
    )
    generator, export = np.random.default_rng(0), tmp_path / "export"
    model = DotModel(generator.normal(size=(2, 8)), generator.normal(size=(9, 8)), generator.normal(size=9))
    export_model(model, dataset, str(export), name="dot")
    expected = tf.saved_model.load(str(export)).signatures["recommend"](
        visitor_id=tf.constant([""]),
        history=tf.constant([["item-2", "item-3"]]),
        k=tf.constant([9]),
        exclude_seen=tf.constant([True]),
    )

    project = tmp_path / "java"
    shutil.copytree(EXAMPLE, project)
    maven = ["mvn", "--quiet", "--batch-mode", "compile", "exec:java", f"-Dexec.args={export} 9 item-2 item-3"]
    environment = os.environ | {"LC_ALL": "C.UTF-8", "MAVEN_OPTS": "-Dfile.encoding=UTF-8"}
    found = subprocess.run(
        maven, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, check=False, timeout=LIMIT_SECONDS
    )
    if "Could not transfer" in found.stdout:
        pytest.skip(f"Maven cannot download the packages of the example: {found.stdout[-300:]}")
    assert not found.returncode, found.stdout
    printed = found.stdout.replace("\x1b[0m", "")  # Maven resets colours even if it uses none
    rows = [line.split("\t") for line in printed.splitlines() if "\t" in line]
    # seven of nine items are left; the last two entries of the list are empty
    assert [item for item, _ in rows] == [name.decode() for name in expected["item_id"].numpy()[0, :7]]
    scores = np.array([score for _, score in rows], np.float32)
    np.testing.assert_array_equal(scores, expected["score"].numpy()[0, :7])
