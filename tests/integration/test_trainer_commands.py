"""Runs the trainer's commands in sequence, each in its own process."""

import json
import os
import subprocess

import pytest

from tests.planted import SECRET, VARIABLES, files_with_the_secret
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.warm_python import start_python

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def run_trainer(*arguments, status=0):
    process = start_python(
        ["-m", "trainer", *arguments],
        env=os.environ | VARIABLES,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    printed, logged = process.communicate(timeout=1200)
    assert process.returncode == status, logged
    assert SECRET not in printed + logged
    return printed, logged


def test_train_evaluate_export_and_recommend_on_the_checkerboard(tmp_path):
    data, workdir = str(tmp_path / "dataset"), str(tmp_path / "run")
    build_dataset(data, **checkerboard())
    settings = ["--set", "epochs=30", "input.batch_size=64", "model.dim=8", "loss.num_negatives=8"]
    run_trainer("train", "--preset", "mf", "--data", data, "--workdir", workdir, *settings)

    os.rename(data, tmp_path / "moved")
    _, missing = run_trainer("evaluate", "--workdir", workdir, status=1)
    assert "if it has moved, use --data" in missing
    assert "Traceback" not in missing

    here = ["--workdir", workdir, "--data", str(tmp_path / "moved")]
    result = json.loads(run_trainer("evaluate", *here, "--json")[0])
    ranking = result["protocols"]["returning_visitors"]["rankings"]["seen_hidden"]
    # the visitor has seen seven of the ten items of their colour, so a list by colour has three relevant items
    assert ranking["mf"]["mrr@10"]["value"] > 2 * ranking["random"]["mrr@10"]["value"]
    assert os.path.exists(tmp_path / "run" / "evaluation-test.json")

    export = json.loads(run_trainer("export", *here, "--output", str(tmp_path / "export"), "--json")[0])
    assert export["items"] == 20
    with open(export["card"]) as file:
        card = file.read()
    mrr = ranking["mf"]["mrr@20"]
    figures = f"{mrr['value']:.4f} [{mrr['low']:.4f}, {mrr['high']:.4f}]"
    assert figures in card.replace("**", ""), "its evaluation is of this checkpoint"
    _, again = run_trainer("export", *here, "--output", str(tmp_path / "export"), status=1)
    assert "already exists" in again

    lists = json.loads(run_trainer("recommend", *here, "--output", str(tmp_path / "lists"), "--k", "2", "--json")[0])
    assert lists["visitors"] == 60
    with open(lists["files"]["jsonl"][0]) as file:
        rows = [json.loads(line) for line in file]
    colours = [int(row["visitor_id"][1:]) % 2 == int(item["item_id"][1:]) % 2 for row in rows for item in row["items"]]
    assert sum(colours) / len(colours) > 0.9
    assert files_with_the_secret(tmp_path) == []
