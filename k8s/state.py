"""Derives the state of a workload, and the reason for the state, from objects that kubectl returned.

A workload is the Job or JobSet of a step. The functions are pure: they send no requests.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from k8s.kubectl import Object
from k8s.rendering import GPU

PREEMPTED = 75
_INDEX = "batch.kubernetes.io/job-completion-index"
_LAST_PODS = "waiting for its last pods to end"
# does not include ErrImagePull, the state after the first try, because a registry may be slow
_NO_IMAGE = {"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_REMARKS = re.compile(r",? *(no new claims to deallocate,?|preemption:.*)")


class Phase(Enum):
    """Phase of a workload. In messages, each value follows the name of the step, as in `train is running`.

    BLOCKED: waits for the cluster, for example for a free node. STUCK: waits until the user fixes a problem.
    """

    WAITING = "is waiting"
    BLOCKED = "is blocked"
    STUCK = "cannot start"
    RUNNING = "is running"
    DONE = "is done"
    FAILED = "failed"


@dataclass(frozen=True)
class State:
    """A workload's phase, and the reason for the phase."""

    phase: Phase
    """Phase of the workload."""
    text: str
    """Reason for the phase, or details such as the number of running pods."""


def selector(kind: str, name: str) -> str:
    """Returns the label selector for the pods of a Job or JobSet."""
    return f"jobset.sigs.k8s.io/jobset-name={name}" if kind == "JobSet" else f"batch.kubernetes.io/job-name={name}"


def read_state(workload: Object, pods: Sequence[Object]) -> State:
    """Derives the state of a Job or JobSet from its status and its pods."""
    conditions = {
        condition["type"]: condition
        for condition in workload.get("status", {}).get("conditions", [])
        if condition["status"] == "True"
    }
    for done in ("Complete", "Completed"):
        if done in conditions:
            return State(Phase.DONE, "")
    if "Failed" in conditions:
        return State(Phase.FAILED, _explain_failure(conditions["Failed"], pods))
    if "deletionTimestamp" in workload["metadata"]:
        return State(Phase.BLOCKED, f"it is being deleted: {deletion_reason(workload, pods)}")
    if "FailureTarget" in conditions:
        return State(
            Phase.WAITING, f"it has failed ({_explain_failure(conditions['FailureTarget'], pods)}); {_LAST_PODS}"
        )
    if "SuccessCriteriaMet" in conditions:
        return State(Phase.WAITING, f"it has succeeded; {_LAST_PODS}")
    if is_suspended(workload):
        return State(Phase.BLOCKED, "queued")
    return _read_pods(latest_pods(pods))


def is_suspended(workload: Object) -> bool:
    """Returns True if a queue or a user has suspended a workload. A suspended workload has no pods."""
    return bool(workload["spec"].get("suspend"))


def deletion_reason(workload: Object, pods: Sequence[Object]) -> str:
    """Describes what a deletion waits for: pods, finalizers or the cluster."""
    names = [pod["metadata"]["name"] for pod in latest_pods(pods)]
    if names:
        return f"waiting for {', '.join(names)} to end"
    finalizers = [name for name in workload["metadata"].get("finalizers", []) if name != "foregroundDeletion"]
    return f"waiting for its finalizers {', '.join(finalizers)}" if finalizers else "waiting for the cluster"


def latest_pods(pods: Sequence[Object]) -> list[Object]:
    """Returns the latest pod of each completion index, sorted by index.

    Kubernetes replaces a failed pod by one of the same index. Index 0 is the chief worker.
    """
    latest: dict[int, Object] = {}
    for pod in sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp") or ""):
        latest[_index(pod)] = pod
    return [latest[index] for index in sorted(latest)]


def failure_reasons(pods: Sequence[Object]) -> dict[str, str]:
    """Returns why each failed pod failed, by name of the pod."""
    return {pod["metadata"]["name"]: reason for pod in pods if (reason := failure_reason(pod)) is not None}


def failure_reason(pod: Object) -> str | None:
    """Returns why a pod failed; None if it did not fail."""
    if pod.get("status", {}).get("phase") != "Failed":
        return None
    status = pod["status"]
    for container in containers(pod):
        stop = container.get("state", {}).get("terminated")
        if stop and stop.get("reason") == "OOMKilled":
            limit = _limit(pod, container["name"], "memory")
            more = f"more than its memory limit of {limit}" if limit else "more memory than its node has"
            return f"OOMKilled: it needed {more}; raise --memory"
        if stop and stop["exitCode"] == PREEMPTED:
            return "exit 75: preempted, or another worker was lost; the run will resume from its last checkpoint"
    for condition in status.get("conditions", []):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason', 'disruption')}: its node was taken away; the pod will be restarted"
    for container in containers(pod):
        stop = container.get("state", {}).get("terminated")
        if stop and stop["exitCode"]:
            return f"exit {stop['exitCode']}{_describe_status(stop['exitCode'])}"
    return status.get("reason") or status.get("message") or "its pod failed"


def _read_pods(pods: Sequence[Object]) -> State:
    """Derives the state of an unfinished workload from its `latest_pods`."""
    if not pods:
        return State(Phase.BLOCKED, "no pod yet")
    for pod in pods:
        if reason := _find_permanent_problem(pod):
            return State(Phase.STUCK, reason)
        if reason := _find_scheduling_problem(pod) or _find_deletion(pod):
            return State(Phase.BLOCKED, reason)
    phases = [pod.get("status", {}).get("phase", "Pending") for pod in pods]
    count = f"{phases.count('Running') + phases.count('Succeeded')} of {len(pods)} pods" if len(pods) > 1 else "its pod"
    if "Failed" in phases:
        return State(Phase.WAITING, "a pod ended; waiting for its replacement")
    if "Pending" in phases:
        return State(
            Phase.WAITING, f"{count} are running" if len(pods) > 1 else f"its pod is starting{_waiting_reason(pods[0])}"
        )
    return State(Phase.RUNNING, f"{count} are running" if len(pods) > 1 else "")


def unschedulable_message(pod: Object) -> str:
    """Returns why no node can run a pod, in the scheduler's words; '' if the pod was not rejected."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return _REMARKS.sub("", condition.get("message", "")).rstrip(". ")
    return ""


def _find_scheduling_problem(pod: Object) -> str | None:
    message = unschedulable_message(pod)
    if not message:
        return None
    for name, count in _other_devices(pod):
        if name in message:
            return f"Unschedulable: no node has {count} or more free {name} ({message})"
    gpus = _limit(pod, "main", "nvidia.com/gpu")
    lacking = (
        f"no node has {gpus} or more free GPUs" if gpus and "nvidia.com/gpu" in message else "no node has room for it"
    )
    return f"Unschedulable: {lacking} ({message})"


def _other_devices(pod: Object) -> Iterator[tuple[str, str]]:
    """Yields the name and number of the devices that a pod requests, such as instances of a GPU, but no whole GPUs."""
    for container in pod.get("spec", {}).get("containers", []):
        limits = container.get("resources", {}).get("limits", {})
        yield from ((name, count) for name, count in limits.items() if "/" in name and name != GPU)


def _find_deletion(pod: Object) -> str | None:
    """Returns a message about a pod that is being deleted and has not ended, else None."""
    status = pod.get("status", {})
    if "deletionTimestamp" not in pod["metadata"] or status.get("phase") in ("Failed", "Succeeded"):
        return None
    name, node = pod["metadata"]["name"], pod.get("spec", {}).get("nodeName", "")
    return (
        f"pod {name} is being deleted{disruption(pod)}; its replacement starts when it has ended. If node {node} "
        "is lost, delete the node, or taint it as out of service"
    )


def disruption(pod: Object) -> str:
    """Returns ` (REASON)` if the cluster disrupts a pod, otherwise ''."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f" ({condition.get('message') or condition.get('reason')})"
    return ""


def _find_permanent_problem(pod: Object) -> str | None:
    for container in containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        if reason in _NO_IMAGE:
            image = container.get("image", "")
            return f"{reason}: image {image} cannot be pulled; push it, or correct --registry and --tag"
        if reason.startswith("Create") and reason.endswith("Error"):
            return f"{reason}: {waiting.get('message', '')}"
    return None


def _explain_failure(condition: Object, pods: Sequence[Object]) -> str:
    """Returns the failure reason of the last pod to end; ignores preempted pods if other pods failed.

    `condition` gives the reason after a timeout, or if no pod has failed.
    """
    if condition.get("reason") == "DeadlineExceeded":
        return "DeadlineExceeded: it ran longer than activeDeadlineSeconds"
    every = list(failure_reasons(sorted(pods, key=_end_time)).values())
    reasons = [reason for reason in every if not reason.startswith(f"exit {PREEMPTED}")] or every
    if not reasons:
        return f"{condition.get('reason', 'Failed')}: {condition.get('message', '')}"
    tries = f" ({len(reasons)} tries)" if len(reasons) > 1 else ""
    return reasons[-1] + tries


def _end_time(pod: Object) -> str:
    stops = [container.get("state", {}).get("terminated") or {} for container in containers(pod)]
    return max((stop.get("finishedAt") or "" for stop in stops), default="")


def containers(pod: Object) -> Iterator[Object]:
    """Yields the statuses of a pod's containers, init containers first."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", [])
    yield from status.get("containerStatuses", [])


def _limit(pod: Object, container: str, resource: str) -> Any:
    """Returns the limit of a container's resource; None if it has none."""
    spec = pod.get("spec", {})
    for value in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        if value["name"] == container:
            return value.get("resources", {}).get("limits", {}).get(resource)
    return None


def _index(pod: Object) -> int:
    metadata = pod["metadata"]
    found = metadata.get("labels", {}).get(_INDEX) or metadata.get("annotations", {}).get(_INDEX)
    return int(found or 0)


def _waiting_reason(pod: Object) -> str:
    for container in containers(pod):
        reason = container.get("state", {}).get("waiting", {}).get("reason")
        if reason:
            return f" ({reason})"
    return ""


def _describe_status(status: int) -> str:
    meanings = {
        1: ": failed",
        2: ": wrong arguments",
        73: ": another process owns its output",
        137: ": killed",
        143: ": stopped by SIGTERM",
    }
    return meanings.get(status, "")
