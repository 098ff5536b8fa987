"""Workers that share an evaluation or recommendations get the same results as one process."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.processes import END_SECONDS, clusters, environment, train_alone
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.warm_python import start_python
from trainer.evaluate import evaluate
from trainer.recommend import SHARD_ENTRIES, recommend

pytestmark = [pytest.mark.integration, pytest.mark.same_numbers, pytest.mark.slow]

VISITORS, ITEMS, CHUNK = 2100, 480, 1024
"""Sizes that give three chunks of visitors and cases, so that each of two or three workers ranks a chunk."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("dataset"))
    available = {f"i{item}": item % 3 > 0 for item in range(ITEMS)}
    build_dataset(root, **checkerboard(num_visitors=VISITORS, num_items=ITEMS), available=available, num_shards=3)
    return root


@pytest.fixture(scope="module", params=["mf", "nn"])
def run(request: pytest.FixtureRequest, dataset: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    workdir = tmp_path_factory.mktemp("run")
    train_alone(request.param, dataset, workdir, "input.batch_size=512")
    return str(workdir)


def run_together(count: int, *arguments: str) -> list[dict[str, Any]]:
    """Runs a command on several workers and returns the result that each printed."""
    processes = [
        start_python(
            ["-m", "trainer", *arguments, "--json"],
            env=environment(cluster),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for cluster in clusters(count)
    ]
    results = [process.communicate(timeout=END_SECONDS) for process in processes]
    for process, (_, log) in zip(processes, results, strict=True):
        assert process.returncode == 0, log
    return [json.loads(printed) for printed, _ in results]


def test_two_workers_evaluate_as_one_process(run: str) -> None:
    alone = json.loads(json.dumps(evaluate(workdir=run)))
    assert run_together(2, "evaluate", "--workdir", run) == [alone, alone]
    for protocol in alone["protocols"].values():
        assert protocol["cases"]["cases"] == VISITORS > 2 * CHUNK
        assert protocol["rankings"]["available_only"] is not None


def test_three_workers_recommend_as_one_process(run: str, tmp_path: Path) -> None:
    """The first shard has three chunks, the second has one."""
    k = ITEMS
    assert 2 * CHUNK < SHARD_ENTRIES // k < VISITORS
    alone = recommend(workdir=run, output=str(tmp_path / "alone"), k=k, formats=["parquet"])
    together = ["--output", str(tmp_path / "together"), "--k", str(k), "--format", "parquet"]
    summaries = run_together(3, "recommend", "--workdir", run, *together)
    assert len(alone["files"]["parquet"]) == 2
    for summary in summaries:
        for one, other in zip(alone["files"]["parquet"], summary["files"]["parquet"], strict=True):
            assert Path(one).read_bytes() == Path(other).read_bytes()
