"""Submits a step as a new workload, that is, as a Job or JobSet.

An earlier workload of the step is replaced if it has failed, or if it is done with other settings. Nothing changes if
it is running or done with the same settings.
"""

import contextlib
import difflib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from k8s.errors import KubectlError, Reason
from k8s.kubectl import Kubectl, Object
from k8s.rendering import Placement, Step, render
from k8s.state import Phase, selector
from k8s.waiting import find_state

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_WORKLOADS = ("Job", "JobSet")
Await = Callable[[Object], None]
"""Function that waits until the cluster has removed a deleted workload."""
_NAME, _OURS = "app.kubernetes.io/name", "cartwheel"


class SettingsConflict(Exception):  # noqa: N818 (an answer, not an error)
    """The step is already running with other settings. Cancel it before you submit it again."""

    def __init__(self, diff: list[str]) -> None:
        """Takes a diff from the running settings to the requested ones."""
        super().__init__("other settings")
        self.diff = diff


class NotOwned(Exception):  # noqa: N818 (an answer, not an error)
    """A workload of another project has the step's name. Do not follow or remove it."""

    def __init__(self, workload: Object) -> None:
        name = f"{workload['kind']} {workload['metadata']['name']}"
        super().__init__(
            f"{name} does not belong to Cartwheel: its label {_NAME} is {_label(workload)}, not {_OURS}; "
            "use another --namespace, or delete it with kubectl"
        )


class Found(Enum):
    """What a submission found on the cluster. In messages, each value follows the name of the step."""

    NOTHING = "submitted"
    RUNNING = "is already running with these settings"
    DONE = "is already done with these settings; cancel it to run it again"
    ENDED = "submitted again"


@dataclass(frozen=True)
class Submission:
    """State of a step before its submission, and what the submission changed."""

    found: Found
    """State of the step before the submission."""
    diff: list[str]
    """Lines of a diff from the replaced workload to the new one, if any."""


def submit(step: Step, placement: Placement, kubectl: Kubectl, await_deletion: Await) -> Submission:
    """Submits a step, unless it is already running or done with the same settings.

    Args:
      step: the step.
      placement: where the step runs, and its resources.
      kubectl: access to the cluster.
      await_deletion: waits until a deleted workload is gone.

    Raises:
      SettingsConflict: the step is running with other settings.
      NotOwned: a workload of another project has the step's name.
      KubectlError: kubectl failed, or the cluster refuses an object.
    """
    objects = kubectl.parse(render(step, placement, kubectl))
    workload = find(step.name, kubectl)
    if workload is None:
        _apply(objects, _check(objects, kubectl), kubectl)
        return Submission(Found.NOTHING, [])
    diff = _diff(workload, objects, kubectl)
    phase = find_state(workload, pods_of(workload, kubectl), kubectl).phase
    if phase not in (Phase.DONE, Phase.FAILED):
        if diff:
            raise SettingsConflict(diff)
        return Submission(Found.RUNNING, [])
    if phase is Phase.DONE and not diff:
        return Submission(Found.DONE, [])
    # a Job can be neither changed nor restarted, so the cluster checks a Job with another name
    new = _check([value | _renamed(value) if value["kind"] in _WORKLOADS else value for value in objects], kubectl)
    remove(workload, kubectl, await_deletion)
    _apply(objects, new, kubectl)
    return Submission(Found.ENDED, diff)


def _check(objects: Sequence[Object], kubectl: Kubectl) -> list[str]:
    """Asks the cluster in a dry run whether it would accept all objects.

    Returns KIND/NAME of each new object; [] if the cluster does not support dry runs.
    """
    try:
        return kubectl.check(objects)
    except KubectlError as error:
        if error.reason is not Reason.NO_DRY_RUN:
            raise
        return []


def _renamed(workload: Object) -> Object:
    return {"metadata": workload["metadata"] | {"name": f"{workload['metadata']['name']}-next"}}


def _apply(objects: Sequence[Object], new: Sequence[str], kubectl: Kubectl) -> None:
    """Applies all objects. If the cluster refuses one, deletes the workload, its ConfigMaps and the objects in `new`.

    If the cluster does not answer, deletes nothing: the cluster may have applied the objects and started the workload.
    """
    try:
        kubectl.apply(objects)
    except KubectlError as error:
        if error.reason is not Reason.NO_ANSWER:  # without an answer, the objects may be applied
            ours = [_path(value) for value in objects if value["kind"] in (*_WORKLOADS, "ConfigMap")]
            for path in dict.fromkeys([*ours, *new]):
                with contextlib.suppress(KubectlError):  # the refusal is what the user needs to read
                    kubectl.delete(*path.split("/"))
        raise


def _path(value: Object) -> str:
    return f"{value['kind'].lower()}/{value['metadata']['name']}"


def find(step: str, kubectl: Kubectl) -> Object | None:
    """Returns the Job or JobSet of a step; None if neither exists.

    Raises:
      NotOwned: a workload of another project has the step's name.
      KubectlError: kubectl failed.
    """
    workload = _of_any_kind(step, kubectl)
    if workload is not None and _label(workload) != _OURS:
        raise NotOwned(workload)
    return workload


def _of_any_kind(step: str, kubectl: Kubectl) -> Object | None:
    job = kubectl.get("job", step)
    if job is not None or step != "train":
        return job
    try:
        return kubectl.get("jobset", step)
    except KubectlError as error:
        # a user without rights on JobSets has created none; applying one would be refused
        if error.reason not in (Reason.UNKNOWN_KIND, Reason.FORBIDDEN):
            raise
        return None


def pods_of(workload: Object, kubectl: Kubectl) -> list[Object]:
    """Lists the pods of a workload."""
    return kubectl.find_all("pods", selector(workload["kind"], workload["metadata"]["name"]))


def remove(workload: Object, kubectl: Kubectl, await_deletion: Await) -> None:
    """Deletes a workload with its pods, ConfigMaps and Service.

    `await_deletion` waits until the pods have ended, because a training run first saves a checkpoint.
    """
    name = workload["metadata"]["name"]
    settings = _settings(workload, kubectl)
    kubectl.delete(workload["kind"].lower(), name)
    try:
        await_deletion(workload)
    finally:  # also if the user does not wait: the deletion continues, and nothing would remove the rest
        for value in settings:
            kubectl.delete("configmap", value["metadata"]["name"])
        service = kubectl.get("service", name)
        if service is not None and _label(service) == _OURS:
            kubectl.delete("service", name)


def location(workload: Object, kubectl: Kubectl) -> str | None:
    """Returns the `--output` or `--workdir` of a workload; None without these flags."""
    arguments = [
        line for value in _settings(workload, kubectl) for text in value["data"].values() for line in text.splitlines()
    ]
    found = [
        line.partition("=")[2] for flag in ("--output=", "--workdir=") for line in arguments if line.startswith(flag)
    ]
    return found[0] if found else None


def _diff(existing: Object, objects: Sequence[Object], kubectl: Kubectl) -> list[str]:
    """Returns a diff from a workload on the cluster to the requested one; [] if they are equal.

    Ignores values that the cluster itself has set.
    """
    applied = json.loads(existing["metadata"].get("annotations", {}).get(_APPLIED, "{}"))
    # of either kind: a Job in place of a requested JobSet is a difference too
    (wanted,) = [value for value in objects if value["kind"] in _WORKLOADS]
    before = _lines(existing["kind"], applied, _settings(existing, kubectl))
    after = _lines(wanted["kind"], wanted, [value for value in objects if value["kind"] == "ConfigMap"])
    return list(difflib.unified_diff(before, after, "on the cluster", "requested", lineterm="", n=2))


def _lines(kind: str, workload: Object, settings: Sequence[Object]) -> list[str]:
    """Renders a workload and its ConfigMaps for a diff, without the digests in the ConfigMaps' names."""
    arguments = [
        f"{command}: {argument}"
        for value in settings
        for command, text in value["data"].items()
        for argument in text.splitlines()
    ]
    text = json.dumps(workload.get("spec", {}), indent=1, sort_keys=True, allow_nan=False)
    for value in settings:
        text = text.replace(value["metadata"]["name"], "run")
    return [*arguments, f"kind: {kind}", *text.splitlines()]


def _settings(workload: Object, kubectl: Kubectl) -> list[Object]:
    """Returns Cartwheel's ConfigMaps that a workload mounts."""
    spec = workload["spec"]
    if "replicatedJobs" in spec:
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    volumes = spec["template"]["spec"].get("volumes", [])
    names = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    found = [kubectl.get("configmap", name) for name in names]
    return [value for value in found if value is not None and _label(value) == _OURS]


def _label(value: Object) -> str | None:
    """Returns the project that an object's label names; None without such a label."""
    label: str | None = value["metadata"].get("labels", {}).get(_NAME)
    return label
