"""A workload and its pods, as kubectl gives them, to what happens and why, in a sentence. Pure functions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from k8s.kubectl import Object

PREEMPTED = 75
_INDEX = "batch.kubernetes.io/job-completion-index"
# not ErrImagePull, the first try's: a registry may be slow
_NO_IMAGE = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


class Phase(Enum):
    """How far a workload has come; BLOCKED: until a machine comes, which it may; STUCK: until something is mended."""

    WAITING = "waits"
    BLOCKED = "is blocked"
    STUCK = "cannot start"
    RUNNING = "runs"
    DONE = "is done"
    FAILED = "failed"


@dataclass(frozen=True)
class State:
    """What a workload does, and the reason or detail."""

    phase: Phase
    text: str


def selector(kind: str, name: str) -> str:
    """The label that a workload's pods have."""
    return f"jobset.sigs.k8s.io/jobset-name={name}" if kind == "JobSet" else f"batch.kubernetes.io/job-name={name}"


def read_state(workload: Object, pods: Sequence[Object]) -> State:
    """What a Job or JobSet does, and why."""
    conditions = {
        condition["type"]: condition
        for condition in workload.get("status", {}).get("conditions", [])
        if condition["status"] == "True"
    }
    for done in ("Complete", "Completed"):
        if done in conditions:
            return State(Phase.DONE, "")
    if "Failed" in conditions:
        return State(Phase.FAILED, _why_failed(conditions["Failed"], pods))
    if "Suspended" in conditions or workload["spec"].get("suspend"):
        return State(Phase.WAITING, "queued: Kueue has not admitted it yet")
    return _of_pods(newest(pods))


def newest(pods: Sequence[Object]) -> list[Object]:
    """The latest pod of each index, in order: the first is the chief."""
    latest: dict[int, Object] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or ""):
        latest[_index(pod)] = pod
    return [latest[index] for index in sorted(latest)]


def ended(pods: Sequence[Object]) -> dict[str, str]:
    """Why each pod that did not end well ended, by name."""
    return {pod["metadata"]["name"]: reason for pod in pods if (reason := why_ended(pod)) is not None}


def why_ended(pod: Object) -> str | None:
    """Why a pod ended before its work was done, None if it did not."""
    if pod.get("status", {}).get("phase") != "Failed":
        return None
    status = pod["status"]
    for container in containers(pod):
        stop = container.get("state", {}).get("terminated")
        if stop and stop.get("reason") == "OOMKilled":
            limit = _limit(pod, container["name"], "memory")
            return f"OOMKilled: it needed more than its {limit} of memory; raise --memory"
        if stop and stop["exitCode"] == PREEMPTED:
            return "exit 75: preempted, or another worker was lost; it will resume from its last checkpoint"
    for condition in status.get("conditions", []):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason', 'disruption')}: its machine was taken away; it will be started again"
    for container in containers(pod):
        stop = container.get("state", {}).get("terminated")
        if stop and stop["exitCode"]:
            return f"exit {stop['exitCode']}{_meaning(stop['exitCode'])}"
    return status.get("reason") or status.get("message") or "its pod failed"


def _of_pods(pods: Sequence[Object]) -> State:
    """The state of a workload that goes on, by the latest pods of its indices."""
    if not pods:
        return State(Phase.WAITING, "no pod yet")
    for pod in pods:
        if reason := _why_stuck(pod):
            return State(Phase.STUCK, reason)
        if reason := _why_unschedulable(pod):
            return State(Phase.BLOCKED, reason)
    phases = [pod.get("status", {}).get("phase", "Pending") for pod in pods]
    count = f"{phases.count('Running') + phases.count('Succeeded')} of {len(pods)} pods" if len(pods) > 1 else "its pod"
    if "Failed" in phases:
        return State(Phase.WAITING, "a pod ended; its successor comes")
    if "Pending" in phases:
        return State(Phase.WAITING, f"{count} run" if len(pods) > 1 else f"its pod starts{_doing(pods[0])}")
    return State(Phase.RUNNING, f"{count} run" if len(pods) > 1 else "its pod runs")


def _why_unschedulable(pod: Object) -> str | None:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            message = condition.get("message", "")
            gpus = _limit(pod, "main", "nvidia.com/gpu")
            lacking = f"no node with {gpus} free GPUs" if "nvidia.com/gpu" in message else "no node with room for it"
            return f"Unschedulable: {lacking} ({message.partition(' preemption:')[0].rstrip('. ')})"
    return None


def _why_stuck(pod: Object) -> str | None:
    for container in containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        if reason in _NO_IMAGE:
            return f"{reason}: image {container.get('image', '')} cannot be had; push it, or mend --registry and --tag"
        if reason.startswith("Create") and reason.endswith("Error"):
            return f"{reason}: {waiting.get('message', '')}"
    return None


def _why_failed(condition: Object, pods: Sequence[Object]) -> str:
    """The reason of the last pod that failed, which says more than the Job's own."""
    if condition.get("reason") == "DeadlineExceeded":
        return "DeadlineExceeded: it ran longer than activeDeadlineSeconds"
    every = list(ended(sorted(pods, key=_end)).values())
    reasons = [reason for reason in every if not reason.startswith(f"exit {PREEMPTED}")] or every
    if not reasons:
        return f"{condition.get('reason', 'Failed')}: {condition.get('message', '')}"
    tries = f" ({len(reasons)} tries)" if len(reasons) > 1 else ""
    return reasons[-1] + tries


def _end(pod: Object) -> str:
    stops = [container.get("state", {}).get("terminated") or {} for container in containers(pod)]
    return max((stop.get("finishedAt") or "" for stop in stops), default="")


def containers(pod: Object) -> Iterator[Object]:
    """What is known of a pod's containers, in the order in which they run."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", [])
    yield from status.get("containerStatuses", [])


def _limit(pod: Object, container: str, resource: str) -> Any:
    spec = pod.get("spec", {})
    for value in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        if value["name"] == container:
            return value.get("resources", {}).get("limits", {}).get(resource, "share")
    return "share"


def _index(pod: Object) -> int:
    metadata = pod["metadata"]
    found = metadata.get("labels", {}).get(_INDEX) or metadata.get("annotations", {}).get(_INDEX)
    return int(found or 0)


def _doing(pod: Object) -> str:
    for container in containers(pod):
        reason = container.get("state", {}).get("waiting", {}).get("reason")
        if reason:
            return f" ({reason})"
    return ""


def _meaning(status: int) -> str:
    meanings = {1: ": failed", 2: ": a flag or setting is wrong", 137: ": killed", 143: ": stopped by SIGTERM"}
    return meanings.get(status, "")
