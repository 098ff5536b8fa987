"""Runs the trainer's commands in sequence, each in its own process."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from preprocessing.config import PrepareConfig
from preprocessing.pipeline import prepare
from tests.planted import SECRET, VARIABLES, files_with_the_secret
from tests.preprocessing.shop import HEADER, event, write_lines
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
    assert "if the dataset has moved, use --data" in missing
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


def test_a_shop_with_one_item_passes_through_all_commands(tmp_path):
    data, run, output = (str(tmp_path / name) for name in ("dataset", "run", "export"))
    lines = [event(day, f"v{number}", "only") for day in range(20) for number in range(4)]
    events = write_lines(tmp_path / "events.csv", HEADER, *lines)
    prepare(PrepareConfig(events=events), data)
    settings = ["--set", "epochs=2", "input.batch_size=16", "model.dim=4", "blend=false"]
    run_trainer("train", "--preset", "mf", "--data", data, "--workdir", run, *settings)
    result = json.loads(run_trainer("evaluate", "--workdir", run, "--json")[0])
    following = result["protocols"]["next_item"]["rankings"]["seen_shown"]["mf"]
    assert following["recall@20"]["value"] == 1, "there is no other item to recommend"
    assert json.loads(run_trainer("export", "--workdir", run, "--output", output, "--json")[0])["items"] == 1
    visitors = write_lines(tmp_path / "visitors", "v0", "new")
    lists = ["recommend", "--workdir", run, "--output", str(tmp_path / "lists"), "--k", "1", "--visitors", visitors]
    (path,) = json.loads(run_trainer(*lists, "--json")[0])["files"]["jsonl"]
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    found = {row["visitor_id"]: [item["item_id"] for item in row["items"]] for row in rows}
    assert found == {"v0": [], "new": ["only"]}, "v0 has seen the only item"
    run_trainer("report", "--workdir", run)
