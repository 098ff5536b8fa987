"""Submitting steps, their changes and owners; `status`, `logs` and `cancel`, with a kubectl that replays sequences."""

import json
import re
from unittest.mock import ANY

import pytest

from tests.documents import blocks, commands
from tests.k8s.scenarios import (
    FAST,
    FINISHED,
    LOG,
    RESULT,
    RUNNING,
    TRAIN,
    WAITING,
    Cluster,
    done,
    job_state,
    log,
    stopped,
)


def test_a_run_is_followed_to_its_result(cluster: Cluster) -> None:
    states = [WAITING, *[RUNNING] * 5, FINISHED]
    cluster.play(states={"train": states}, logs={"train-a/main": log(result=RESULT)})
    status, output, errors = cluster.submit(*TRAIN, *FAST, "--gpus", "4", "--set", "epochs=20")
    assert status == 0, errors
    assert json.loads(output) == RESULT
    lines = errors.splitlines()
    assert lines[0] == "train submitted"
    assert "train is waiting: its pod is starting" in lines
    assert LOG[1] in lines
    assert "train is running" in lines
    assert "epoch 1 of 20 done" in errors
    assert lines[-1] == "train is done: run in gs://shop/run, ndcg@20 0.1771 at step 40"
    assert "}" not in lines  # the result is printed once


def test_the_same_command_follows_a_running_step_and_leaves_a_finished_one(cluster: Cluster) -> None:
    cluster.play(states={"train": [RUNNING]})
    assert cluster.submit(*TRAIN, "--detach")[0] == 0
    cluster.play(states={"train": [RUNNING, FINISHED]}, logs={"train-a/main": log(result=RESULT)})
    (cluster.folder / "calls").unlink()
    status, output, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, json.loads(output)) == (0, RESULT)
    assert errors.startswith("train is already running with these settings")
    assert not cluster.calls("apply")
    status, output, errors = cluster.submit(*TRAIN, *FAST)
    assert errors.startswith("train is already done with these settings; cancel it to run it again")
    assert (status, json.loads(output), cluster.calls("apply")) == (0, RESULT, [])


def test_a_running_step_is_not_changed_and_the_difference_is_shown(cluster: Cluster) -> None:
    cluster.play(states={"train": [RUNNING]})
    cluster.submit(*TRAIN, "--detach")
    status, _, errors = cluster.submit(*TRAIN, *FAST, "--gpus", "2", "--set", "epochs=3")
    assert status == 1
    assert "+train: --set=epochs=3" in errors
    assert '-       "nvidia.com/gpu": 1' in errors
    assert '+       "nvidia.com/gpu": 2' in errors
    assert "run-" not in errors  # the digest in the name of the ConfigMap is not a difference
    assert errors.splitlines()[-1] == (
        "train is running with other settings; cancel it first: `python k8s/submit.py cancel train`"
    )
    assert len(cluster.calls("apply -f")) == 1


def test_a_failed_run_is_replaced_by_the_same_and_a_finished_one_by_another(cluster: Cluster) -> None:
    cluster.play(states={"train": [job_state(stopped("train-a", 1), Failed="PodFailurePolicy")]})
    cluster.submit(*TRAIN, "--detach")
    status, _, errors = cluster.submit(*TRAIN, "--detach")
    assert (status, errors.splitlines()[0]) == (0, "train submitted again")
    cluster.play(states={"train": [FINISHED]})
    status, _, errors = cluster.submit(*TRAIN, "--detach", "--set", "epochs=3")
    assert (status, "+train: --set=epochs=3" in errors, "train submitted again" in errors) == (0, True, True)
    assert len(cluster.calls("delete job train")) == 2
    assert len(cluster.calls("delete configmap run-")) == 2


def test_status_shows_each_step_and_cancel_deletes_one(cluster: Cluster) -> None:
    cluster.play(states={"prepare": [done("prepare")], "train": [RUNNING]})
    cluster.submit("prepare", "--events", "gs://shop/e", "--output", "gs://shop/d", "--detach")
    cluster.submit(*TRAIN, "--detach")
    assert cluster.submit("status") == (
        0,
        "prepare is done\ntrain is running\ntune: not submitted\nevaluate-export: not submitted\n",
        "",
    )
    status, _, errors = cluster.submit("cancel", "train")
    assert (status, errors.splitlines()[-1]) == (0, "train is cancelled; its published and saved files are kept")
    assert all("--wait=false" in call for call in cluster.calls("delete"))
    assert "train: not submitted" in cluster.submit("status")[1]
    assert cluster.submit("cancel", "train")[::2] == (1, "train was not submitted\n")


def test_a_job_set_is_followed_like_a_job(cluster: Cluster) -> None:
    completed = job_state(stopped("train-a", 0, "Completed"), Completed="AllJobsCompleted")
    cluster.play(
        states={"train": [RUNNING, completed]}, logs={"train-a/main": log(result=RESULT)}, kinds={"train": "JobSet"}
    )
    status, output, _ = cluster.submit(*TRAIN, *FAST, "--overlay", "jobset")
    assert (status, json.loads(output)) == (0, RESULT)
    assert cluster.calls("get pods -l jobset.sigs.k8s.io/jobset-name=train")


@pytest.mark.parametrize(("before", "after"), [([], ["--overlay", "jobset"]), (["--overlay", "jobset"], [])])
def test_a_job_and_a_job_set_of_a_step_differ_like_two_jobs(
    before: list[str], after: list[str], cluster: Cluster
) -> None:
    kinds = ["JobSet" if flags else "Job" for flags in (before, after)]
    cluster.play(states={"train": [RUNNING]}, kinds={"train": "JobSet"})
    cluster.submit(*TRAIN, *before, "--detach")
    status, _, errors = cluster.submit(*TRAIN, *after, "--detach")
    assert status == 1
    assert errors.splitlines()[-1].startswith(
        "train is running with other settings; cancel it first: `python k8s/submit.py cancel train`"
    )
    assert {f"-kind: {kinds[0]}", f"+kind: {kinds[1]}"} <= set(errors.splitlines())
    ended = job_state(stopped("train-a", 1), Failed="PodFailurePolicy")
    cluster.play(states={"train": [ended]}, kinds={"train": "JobSet"})
    status, _, errors = cluster.submit(*TRAIN, *after, "--detach")
    assert (status, "train submitted again" in errors) == (0, True), errors
    assert len(cluster.calls(f"delete {kinds[0].lower()} train")) == 1
    cluster.hold(lambda held: kinds.append(*(key for key in held if key.endswith("/train"))))
    assert kinds[2] == f"{kinds[1].lower()}/train"


@pytest.mark.parametrize(("labels", "got"), [({}, "None"), ({"app.kubernetes.io/name": "backup"}, "backup")])
def test_a_job_of_another_owner_is_neither_followed_nor_deleted(
    labels: dict[str, str], got: str, cluster: Cluster
) -> None:
    cluster.play(states={"train": [FINISHED]})
    cluster.submit(*TRAIN, "--detach")
    cluster.hold(lambda held: held["job/train"]["metadata"].update(labels=labels))
    answer = (
        f"Job train does not belong to Cartwheel: its label app.kubernetes.io/name is {got}, not cartwheel; "
        "use another --namespace, or delete it with kubectl"
    )
    for command in ([*TRAIN, *FAST, "--set", "epochs=3"], ["cancel", "train"], ["logs", "train"]):
        assert cluster.submit(*command) == (1, "", f"{answer}\n")
    assert cluster.submit("status") == (
        0,
        f"prepare: not submitted\ntrain: {answer}\ntune: not submitted\nevaluate-export: not submitted\n",
        "",
    )
    assert (len(cluster.calls("apply -f")), cluster.calls("delete")) == (1, [])


def test_a_config_map_of_another_owner_is_kept(cluster: Cluster) -> None:
    cluster.play(states={"train": [RUNNING]})
    cluster.submit(*TRAIN, "--detach")

    def mount(held: dict) -> None:
        pod = held["job/train"]["spec"]["template"]["spec"]
        pod["volumes"].append({"name": "certificates", "configMap": {"name": "certificates"}})
        held["configmap/certificates"] = {"kind": "ConfigMap", "metadata": {"name": "certificates"}}

    cluster.hold(mount)
    assert cluster.submit("cancel", "train")[0] == 0
    assert [call.split()[1:3] for call in cluster.calls("delete")] == [["job", "train"], ["configmap", ANY]]
    assert not cluster.calls("delete configmap certificates")


def test_the_readme_shows_what_its_dry_run_prints(cluster: Cluster) -> None:
    typed, printed = blocks("k8s/README.md")[:2]
    (submit,) = (command for command in commands(typed) if "submit.py" in command)
    status, manifests, _ = cluster.submit(*submit[: submit.index(" > train.yaml")].split()[2:])
    shown = re.compile(r"^kind:|completions:|nvidia.com/gpu:|image:|memory:|sizeLimit:|  --")
    lines = [f"{number}:{line}" for number, line in enumerate(manifests.splitlines(), 1) if shown.search(line)]
    assert (status, lines) == (0, printed.text.splitlines())
    assert {call.split()[0] for call in cluster.calls("")} == {"kustomize"}
