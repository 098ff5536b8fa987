"""submit.py on a real cluster, as a user with the Role of k8s/namespace: its messages, and the objects that remain."""

import json
import time

import pytest

from tests.cluster.namespaces import FAST, TRAIN, Namespace, last_line

pytestmark = pytest.mark.cluster

RESULT = {"workdir": "gs://shop/run", "validation_metric": "ndcg@20", "best_step": 40, "best_validation": 0.1771}
LOG = ["12:00:01 INFO trainer.runs.metrics_log: epoch 1: loss 5", *json.dumps(RESULT, indent=2).splitlines()]
DONE = "train is done: run in gs://shop/run, ndcg@20 0.1771 at step 40"
CPU = ["--gpus", "0"]
PATIENT = ["--poll", "0.2"]


def test_a_run_is_followed_to_its_result(namespace: Namespace) -> None:
    namespace.log(*LOG)
    process = namespace.start(*TRAIN, *CPU, *PATIENT)
    namespace.end_pods(0)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, json.loads(output), last_line(errors)) == (0, RESULT, DONE), errors
    assert namespace.submit("status")[1].splitlines()[1] == "train is done"


def test_wrong_settings_or_data_end_a_run_with_the_error_of_its_log(namespace: Namespace) -> None:
    namespace.log("12:00:02 ERROR trainer.cli: gs://shop/dataset holds no manifest.json; prepare it first")
    process = namespace.start(*TRAIN, *CPU, *PATIENT)
    namespace.end_pods(1)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, last_line(errors)) == (
        1,
        "train failed: exit 1: failed: gs://shop/dataset holds no manifest.json; prepare it first",
    )


def test_a_preempted_job_is_replaced_after_ten_seconds(namespace: Namespace) -> None:
    namespace.log(*LOG)
    process = namespace.start(*TRAIN, *PATIENT, "--overlay", "spot", "--gpus", "8")
    ended, start = namespace.end_pods(75), time.monotonic()
    namespace.wait_for_pods(known=ended)
    assert 8 < time.monotonic() - start < 40  # the Job controller's first delay is 10 s
    namespace.end_pods(0)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, last_line(errors)) == (0, DONE), errors
    assert "exit 75: preempted, or another worker was lost; the run will resume from its last checkpoint" in errors
    assert "train is waiting: a pod ended; waiting for its replacement" in errors


def test_a_preempted_job_set_restarts_at_once_and_is_not_counted(namespace: Namespace) -> None:
    namespace.log(*LOG)
    process = namespace.start(*TRAIN, *PATIENT, "--overlay", "jobset", "--gpus", "1")
    namespace.wait_for_pods(2)
    ended, start = namespace.end_pods(75, count=2), time.monotonic()
    namespace.wait_for_pods(2, known=ended)
    assert time.monotonic() - start < 10
    status = json.loads(namespace.kubectl("get", "jobset", "train", "-o", "json"))["status"]
    assert (status["restarts"], status.get("restartsCountTowardsMax", 0)) == (1, 0)
    namespace.end_pods(0, count=2)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, last_line(errors)) == (0, DONE), errors


def test_a_cancelled_run_leaves_only_its_service_account(namespace: Namespace) -> None:
    assert namespace.submit(*TRAIN, *CPU, "--nodes", "2", "--detach")[0] == 0
    namespace.wait_for_pods(2)
    namespace.kubectl(
        "patch", "job", "train", "--type=merge", '--patch={"metadata":{"finalizers":["shop.example/audit"]}}'
    )
    status, _, errors = namespace.submit("cancel", "train", *FAST)
    assert (status, last_line(errors)) == (
        1,
        "train has still not been deleted after 0.05 min: waiting for its finalizers shop.example/audit; the "
        "deletion continues. Run the same command again later, or wait longer with --patience",
    )
    assert "train is blocked: it is being deleted: waiting" in namespace.submit("status")[1]
    namespace.kubectl("patch", "job", "train", "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    namespace.plane.wait("deletion", lambda: namespace.objects() == {"serviceaccount/cartwheel"}, seconds=60)


def test_out_of_memory_names_the_limit(namespace: Namespace) -> None:
    process = namespace.start(*TRAIN, *CPU, *PATIENT, "--memory", "512Mi")
    namespace.wait_for_pods(known=namespace.end_pods(137, reason="OOMKilled"))
    namespace.submit("cancel", "train", *PATIENT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, last_line(errors)) == (1, "train no longer exists: it was cancelled")
    assert "ended: OOMKilled: it needed more than its memory limit of 512Mi; raise --memory" in errors


def test_without_rights_nothing_is_left(namespace: Namespace) -> None:
    status, _, errors = namespace.submit(*TRAIN, *CPU, user="bob")
    assert (status, errors.startswith("no permission: ")) == (1, True), errors
    # Bob may get, but not create
    rules = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [rules],
    }
    namespace.kubectl("create", "-f", "-", objects=[role])
    namespace.kubectl("create", "rolebinding", "readers", "--role=reader", "--user=bob")
    status, _, errors = namespace.submit(*TRAIN, *CPU, "--nodes", "2", user="bob")
    # ServiceAccount, ConfigMap, Service, Job
    assert (status, errors.count("cannot create resource")) == (1, 4), errors
    assert "ask for the Role `cartwheel-submitter` of k8s/namespace" in errors
    assert namespace.objects() == set()


def test_a_quota_on_jobs_refuses_a_submission_and_nothing_is_left(namespace: Namespace) -> None:
    namespace.create("ResourceQuota", "jobs", {"hard": {"count/jobs.batch": "0"}})
    status, _, errors = namespace.submit(*TRAIN, *CPU, "--nodes", "2")
    assert (status, errors.startswith("a quota refuses it: jobs.batch ")) == (1, True), errors
    assert "exceeded quota: jobs, requested: count/jobs.batch=1" in errors
    assert namespace.objects() == set()


def test_a_policy_refuses_a_submission_and_nothing_is_left(namespace: Namespace) -> None:
    rule = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
    check = {"expression": "false", "message": "the image needs a digest"}
    scope = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}}
    admission, name = "admissionregistration.k8s.io/v1", namespace.name
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [check]}
    namespace.create("ValidatingAdmissionPolicy", name, spec, version=admission)
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": scope}
    namespace.create("ValidatingAdmissionPolicyBinding", name, binding, version=admission)
    probe = ["create", "job", "probe", "--image=i", "--dry-run=server"]
    namespace.plane.wait("policy", lambda: "denied request" in namespace.kubectl(*probe, is_checked=False), seconds=60)
    status, _, errors = namespace.submit(*TRAIN, *CPU)
    assert (status, errors.startswith(f"policy {name} refuses it: ")) == (1, True), errors
    assert errors.endswith("the image needs a digest; change --registry or --tag\n")
    assert namespace.objects() == set()


def test_a_quota_that_refuses_the_pods_ends_the_wait(namespace: Namespace) -> None:
    namespace.create("ResourceQuota", "memory", {"hard": {"limits.memory": "1Gi"}})
    status, _, errors = namespace.submit(*TRAIN, *CPU, *FAST)
    assert status == 1
    assert "its pods are refused: " in last_line(errors), errors
    assert "exceeded quota: memory" in last_line(errors)
    assert "change --memory" in last_line(errors)


def test_a_quota_on_cpu_limits_accepts_the_pods(namespace: Namespace) -> None:
    namespace.create("ResourceQuota", "cores", {"hard": {"limits.cpu": "200"}})
    assert namespace.submit(*TRAIN, *CPU, "--detach")[0] == 0
    assert namespace.wait_for_pods()


def test_a_claim_without_a_volume_is_named(namespace: Namespace) -> None:
    status, _, errors = namespace.submit(*TRAIN[:3], "--data", "/data/d", "--workdir", "/data/run", *FAST)
    assert (status, "its volume claim cartwheel-data is not bound: no persistent volumes" in last_line(errors)) == (
        1,
        True,
    )


def test_too_few_gpus_are_named(namespace: Namespace) -> None:
    status, _, errors = namespace.submit(*TRAIN, *FAST, "--gpus", "16")
    assert status == 1
    assert "Unschedulable: no node has 16 or more free GPUs (0/5 nodes are available: " in last_line(errors)
    assert last_line(errors).endswith("Insufficient nvidia.com/gpu)") or "taint" in last_line(errors)


def test_a_log_that_may_not_be_read_is_said(namespace: Namespace) -> None:
    role = json.loads(namespace.kubectl("get", "role", "cartwheel-submitter", "-o", "json"))
    role["rules"] = [rule for rule in role["rules"] if rule["resources"] != ["pods/log"]]
    namespace.kubectl("apply", "-f", "-", objects=[role])
    process = namespace.start(*TRAIN, *CPU, *PATIENT)
    namespace.end_pods(0)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")
    assert "train is done; its log cannot be read: no permission: pods " in last_line(errors)
    assert last_line(errors).endswith("its result is in gs://shop/run")
