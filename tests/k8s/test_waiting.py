"""While a step waits, its state names the reason that the cluster gives."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from k8s.errors import KubectlError, Reason
from k8s.state import Phase, State, failure_reason
from k8s.waiting import find_state
from tests.k8s.scenarios import job_state, pod, stopped

DENIED = 'Error creating: pods "train-x" is forbidden: exceeded quota: shop, requested: limits.memory=8Gi'

PREEMPTION = ("Evicted", "True", "Preempted to accommodate a workload (UID: 1, JobUID: 2)", "Preempted")


@dataclass
class Answers:
    """A fake cluster with given lists (by kind), events (by uid) and claims (by name)."""

    lists: dict[str, list[dict]] = field(default_factory=dict)
    event_lists: dict[str, list[dict]] = field(default_factory=dict)
    claims: dict[str, dict] = field(default_factory=dict)
    error: KubectlError | None = None

    def find_all(self, kind: str, _: str) -> list[dict]:
        return self.lists.get(kind, [])

    def events(self, uid: str) -> list[dict]:
        if self.error:
            raise self.error
        return self.event_lists.get(uid, [])

    def get(self, _: str, name: str) -> dict | None:
        return self.claims.get(name)


def workload(kind: str = "Job", *, labels: dict | None = None, conditions: Any = (), **spec: Any) -> dict:
    metadata = {"name": "train", "uid": "u1", "labels": labels or {}}
    return {"kind": kind, "metadata": metadata, "spec": spec, "status": {"conditions": list(conditions)}}


def event(reason: str, message: str, minute: int = 5) -> dict:
    return {"reason": reason, "message": message, "lastTimestamp": f"2026-01-01T00:{minute:02}:00Z"}


def state(value: dict, pods: list[dict], answers: Answers) -> State:
    return find_state(value, pods, answers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        (
            [("QuotaReserved", "False", "LocalQueue research doesn't exist")],
            "queued in research: LocalQueue research doesn't exist; change --queue",
        ),
        (
            [("QuotaReserved", "False", "no quota for nvidia.com/gpu, request > maximum capacity (16 > 8)")],
            "queued in research: no quota for nvidia.com/gpu, request > maximum capacity (16 > 8); change --gpus",
        ),
        (
            [("QuotaReserved", "False", "insufficient unused quota for nvidia.com/gpu, 8 more needed")],
            "queued in research: insufficient unused quota for nvidia.com/gpu, 8 more needed",
        ),
        (
            [PREEMPTION, ("QuotaReserved", "False", PREEMPTION[2])],
            "preempted in research by another workload; the step resumes when it is admitted again",
        ),
        (
            [PREEMPTION, ("QuotaReserved", "False", "8 more needed")],
            "preempted in research by another workload; the step resumes when it is admitted again: 8 more needed",
        ),
        (
            [("Evicted", "True", "exceeded the timeout", "PodsReadyTimeout"), ("QuotaReserved", "True", "reserved")],
            "evicted from research (exceeded the timeout); the step resumes when it is admitted again",
        ),
        (
            [("Evicted", "False", *PREEMPTION[2:]), ("QuotaReserved", "True", ""), ("Admitted", "False", "2 checks")],
            "queued in research: 2 checks",
        ),
        ([], "queued in research: Kueue has not looked at it yet"),
    ],
    ids=["no queue", "too large", "waits for quota", "preempted", "waits again", "evicted", "readmitted", "not seen"],
)
def test_a_queued_step_has_the_reason_of_kueue(conditions: list[tuple[str, ...]], text: str) -> None:
    values = [dict(zip(("type", "status", "message", "reason"), value, strict=False)) for value in conditions]
    answers = Answers({"workloads.kueue.x-k8s.io": [{"status": {"conditions": values}}]})
    queued = workload(suspend=True, labels={"kueue.x-k8s.io/queue-name": "research"})
    assert state(queued, [], answers) == State(Phase.BLOCKED, text)


def test_a_step_that_no_queue_suspends_says_so() -> None:
    assert "`spec.suspend` is set" in state(workload(suspend=True), [], Answers()).text


def test_refused_pods_have_the_reason_of_the_event() -> None:
    refused = f"its pods are refused: {DENIED}; change --memory"
    answers = Answers(event_lists={"u1": [event("FailedCreate", "older", 1), event("FailedCreate", DENIED)]})
    assert state(workload(), [], answers) == State(Phase.BLOCKED, refused)
    # one of two pods is there, and one that ended has no successor
    for pods in ([pod("train-0", "Running", running={})], [stopped("train-0", 75)]):
        assert state(workload(parallelism=2), pods, answers).text == (
            refused if pods[0]["status"]["phase"] == "Failed" else ""
        )
    # an event from before the latest pod is not its reason
    assert state(workload(), [stopped("train-a", 75, born=9)], answers).phase is Phase.WAITING


def test_refused_pods_of_a_job_set_have_the_event_of_its_job() -> None:
    answers = Answers({"jobs": [{"metadata": {"uid": "u2"}}]}, {"u2": [event("FailedCreate", DENIED)]})
    job_set = workload("JobSet", replicatedJobs=[{"template": {"spec": {"parallelism": 2}}}])
    assert state(job_set, [], answers).text.startswith("its pods are refused: Error creating")


def test_an_unbound_claim_is_named_with_the_reason_of_its_event() -> None:
    message = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    waiting = pod("train-a", "Pending", conditions=[condition])
    waiting["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "cartwheel-data"}}]
    assert state(workload(), [waiting], Answers()).text.startswith("its volume claim cartwheel-data does not exist")
    claims = {"cartwheel-data": {"metadata": {"uid": "c"}, "status": {"phase": "Pending"}}}
    answers = Answers(claims=claims, event_lists={"c": [event("FailedBinding", "no storage class is set")]})
    assert state(workload(), [waiting], answers) == State(
        Phase.BLOCKED,
        "its volume claim cartwheel-data is not bound: no storage class is set; create a volume, or set the storage "
        "class in k8s/components/local/volume.yaml",
    )


def test_a_volume_that_cannot_be_mounted_is_the_reason() -> None:
    starting = pod("train-a", "Pending", waiting={"reason": "ContainerCreating"})
    starting["metadata"]["uid"] = "p"
    answers = Answers(
        event_lists={"p": [event("FailedScheduling", "no node"), event("FailedMount", "nfs: timeout", 4)]}
    )
    assert state(workload(), [starting], answers) == State(Phase.BLOCKED, "its pod cannot start yet: nfs: timeout")


def test_a_reason_that_may_not_be_read_is_said() -> None:
    answers = Answers(error=KubectlError("no permission: events", Reason.FORBIDDEN))
    assert state(workload(), [], answers).text == "no pod yet; the reason cannot be read: no permission: events"


def test_the_end_of_the_last_pods_is_awaited() -> None:
    failed = job_state(FailureTarget="PodFailurePolicy")["status"]["conditions"]
    assert state(workload(conditions=failed), [stopped("train-a", 1)], Answers()) == State(
        Phase.WAITING, "it has failed (exit 1: failed); waiting for its last pods to end"
    )


@pytest.mark.parametrize(
    ("finalizers", "pods", "text"),
    [
        (["foregroundDeletion"], [pod("train-a", "Running", running={})], "waiting for train-a to end"),
        (["foregroundDeletion", "shop/audit"], [], "waiting for its finalizers shop/audit"),
        (["foregroundDeletion"], [], "waiting for the cluster"),
    ],
    ids=["pods", "finalizers", "nothing"],
)
def test_a_deletion_has_a_reason(finalizers: list[str], pods: list[dict], text: str) -> None:
    deleted = workload()
    deleted["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}
    assert state(deleted, pods, Answers()) == State(Phase.BLOCKED, f"it is being deleted: {text}")


def test_a_pod_that_is_being_deleted_blocks_its_replacement() -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "message": "Eviction API: evicting"}
    leaving = pod("train-a", "Running", running={}, conditions=[condition])
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    leaving["spec"] = {"nodeName": "e", "containers": []}
    assert state(workload(), [leaving], Answers()) == State(
        Phase.BLOCKED,
        "pod train-a is being deleted (Eviction API: evicting); its replacement starts when it has ended. "
        "If node e is lost, delete the node, or taint it as out of service",
    )
    leaving["status"]["phase"] = "Succeeded"
    assert state(workload(), [leaving], Answers()).phase is Phase.RUNNING


def test_remarks_of_the_scheduler_are_dropped() -> None:
    message = "0/2 nodes are available: 2 Insufficient memory. no new claims to deallocate, preemption: 0/2 nodes"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    assert state(workload(), [pod("train-a", "Pending", conditions=[condition])], Answers()).text == (
        "Unschedulable: no node has room for it (0/2 nodes are available: 2 Insufficient memory)"
    )


def test_a_pod_without_a_memory_limit_needed_more_than_its_node_has() -> None:
    killed = stopped("train-0", 137, "OOMKilled")
    assert failure_reason(killed) == "OOMKilled: it needed more than its memory limit of 32Gi; raise --memory"
    del killed["spec"]["containers"][0]["resources"]["limits"]
    assert failure_reason(killed) == "OOMKilled: it needed more memory than its node has; raise --memory"
