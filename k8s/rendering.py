"""Renders the manifests of a step: a kustomization of `k8s/base` and `k8s/components`."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from k8s.kubectl import Kubectl
from k8s.sizing import shared_memory

HERE = Path(__file__).resolve().parent
_BASE_STEPS = ("prepare", "train", "evaluate-export")
STEPS = ("prepare", "train", "tune", "evaluate-export")
_TRAINING = ("train", "tune")
"""The steps that train models. `components/tune` turns the Job `train` of the base into the Job `tune`."""
OVERLAYS = tuple(sorted(folder.name for folder in (HERE / "overlays").iterdir() if folder.is_dir()))
_WORKERS = ("spot", "multi-node", "jobset")
"""Overlays that are applied only to the steps that train models."""
_LAST = ("jobset", "kueue")
"""Overlays that are applied last. `jobset` copies the patched Job into a JobSet, and `kueue` labels the JobSet or the
Job."""

_MEMORY_GIB, _CPUS = 8, 2
"""Least memory and default cores per machine without GPUs, or per GPU."""
TMP_GIB = 50
"""Limit of `/tmp` in `base/every-job.yaml`."""

GPU = "nvidia.com/gpu"
"""Resource of whole GPUs. Instances of a GPU (MIG) have other names, such as `nvidia.com/mig-3g.20gb`."""
_CUDA_CACHE = "/data/.cuda-cache"
"""Directory for the GPU kernels that the driver compiles at the first start. The compilation takes minutes. The
directory is on the volume, so that later pods find the kernels; files in /tmp are lost when the pod ends."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step, such as `train`: one Job or JobSet on the cluster."""

    name: str
    """prepare, train, tune or evaluate-export."""
    arguments: Mapping[str, Sequence[str]]
    """Arguments by command, such as those after `python -m trainer export` for `export`."""
    trials: int = 1
    """Number of trials of a search, each in its own pod; used by `tune`."""
    parallel: int = 1
    """Number of trials that run at the same time, used by `tune`."""
    memory_gib: int = 0
    """GiB of memory that each machine needs; below the default, the default applies."""
    tmp_gib: int = 0
    """GiB that `/tmp` needs; below the limit of the base, that limit applies."""

    def __post_init__(self) -> None:
        for argument in (argument for arguments in self.arguments.values() for argument in arguments):
            # the pod reads its arguments from a file, one per line, and would open a file named after `@`
            if argument.splitlines() not in ([], [argument]):
                raise ValueError(f"{argument!r} contains a line break; give each argument on one line")
            if argument.startswith("@"):
                raise ValueError(
                    f"{argument} starts with @, so the pod would read arguments from a file of that name; give the "
                    "arguments themselves"
                )


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a step runs and which resources it gets."""

    overlays: tuple[str, ...]
    """Overlays to apply."""
    gpus: int
    """GPUs per training machine; 0: train on CPUs."""
    nodes: int
    """Machines that train together."""
    memory: str | None = None
    """Memory per machine, such as 64Gi; None: derived from the step and the number of GPUs."""
    cpu: str | None = None
    """Cores per machine; None: derived from the number of GPUs."""
    registry: str | None = None
    """Registry of the images, such as europe-docker.pkg.dev/project/cartwheel; None: images on the machines."""
    tag: str = "latest"
    """Tag of the images."""
    queue: str | None = None
    """LocalQueue of Kueue, used with the overlay kueue; None: the queue `cartwheel`."""
    gpu_resource: str = GPU
    """Name of the cluster's resource that `gpus` counts."""
    resources: Mapping[str, str] = field(default_factory=dict)
    """Other resources of a training machine by name, such as network devices."""
    node_labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the nodes of training must have, such as the type of GPU."""
    topology: str | None = None
    """Label whose value should be the same on the nodes of all workers; None: the zone."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of training, such as those of NCCL."""


def render(step: Step, placement: Placement, kubectl: Kubectl) -> str:
    """Renders the Kubernetes manifests of a step as YAML.

    Raises:
      KubectlError: kubectl is missing, or the overlays conflict.
    """
    with tempfile.TemporaryDirectory(prefix="cartwheel-") as folder:
        # kustomize does not follow absolute paths
        root = os.path.relpath(HERE, os.path.realpath(folder))
        _write(folder, "kustomization.yaml", _kustomization(step, placement, root))
        own = os.path.join(folder, "step")
        _write(own, "kustomization.yaml", _own_component(step, placement))
        for command, arguments in step.arguments.items():
            _write(own, command, "".join(f"{argument}\n" for argument in arguments))
        return kubectl.kustomize(folder)


def _kustomization(step: Step, placement: Placement, root: str) -> dict[str, Any]:
    before, after = _components(step.name, placement)
    components = [*(f"{root}/components/{name}" for name in before), "step"]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{root}/base"],
        "components": [*components, *(f"{root}/components/{name}" for name in after)],
        "patches": [
            {"patch": json.dumps(_job(name) | {"$patch": "delete"}, allow_nan=False)}
            for name in _unused_jobs(step.name)
        ]
        + _queue_patches(placement),
        "images": [_image(name, placement) for name in ("preprocessing", "trainer", "trainer-gpu")],
    }


def _queue_patches(placement: Placement) -> list[dict[str, Any]]:
    if placement.queue is None:
        return []
    label = {"op": "replace", "path": "/metadata/labels/kueue.x-k8s.io~1queue-name", "value": placement.queue}
    return [{"target": {"kind": "Job|JobSet"}, "patch": json.dumps([label], allow_nan=False)}]


def _unused_jobs(step: str) -> list[str]:
    """Returns the names of the Jobs in `k8s/base` that the step does not use."""
    return [name for name in _BASE_STEPS if name != ("train" if step == "tune" else step)]


def _components(step: str, placement: Placement) -> tuple[list[str], list[str]]:
    """Returns two lists of folders in `k8s/components`, to apply before and after `_own_component`."""
    is_training = step in _TRAINING
    chosen = [name for name in placement.overlays if is_training or name not in _WORKERS]
    if is_training and placement.gpus:
        chosen.append("gke-gpu" if "gke" in chosen else "gpu")
    if is_training and placement.nodes > 1 and "multi-node" not in chosen:
        chosen.append("multi-node")
    first = [name for name in chosen if name not in _LAST]
    # overlays of the workers come after those of the cloud
    before = sorted(first, key=_WORKERS.__contains__) + (["tune"] if step == "tune" else [])
    return before, [name for name in _LAST if name in chosen]


def _own_component(step: Step, placement: Placement) -> dict[str, Any]:
    """Builds the kustomize component that sets the step's arguments, resources and number of pods."""
    gpus = placement.gpus if step.name in _TRAINING else 0
    resources = _resources(gpus, step, placement)
    main: dict[str, Any] = {"name": "main", "resources": resources}
    pod: dict[str, Any] = {"containers": [main], "volumes": _limited_volumes(step, gpus)}
    spec: dict[str, Any] = {"template": {"spec": pod}}
    if step.name == "evaluate-export":
        pod["initContainers"] = [{"name": "evaluate", "resources": resources}]
    if step.name in _TRAINING:
        main |= _environment(step, placement)
        pod |= _node_choice(step, placement)
    if step.name == "train" and placement.nodes > 1:
        spec |= {"completions": placement.nodes, "parallelism": placement.nodes}
    if step.name == "tune":
        spec |= {"completions": step.trials, "parallelism": step.parallel}
    patch = _job(step.name) | {"spec": spec}
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        # replaces the example arguments of base and components
        "configMapGenerator": [
            {"name": "run", "behavior": "replace", "files": [f"{name}={name}" for name in step.arguments]}
        ],
        "patches": [{"patch": json.dumps(patch, allow_nan=False)}],
    }


def _limited_volumes(step: Step, gpus: int) -> list[dict[str, Any]]:
    """Returns the limits of the volumes whose sizes differ from those of the base."""
    sizes = {"shared-memory": shared_memory(gpus)} | ({"tmp": step.tmp_gib} if step.tmp_gib > TMP_GIB else {})
    return [{"name": name, "emptyDir": {"sizeLimit": f"{gib}Gi"}} for name, gib in sizes.items()]


def _resources(gpus: int, step: Step, placement: Placement) -> dict[str, Any]:
    """Returns the resources of a step's containers."""
    units = max(1, gpus)
    memory = placement.memory or f"{max(_MEMORY_GIB * units, step.memory_gib)}Gi"
    cpu = placement.cpu or str(_CPUS * units)
    limits: dict[str, Any] = {"memory": memory}
    if gpus:
        # null removes the GPU of the component
        limits |= ({GPU: None} if placement.gpu_resource != GPU else {}) | {placement.gpu_resource: gpus}
    if step.name in _TRAINING:
        limits |= placement.resources
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": limits}


def _environment(step: Step, placement: Placement) -> dict[str, Any]:
    """Returns the field with the environment variables of a step that trains; the user's replace others."""
    environment: dict[str, str] = {}
    if placement.gpus and "local" in placement.overlays:
        environment["CUDA_CACHE_PATH"] = _CUDA_CACHE
    if step.name == "train" and placement.nodes > 1:
        environment["CARTWHEEL_WORKERS"] = str(placement.nodes)
    environment |= placement.environment
    return {"env": [{"name": name, "value": value} for name, value in environment.items()]} if environment else {}


def _node_choice(step: Step, placement: Placement) -> dict[str, Any]:
    """Returns the fields of a pod that choose its node."""
    chosen: dict[str, Any] = {"nodeSelector": dict(placement.node_labels)} if placement.node_labels else {}
    if placement.topology and step.name == "train" and placement.nodes > 1:
        near = {
            "topologyKey": placement.topology,
            "labelSelector": {"matchLabels": {"app.kubernetes.io/component": step.name}},
        }
        preferred = [{"weight": 100, "podAffinityTerm": near}]
        chosen["affinity"] = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    return chosen


def _job(name: str) -> dict[str, Any]:
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}


def _image(name: str, placement: Placement) -> dict[str, str]:
    image = f"{placement.registry.rstrip('/')}/{name}" if placement.registry else f"cartwheel/{name}"
    return {"name": f"cartwheel/{name}", "newName": image, "newTag": placement.tag}


def _write(folder: str, name: str, content: str | dict[str, Any]) -> None:
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        # JSON is valid YAML and needs no package
        file.write(content if isinstance(content, str) else json.dumps(content, indent=2, allow_nan=False))
