"""Tests the output and the exit status of submit.py, with a kubectl that replays recorded sequences."""

import json
import re
import signal
from unittest.mock import ANY

import pytest

from tests.documents import blocks, commands
from tests.k8s.scenarios import (
    FAST,
    FINISHED,
    LOG,
    RUNNING,
    TRAIN,
    WAITING,
    Cluster,
    job_state,
    log,
    pod,
    stopped,
    wait_until,
)

RESULT = {"workdir": "gs://shop/run", "validation_metric": "ndcg@20", "best_step": 40, "best_validation": 0.1771}


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


def test_a_missing_kubectl_says_where_to_get_it(cluster: Cluster) -> None:
    cluster.environment["PATH"] = str(cluster.folder)
    status, output, errors = cluster.submit(*TRAIN)
    assert (status, output) == (1, "")
    assert errors.startswith("kubectl is not on PATH; install it")


@pytest.mark.parametrize(
    ("verb", "refusal", "answer"),
    [
        (
            "apply",
            'Error from server (Forbidden): error when creating "STDIN": jobs.batch is forbidden: User "ada" cannot '
            'create resource "jobs" in API group "batch" in the namespace "shop"\n'
            "Error from server (Forbidden): error when retrieving current configuration of:\n"
            'Resource: "/v1, Resource=serviceaccounts", GroupVersionKind: "/v1, Kind=ServiceAccount"\n'
            'from server for: "STDIN": serviceaccounts "cartwheel" is forbidden: User "ada" cannot get resource '
            '"serviceaccounts" in API group "" in the namespace "shop"',
            'no permission: jobs.batch is forbidden: User "ada" cannot create resource "jobs" in API group "batch" in '
            'the namespace "shop", and serviceaccounts "cartwheel" is forbidden: User "ada" cannot get resource '
            '"serviceaccounts" in API group "" in the namespace "shop"; ask for the Role `cartwheel-submitter` of',
        ),
        (
            "apply",
            'Warning: a notice\nError from server (Forbidden): error when creating "STDIN": jobs.batch "train" is '
            "forbidden: exceeded quota: shop, requested: count/jobs.batch=1, used: count/jobs.batch=2",
            'a quota refuses it: jobs.batch "train" is forbidden: exceeded quota: shop, requested: ',
        ),
        (
            "apply",
            'Error from server (Forbidden): error when creating "STDIN": admission webhook "vjobset.kb.io" denied the '
            "request: invalid rule name",
            'webhook vjobset.kb.io refuses it: admission webhook "vjobset.kb.io" denied the request: invalid rule '
            "name; change --overlay",
        ),
        (
            "apply",
            'Error from server (InternalError): error when creating "STDIN": Internal error occurred: failed calling '
            'webhook "mjob.kb.io": failed to call webhook: Post "https://w:443": dial tcp 1.2.3.4: connection refused',
            "webhook mjob.kb.io does not answer: Internal error occurred",
        ),
        (
            "apply",
            'The Job "train" is invalid: \n* spec.template.spec.containers[0].resources.requests[memory]: Invalid '
            'value: "9Gi": must be less than or equal to memory limit of 8Gi',
            'the cluster refuses it: The Job "train" is invalid: * spec.template.spec.containers[0].resources.'
            'requests[memory]: Invalid value: "9Gi": must be less than or equal to memory limit of 8Gi; change --mem',
        ),
        (
            "apply",
            'Error from server (NotFound): error when creating "STDIN": namespaces "shop" not found',
            "there is no namespace shop; create it, or change --namespace",
        ),
        (
            "get",
            "error: You must be logged in to the server (Unauthorized)",
            "the cluster does not accept your credentials",
        ),
        (
            "apply",
            'error: resource mapping not found for name: "train": no matches for kind "JobSet" in version',
            "this cluster has no JobSet; install its controller, or use another --overlay",
        ),
        (
            "get",
            "E0101 00:00:00 memcache.go:265] retrying\nUnable to connect to the server: dial tcp: i/o timeout",
            "the cluster does not answer: Unable to connect to the server: dial tcp: i/o timeout; `kubectl config",
        ),
    ],
    ids=[
        "no permission",
        "quota",
        "webhook",
        "webhook down",
        "schema",
        "no namespace",
        "not logged in",
        "no JobSet",
        "no answer",
    ],
)
def test_an_error_of_kubectl_becomes_one_sentence(verb: str, refusal: str, answer: str, cluster: Cluster) -> None:
    cluster.play(refuse={verb: refusal})
    status, output, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, output) == (1, "")
    assert errors.startswith(answer)
    assert len(errors.splitlines()) == 1
    assert not cluster.calls("apply -f")


CREATED = ["job/train", "configmap/run-", "serviceaccount/cartwheel"]
DENIED = 'Error from server (Forbidden): jobs.batch "train" is forbidden: exceeded quota: shop'


def test_nothing_is_left_of_a_submission_that_is_refused_after_its_check(cluster: Cluster) -> None:
    cluster.play(refuse={"apply -f": DENIED})
    status, _, errors = cluster.submit(*TRAIN, *FAST)
    assert (status, errors.startswith("a quota refuses it")) == (1, True)
    deleted = ["/".join(call.split()[1:3]) for call in cluster.calls("delete")]
    assert [path[: len(want)] for path, want in zip(sorted(deleted), sorted(CREATED), strict=True)] == sorted(CREATED)


def test_without_an_answer_what_may_run_is_kept(cluster: Cluster) -> None:
    cluster.play(refuse={"apply -f": "Unable to connect to the server: i/o timeout"})
    assert cluster.submit(*TRAIN, *FAST)[0] == 1
    assert not cluster.calls("delete")


def test_a_finished_step_is_kept_if_its_successor_is_refused(cluster: Cluster) -> None:
    cluster.play(states={"train": [FINISHED]})
    cluster.submit(*TRAIN, "--detach")
    cluster.play(states={"train": [FINISHED]}, refuse={"apply --dry-run=server": DENIED})
    status, _, errors = cluster.submit(*TRAIN, "--detach", "--set", "epochs=3")
    assert (status, errors.startswith("a quota refuses it"), cluster.calls("delete")) == (1, True, [])


def test_a_webhook_without_dry_runs_does_not_prevent_a_submission(cluster: Cluster) -> None:
    refusal = 'Error from server (BadRequest): admission webhook "w" does not support dry run'
    cluster.play(states={"train": [RUNNING]}, refuse={"apply --dry-run=server": refusal})
    assert cluster.submit(*TRAIN, "--detach")[0] == 0
    assert len(cluster.calls("apply -f")) == 1


def test_a_user_without_rights_on_job_sets_can_run_jobs(cluster: Cluster) -> None:
    refusal = (
        'Error from server (Forbidden): jobsets.jobset.x-k8s.io "train" is forbidden: User "ada" cannot get resource '
        '"jobsets"'
    )
    cluster.play(states={"train": [RUNNING]}, refuse={"get jobset": refusal}, kinds={"train": "JobSet"})
    assert cluster.submit("status")[:2] == (
        0,
        "prepare: not submitted\ntrain: not submitted\ntune: not submitted\nevaluate-export: not submitted\n",
    )
    status, _, errors = cluster.submit(*TRAIN, "--detach")
    assert (status, errors.splitlines()[0]) == (0, "train submitted")
    assert cluster.submit("cancel", "train")[0] == 0
    cluster.play(refuse={"get jobset": refusal, "apply": refusal}, kinds={"train": "JobSet"})
    status, _, errors = cluster.submit(*TRAIN, "--overlay", "jobset", "--detach")
    assert (status, "no permission: jobsets" in errors) == (1, True)


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


PIPELINE = [
    "pipeline",
    *("--events", "gs://shop/events*.csv", "--preset", "mf", "--data", "gs://shop/dataset"),
    *("--workdir", "gs://shop/run", "--output", "gs://shop/models/cartwheel/1"),
]


def done(step: str) -> dict:
    return job_state(stopped(f"{step}-a", 0, "Completed"), Complete="CompletionsReached")


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


def test_a_second_job_for_a_directory_fails_and_says_why(cluster: Cluster) -> None:
    cluster.play(states={"train": [job_state(stopped("train-a", 73), Failed="BackoffLimitExceeded")]})
    status, _, errors = cluster.submit(*TRAIN, *FAST)
    assert status == 1
    assert errors.splitlines()[-1] == "train failed: exit 73: another process owns its output"


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
            "the trials of gs://shop/tune, which is in an object store, need a database to share",
        ),
        (["--search", "model.dims=8..16"], "Unknown setting `model.dims`; did you mean `model.dim`?"),
        (["--nodes", "2"], "tune trains each trial on one machine, got 2 machines; remove --nodes"),
    ],
)
def test_a_search_that_cannot_run_is_refused(flags: list[str], message: str, cluster: Cluster) -> None:
    status, _, errors = cluster.submit(*SEARCH, *flags, "--dry-run")
    assert (status, message in errors) == (2, True), errors
