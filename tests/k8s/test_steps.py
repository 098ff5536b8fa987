"""A pipeline runs its steps in sequence; a search is one step with a pod per trial."""

import pytest

from tests.k8s.scenarios import FAST, FINISHED, RESULT, RUNNING, Cluster, done, job_state, log, stopped

PIPELINE = [
    "pipeline",
    *("--events", "gs://shop/events*.csv", "--preset", "mf", "--data", "gs://shop/dataset"),
    *("--workdir", "gs://shop/run", "--output", "gs://shop/models/cartwheel/1"),
]


def test_a_pipeline_runs_its_steps_in_sequence(cluster: Cluster) -> None:
    evaluated = stopped("evaluate-export-a", 0, "Completed")
    evaluated["status"]["initContainerStatuses"] = [{"name": "evaluate", "state": {"terminated": {"exitCode": 0}}}]
    cluster.play(
        states={
            "prepare": [done("prepare")],
            "train": [RUNNING, FINISHED],
            "evaluate-export": [job_state(evaluated, Complete="CompletionsReached")],
        },
        logs={
            "prepare-a/main": log(result={"dataset": "gs://shop/dataset"}),
            "train-a/main": log(result=RESULT),
            "evaluate-export-a/evaluate": ["ranking the catalogue"],
            "evaluate-export-a/main": log(result={"output": "gs://shop/models/cartwheel/1"}),
        },
    )
    status, _, errors = cluster.submit(*PIPELINE, *FAST)
    assert status == 0, errors
    order = [line for line in errors.splitlines() if "submitted" in line or "is done" in line or "ranking" in line]
    assert order == [
        "prepare submitted",
        "prepare is done: dataset in gs://shop/dataset",
        "train submitted",
        "train is done: run in gs://shop/run, ndcg@20 0.1771 at step 40",
        "evaluate-export submitted",
        "ranking the catalogue",
        "evaluate-export is done: model in gs://shop/models/cartwheel/1",
    ]


def test_a_pipeline_stops_at_a_failed_step_and_continues_from_it(cluster: Cluster) -> None:
    failed = job_state(stopped("train-a", 2), Failed="PodFailurePolicy")
    cluster.play(states={"prepare": [done("prepare")], "train": [failed]})
    status, _, errors = cluster.submit(*PIPELINE, *FAST)
    assert status == 1
    assert errors.splitlines()[-1] == "train failed: exit 2: wrong arguments"
    assert "evaluate-export" not in errors
    states = {step: [done(step)] for step in ("prepare", "train", "evaluate-export")}
    cluster.play(states=states | {"train": [failed, done("train")]})
    status, _, errors = cluster.submit(*PIPELINE, *FAST)
    assert status == 0
    assert errors.startswith("prepare is already done with these settings")
    assert len(cluster.calls("apply -f")) == 4  # prepare once, train twice, evaluate-export once


SEARCH = ["tune", "--preset", "mf", "--data", "/data/d", "--workdir", "/data/tune", "--search", "model.dim=8,16"]


def test_a_search_is_submitted_with_its_trials(cluster: Cluster) -> None:
    status, output, errors = cluster.submit(*SEARCH, "--trials", "3", "--dry-run")
    assert status == 0, errors
    for line in ("--search=model.dim=8,16", "--trials=3", "completions: 3", "parallelism: 3", "--trial=$(JOB_COM"):
        assert line in output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--workdir", "gs://shop/tune", "--data", "gs://shop/d"],
            "gs://shop/tune is in an object store, so its trials need a shared database",
        ),
        (["--search", "model.dims=8..16"], "unknown setting `model.dims`; did you mean `model.dim`?"),
        (["--nodes", "2"], "tune trains each trial on one machine, got 2 machines; remove --nodes"),
    ],
)
def test_a_search_that_cannot_run_is_refused(flags: list[str], message: str, cluster: Cluster) -> None:
    status, _, errors = cluster.submit(*SEARCH, *flags, "--dry-run")
    assert (status, message in errors) == (2, True), errors
