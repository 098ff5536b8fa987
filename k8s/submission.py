"""Bringing a step to the cluster: new, as it is already, or instead of one that has ended."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from k8s.kubectl import Kubectl, KubectlError, Object
from k8s.rendering import Placement, Step, render
from k8s.state import Phase, read_state, selector

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_WORKLOADS = ("Job", "JobSet")
_NAME, _OURS = "app.kubernetes.io/name", "cartwheel"


class SettingsConflict(Exception):  # noqa: N818 (an answer, not an error)
    """The step runs with other settings, and would have to be cancelled first.

    diff   between what runs and what was asked for, line by line
    """

    def __init__(self, diff: list[str]) -> None:
        super().__init__("other settings")
        self.diff = diff


class NotOwned(Exception):  # noqa: N818 (an answer, not an error)
    """What has a step's name is not this project's: it is neither followed nor removed."""

    def __init__(self, workload: Object) -> None:
        name = f"{workload['kind']} {workload['metadata']['name']}"
        super().__init__(
            f"{name} is not cartwheel's: its label {_NAME} is {_label(workload)}, not {_OURS}; "
            "take another --namespace, or remove it with kubectl"
        )


class Found(Enum):
    """What was there of a step: nothing, the same, still going on or done; or one that gave way."""

    NOTHING = "submitted"
    RUNNING = "runs already, as asked"
    DONE = "was done before, as asked; cancel it to do it again"
    ENDED = "submitted again"


@dataclass(frozen=True)
class Submission:
    """What was there, and in what it differed: lines of a diff."""

    found: Found
    diff: list[str]


def submit(step: Step, placement: Placement, kubectl: Kubectl) -> Submission:
    """Applies a step, unless it runs or is done with the same settings.

    Raises:
      SettingsConflict: it runs with other settings.
      NotOwned: something else has its name.
      KubectlError: kubectl refuses.
    """
    objects = kubectl.parse(render(step, placement, kubectl))
    workload = find(step.name, kubectl)
    if workload is None:
        kubectl.apply(objects)
        return Submission(Found.NOTHING, [])
    diff = _diff(workload, objects, kubectl)
    phase = read_state(workload, pods_of(workload, kubectl)).phase
    if phase not in (Phase.DONE, Phase.FAILED):
        if diff:
            raise SettingsConflict(diff)
        return Submission(Found.RUNNING, [])
    if phase is Phase.DONE and not diff:
        return Submission(Found.DONE, [])
    # a Job cannot be changed, nor started again
    remove(workload, kubectl)
    kubectl.apply(objects)
    return Submission(Found.ENDED, diff)


def find(step: str, kubectl: Kubectl) -> Object | None:
    """The Job or JobSet of a step, None if there is neither.

    Raises:
      NotOwned: what has its name is not this project's.
      KubectlError: kubectl refuses.
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
        # who may not see JobSets has made none; where one is asked for, applying it is refused
        if not (error.is_unknown_kind or error.is_forbidden):
            raise
        return None


def pods_of(workload: Object, kubectl: Kubectl) -> list[Object]:
    """The pods that a workload has made."""
    return kubectl.find_all("pods", selector(workload["kind"], workload["metadata"]["name"]))


def remove(workload: Object, kubectl: Kubectl) -> None:
    """Deletes a workload, its pods and its settings; a run that trains saves before it ends."""
    kubectl.delete(workload["kind"].lower(), workload["metadata"]["name"])
    for value in _settings(workload, kubectl):
        kubectl.delete("configmap", value["metadata"]["name"])


def _diff(existing: Object, objects: Sequence[Object], kubectl: Kubectl) -> list[str]:
    """In what a workload and its settings, as they were applied, differ from those asked for; [] if in nothing."""
    applied = json.loads(existing["metadata"].get("annotations", {}).get(_APPLIED, "{}"))
    # of either kind: a Job where a JobSet is asked for is one more difference
    (wanted,) = [value for value in objects if value["kind"] in _WORKLOADS]
    before = _lines(existing["kind"], applied, _settings(existing, kubectl))
    after = _lines(wanted["kind"], wanted, [value for value in objects if value["kind"] == "ConfigMap"])
    return list(difflib.unified_diff(before, after, "on the cluster", "asked for", lineterm="", n=2))


def _lines(kind: str, workload: Object, settings: Sequence[Object]) -> list[str]:
    """What matters of a workload and its ConfigMap, line by line: a name with a digest says nothing more."""
    arguments = [
        f"{command}: {argument}"
        for value in settings
        for command, text in value["data"].items()
        for argument in text.splitlines()
    ]
    text = json.dumps(workload.get("spec", {}), indent=1, sort_keys=True)
    for value in settings:
        text = text.replace(value["metadata"]["name"], "run")
    return [*arguments, f"kind: {kind}", *text.splitlines()]


def _settings(workload: Object, kubectl: Kubectl) -> list[Object]:
    """This project's ConfigMaps that a workload's pods mount: what a cluster adds by itself is not ours to remove."""
    spec = workload["spec"]
    if "replicatedJobs" in spec:
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    volumes = spec["template"]["spec"].get("volumes", [])
    names = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
    found = [kubectl.get("configmap", name) for name in names]
    return [value for value in found if value is not None and _label(value) == _OURS]


def _label(value: Object) -> str | None:
    """Whose an object says that it is."""
    label: str | None = value["metadata"].get("labels", {}).get(_NAME)
    return label
