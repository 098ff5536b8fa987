"""Applies the model, loss and feature of docs/extending.md to a copy of the packages, and runs its commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, blocks, commands
from tests.trainer.dataset_builder import build_dataset, checkerboard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXTENDING = "docs/extending.md"
SETTINGS = ["input.batch_size=64", "epochs=10", "model.dim=8", "loss.num_negatives=8"]
"""Settings for a dataset of 360 rows; those of the document are for the tutorial's dataset."""
RUN = (
    "import sys, shlex; from cartwheel.cli import main; sys.exit(any(main(shlex.split(line)) for line in sys.argv[1:]))"
)
"""Runs all commands in one process, because importing TensorFlow takes longer than each of them."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with the document's code, and a small dataset in place of the tutorial's."""
    folder = tmp_path_factory.mktemp("clone")
    for package in ("common", "contract", "trainer"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks(EXTENDING):
        if block.language == "python":
            write_file(block, folder)
        elif block.language == "diff":
            apply_diff(block, folder)
    categories = {f"i{item}": ["all", f"third {item % 3}"] for item in range(15)}
    available = {f"i{item}": item % 4 > 0 for item in range(10)}
    build_dataset(str(folder / "tutorial/dataset"), **checkerboard(), categories=categories, available=available)
    return folder


def test_the_code_of_the_document_passes_the_linter(clone: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    for rule in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *rule, "--no-cache", "--config", ROOT / "pyproject.toml", "trainer"],
            cwd=clone,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_the_model_loss_and_feature_of_the_document_train_and_rank(clone: Path) -> None:
    typed = [shlex.split(line) for block in blocks(EXTENDING) if block.language == "bash" for line in commands(block)]
    assert {words[0] for words in typed} == {"cartwheel"}
    lines = [shlex.join([*words[1:], *(["--set", *SETTINGS] if words[1] == "train" else [])]) for words in typed]
    environment = os.environ | {"PYTHONPATH": str(clone)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *lines],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr

    runs = clone / "tutorial/runs"
    ranking = json.loads((runs / "bilinear/evaluation-test.json").read_text())["protocols"]["returning_visitors"][
        "rankings"
    ]["seen_hidden"]
    # the visitor has seen seven of the ten items of their colour, so a list by colour has three relevant items
    assert ranking["bilinear"]["mrr@10"]["value"] > 2 * ranking["random"]["mrr@10"]["value"]
    assert (clone / "tutorial/models/bilinear/1/saved_model.pb").exists()
    assert json.loads((runs / "mf-bpr/run.json").read_text())["config"]["loss"]["kind"] == "bpr"
    losses = [json.loads(line).get("loss") for line in (runs / "mf-bpr/metrics.jsonl").read_text().splitlines()]
    # softplus is convex: if each item of a pair is ahead equally often, the pair has a loss of at least log 2
    assert losses[0] > 0.693
    assert [loss for loss in losses if loss][-1] < 0.5
    # all, third 0, 1 and 2, their bucket, price bucket 0, available no and yes, the bucket of the property values
    assert "feature table of 9 rows" in done.stderr


def write_file(block: Block, folder: Path) -> None:
    """Writes a block to the new file named by the line before it."""
    before = (ROOT / block.document).read_text().splitlines()[: block.line - 1]
    named = re.findall(r"`(\S+\.py)`:$", "\n".join(before).rstrip())
    assert named, f"{block.document}:{block.line}: the line before the code does not name a file"
    assert not (folder / named[-1]).exists(), f"{named[-1]} already exists"
    (folder / named[-1]).write_text(block.text)


def apply_diff(block: Block, folder: Path) -> None:
    """Applies a diff without line numbers; the old text of each hunk must occur exactly once."""
    for part in re.split(r"^--- a/", block.text, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"^@@\n", part, flags=re.MULTILINE)
        path = folder / name.split("\n")[0]
        text = path.read_text()
        for hunk in hunks:
            lines = hunk.splitlines()
            old, new = (
                "".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", sign, "")) for sign in ("-", "+")
            )
            assert text.count(old) == 1, f"{path.name} contains {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        path.write_text(text)
