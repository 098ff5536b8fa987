"""Finds why a step waits.

The reason is read from Kueue's decision on the workload, from the events of a Job without pods or of a pod that cannot
start, or from the events of a volume claim that is not bound.
"""

import re
from collections.abc import Mapping, Sequence

from k8s.errors import KubectlError, Reason, flags_for
from k8s.kubectl import Kubectl, Object
from k8s.state import Phase, State, is_suspended, latest_pods, read_state, selector, unschedulable_message

_QUEUE = "kueue.x-k8s.io/queue-name"
_HOPELESS = re.compile("doesn't exist|maximum capacity|is inactive|is stopped")
"""Messages of Kueue about workloads that it will never admit."""
_START_PROBLEMS = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
"""Event reasons of a pod that has a node but cannot start."""


def find_state(workload: Object, pods: Sequence[Object], kubectl: Kubectl) -> State:
    """Returns the state of a Job or JobSet, with the reason if it waits.

    Raises:
      KubectlError: kubectl failed.
    """
    state = read_state(workload, pods)
    if state.phase not in (Phase.WAITING, Phase.BLOCKED) or "deletionTimestamp" in workload["metadata"]:
        return state
    try:
        reason = _find_reason(workload, pods, kubectl)
    except KubectlError as error:
        if error.reason is not Reason.FORBIDDEN:
            raise
        return State(state.phase, f"{state.text}; the reason cannot be read: {error}")
    return State(Phase.BLOCKED, reason) if reason else state


def _find_reason(workload: Object, pods: Sequence[Object], kubectl: Kubectl) -> str | None:
    if is_suspended(workload):
        return _queue_reason(workload, kubectl)
    latest = latest_pods(pods)
    for pod in latest:
        if "persistentvolumeclaim" in unschedulable_message(pod).lower():
            return _claim_reason(pod, kubectl)
    active = [pod for pod in latest if pod.get("status", {}).get("phase") != "Failed"]
    if len(active) < _wanted_pods(workload):
        since = max((pod["metadata"].get("creationTimestamp", "") for pod in pods), default="")
        return _creation_reason(workload, since, kubectl)
    for pod in active:
        if pod.get("status", {}).get("phase", "Pending") == "Pending" and not unschedulable_message(pod):
            message = _latest_event([pod["metadata"].get("uid", "")], kubectl, only=_START_PROBLEMS)
            if message:
                return f"its pod cannot start yet: {message}"
    return None


def _queue_reason(workload: Object, kubectl: Kubectl) -> str:
    """Returns why a workload is suspended: by a user, or by Kueue, with the reason from Kueue's Workload object."""
    queue = workload["metadata"].get("labels", {}).get(_QUEUE)
    if queue is None:
        return "suspended, and not by a queue: `spec.suspend` is set; cancel the step, or resume it with kubectl"
    found = kubectl.find_all("workloads.kueue.x-k8s.io", f"kueue.x-k8s.io/job-uid={workload['metadata'].get('uid')}")
    conditions = {value["type"]: value for item in found for value in item.get("status", {}).get("conditions", [])}
    return _describe_queue(queue, conditions)


def _describe_queue(queue: str, conditions: Mapping[str, Object]) -> str:
    """Returns why a workload waits in a queue. `conditions`: the conditions of its Workload object, by type."""
    message = next(
        (
            conditions[kind]["message"]
            for kind in ("QuotaReserved", "Admitted")
            if conditions.get(kind, {}).get("status") == "False"
        ),
        "",
    )
    advice = f"; {flags_for(message)}" if _HOPELESS.search(message) else ""
    eviction = conditions.get("Evicted", {})
    if eviction.get("status") != "True":
        return f"queued in {queue}: {message or 'Kueue has not looked at it yet'}{advice}"
    if eviction.get("reason") == "Preempted":
        cause = f"preempted in {queue} by another workload"
    else:
        cause = f"evicted from {queue} ({eviction['message']})"
    # right after the eviction, both conditions have the same message
    rest = f": {message}{advice}" if message not in ("", eviction["message"]) else ""
    return f"{cause}; the step resumes when it is admitted again{rest}"


def _claim_reason(pod: Object, kubectl: Kubectl) -> str | None:
    """Returns which volume claim of a pod is missing or not bound, and why; None if all are bound."""
    for volume in pod["spec"].get("volumes", []):
        name = volume.get("persistentVolumeClaim", {}).get("claimName")
        claim = kubectl.get("persistentvolumeclaim", name) if name else None
        if name and claim is None:
            return f"its volume claim {name} does not exist; submit the step again to create it"
        if claim and claim.get("status", {}).get("phase") != "Bound":
            message = _latest_event([claim["metadata"].get("uid", "")], kubectl) or unschedulable_message(pod)
            return (
                f"its volume claim {name} is not bound: {message}; create a volume, or set the storage class in "
                "k8s/components/local/volume.yaml"
            )
    return None


def _creation_reason(workload: Object, since: str, kubectl: Kubectl) -> str | None:
    """Returns why the cluster has refused to create pods since the time `since`; None if no event says so."""
    owners = [workload]
    if workload["kind"] == "JobSet":
        owners += kubectl.find_all("jobs", selector(workload["kind"], workload["metadata"]["name"]))
    uids = [owner["metadata"].get("uid", "") for owner in owners]
    message = _latest_event(uids, kubectl, only=("FailedCreate",), since=since)
    return f"its pods are refused: {message}; {flags_for(message)}" if message else None


def _latest_event(uids: Sequence[str], kubectl: Kubectl, only: tuple[str, ...] = ("",), since: str = "") -> str | None:
    """Returns the message of the latest event of the objects `uids`; None if there is none.

    `only`: prefixes of event reasons. Other events are ignored, and so are events before `since` (ISO 8601).
    """
    events = [
        (event.get("lastTimestamp") or event.get("eventTime") or "", event["message"])
        for uid in uids
        for event in kubectl.events(uid)
        if event.get("reason", "").startswith(only)
    ]
    moment, message = max(events, default=("", None))
    return message if moment >= since else None


def _wanted_pods(workload: Object) -> int:
    spec = workload["spec"]
    if "replicatedJobs" in spec:
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    parallelism: int = spec.get("parallelism", 1)
    return parallelism
