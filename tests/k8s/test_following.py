"""submit.py follows a step through preemptions and lost nodes, and reports why it waits or fails."""

import json
import signal

import pytest

from tests.k8s.scenarios import (
    FAST,
    FINISHED,
    LOG,
    RESULT,
    RUNNING,
    TRAIN,
    Cluster,
    job_state,
    log,
    pod,
    stopped,
    wait_until,
)


def test_out_of_memory_names_the_limit(cluster: Cluster) -> None:
    pods = [stopped(f"train-{number}", 137, "OOMKilled", born=number) for number in range(2)]
    states = [RUNNING, job_state(pods[0]), job_state(*pods, Failed="BackoffLimitExceeded")]
    cluster.play(states={"train": states}, logs={})
    status, output, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, output) == (1, "")
    assert "train: pod train-0 ended: OOMKilled" in errors
    assert errors.splitlines()[-1] == (
        "train failed: OOMKilled: it needed more than its memory limit of 32Gi; raise --memory (2 tries)"
    )


def test_waiting_for_a_node_with_room_has_a_limit(cluster: Cluster) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    cluster.play(states={"train": [job_state(pod("train-a", "Pending", conditions=[condition]))]})
    status, _, errors = cluster.submit(*TRAIN, *FAST, "--gpus", "4")
    assert status == 1
    assert errors.splitlines()[-1] == (
        "train is blocked for 0 min and still waiting: Unschedulable: no node has 4 or more free GPUs "
        "(0/3 nodes are available: 3 Insufficient nvidia.com/gpu)"
    )


def test_following_continues_after_a_preemption(cluster: Cluster) -> None:
    first, second = stopped("train-a", 75), pod("train-b", "Running", born=5, running={})
    ended = job_state(first, stopped("train-b", 0, "Completed", born=5), Complete="CompletionsReached")
    cluster.play(
        states={"train": [RUNNING, job_state(first), job_state(first, second), ended]},
        logs={"train-a/main": LOG, "train-b/main": log("resuming from the checkpoint of step 9", result=RESULT)},
    )
    status, output, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, json.loads(output)) == (0, RESULT)
    assert errors.count("train: pod train-a ended: exit 75: preempted") == 1
    assert "the run will resume from its last checkpoint" in errors
    assert "train is waiting: a pod ended; waiting for its replacement" in errors
    assert "resuming from the checkpoint of step 9" in errors


def test_a_lost_node_is_reported(cluster: Cluster) -> None:
    gone = pod("train-a", "Failed", conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "Eviction"}])
    cluster.play(states={"train": [RUNNING, job_state(gone), FINISHED]}, logs={"train-a/main": log(result=RESULT)})
    status, _, errors = cluster.submit(*TRAIN, *FAST)
    assert status == 0
    assert "train: pod train-a ended: Eviction: its node was taken away; the pod will be restarted" in errors


def test_a_pod_that_is_removed_between_two_polls_is_reported(cluster: Cluster) -> None:
    eviction = {"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}
    drained = pod("train-a", "Running", running={}, conditions=[eviction])
    states = [RUNNING, job_state(drained), job_state(pod("train-b", "Pending")), job_state(), FINISHED]
    cluster.play(states={"train": states}, logs={"train-a/main": log(result=RESULT)})
    status, _, errors = cluster.submit(*TRAIN, *FAST, "--patience", "1")
    assert status == 0, errors
    ends = [line for line in errors.splitlines() if " ended: " in line]
    assert ends == [
        "train: pod train-a ended: deleted (Eviction API: evicting); its exit status is unknown",
        "train: pod train-b ended: deleted; its exit status is unknown",
    ]


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_ends_the_wait(reason: str, cluster: Cluster) -> None:
    cluster.play(states={"train": [job_state(pod("train-a", "Pending", waiting={"reason": reason}))]})
    status, _, errors = cluster.submit(*TRAIN, "--poll", "0.05")
    assert status == 1
    assert errors.splitlines()[-1] == (
        f"train cannot start: {reason}: image shop/trainer-gpu:v1 cannot be pulled; "
        "push it, or correct --registry and --tag"
    )


def test_the_error_of_the_trainer_is_the_reason(cluster: Cluster) -> None:
    error = "12:00:02 ERROR trainer.cli: gs://shop/dataset holds no manifest.json; prepare it first"
    states = [RUNNING, job_state(stopped("train-a", 1), Failed="PodFailurePolicy")]
    cluster.play(states={"train": states}, logs={"train-a/main": log(error)})
    status, _, errors = cluster.submit(*TRAIN, *FAST)
    assert status == 1
    assert errors.splitlines()[-1] == (
        "train failed: exit 1: failed: gs://shop/dataset holds no manifest.json; prepare it first"
    )


def test_the_worker_that_failed_is_the_reason(cluster: Cluster) -> None:
    chief, other = stopped("train-0-a", 75, born=2), stopped("train-1-a", 137, "OOMKilled", index=1, born=1)
    running = job_state(pod("train-0-a", "Running", running={}), pod("train-1-a", "Running", index=1, running={}))
    states = [running, job_state(chief, other, Failed="BackoffLimitExceeded")]
    cluster.play(states={"train": states}, logs={"train-0-a/main": LOG})
    status, _, errors = cluster.submit(*TRAIN, *FAST, "--nodes", "2")
    assert status == 1
    assert "train is running: 2 of 2 pods are running" in errors
    assert "train failed: OOMKilled" in errors.splitlines()[-1]


def test_a_second_job_for_a_directory_fails_and_says_why(cluster: Cluster) -> None:
    cluster.play(states={"train": [job_state(stopped("train-a", 73), Failed="BackoffLimitExceeded")]})
    status, _, errors = cluster.submit(*TRAIN, *FAST)
    assert status == 1
    assert errors.splitlines()[-1] == "train failed: exit 73: another process owns its output"


UNREADABLE = 'Error from server (Forbidden): pods "train-a" is forbidden: User "ada" cannot get resource "pods/log"'


def test_a_log_that_cannot_be_read_is_said_with_the_place_of_the_result(cluster: Cluster) -> None:
    cluster.play(states={"train": [*[RUNNING] * 4, FINISHED]}, refuse={"logs": UNREADABLE})
    status, output, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, output) == (0, "")
    words = (
        'its log cannot be read: no permission: pods "train-a" is forbidden: User "ada" cannot get resource "pods/log"'
    )
    assert errors.count(f"train: {words}") == 1
    assert errors.splitlines()[-1].startswith(f"train is done; {words}")
    assert errors.splitlines()[-1].endswith("; its result is in gs://shop/run")


def test_a_queue_that_does_not_exist_ends_the_wait(cluster: Cluster) -> None:
    cluster.play(states={"train": [job_state()]}, lists={"workloads.kueue.x-k8s.io": []})
    cluster.submit(*TRAIN, "--queue", "research", "--detach")
    cluster.hold(lambda held: held["job/train"]["spec"].update(suspend=True))
    message = "LocalQueue research doesn't exist"
    condition = {"type": "QuotaReserved", "status": "False", "message": message}
    cluster.play(
        states={"train": [job_state()]}, lists={"workloads.kueue.x-k8s.io": [{"status": {"conditions": [condition]}}]}
    )
    status, _, errors = cluster.submit("logs", "train", *FAST)
    assert (status, errors.splitlines()[-1]) == (
        1,
        f"train is blocked for 0 min and still waiting: queued in research: {message}; change --queue",
    )


def test_ctrl_c_keeps_the_run_and_says_how_to_follow_it_again(cluster: Cluster) -> None:
    cluster.play(states={"train": [RUNNING]}, logs={"train-a/main": LOG})
    process = cluster.start(*TRAIN, *FAST, "--namespace", "shop")
    try:
        wait_until(lambda: len(cluster.calls("--namespace shop get pods")) > 1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
        "detached; train keeps running. Follow it again with `python k8s/submit.py logs --namespace shop train`"
    )
    assert not cluster.calls("--namespace shop delete")
    cluster.play(states={"train": [FINISHED]}, logs={"train-a/main": log(result=RESULT)})
    status, output, _ = cluster.submit("logs", "train", "--namespace", "shop", "--poll", "0.05")
    assert (status, json.loads(output)) == (0, RESULT)
