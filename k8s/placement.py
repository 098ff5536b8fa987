"""Chooses the machines of the steps from the flags of submit.py; refuses flags that contradict each other."""

import argparse
import posixpath
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from k8s.rendering import GPU, OVERLAYS, Placement

SEVERAL = ("multi-node", "jobset")
"""Overlays that train on several machines."""
_CLOUDS = {"gs": "gke", "s3": "eks", "": "local", "file": "local"}
"""Overlays by the scheme of the URI of the results."""
_PATH_FLAGS = ("events", "item_properties", "category_tree", "output", "data", "workdir")
"""Flags with paths or URIs."""
_MANAGED_RESOURCES = ("cpu", "memory", "ephemeral-storage", GPU)
"""Resources that other flags or the manifests set."""
_MANAGED_VARIABLE = re.compile(
    "TF_CONFIG|JOB_COMPLETION_INDEX|CARTWHEEL_(?!CACHE_BYTES$|STORAGE_PATIENCE_SECONDS$).*", re.DOTALL
)
"""Variables that describe the cluster to its workers; the two exceptions are limits that users may change."""
_SECRET = "cartwheel-credentials"
_CREDENTIAL = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


def choose_placement(given: argparse.Namespace) -> Placement:
    """Returns where the steps of a command run and which resources they get. `given`: see `flags.build_parser`.

    Raises:
      ValueError: flags contradict each other, a path would be lost with its pod, or a variable may be a credential.
    """
    overlays = _overlays(given)
    _check_paths(given, overlays)
    several = [name for name in overlays if name in SEVERAL]
    if several and given.nodes == 1:
        raise ValueError(
            f"--overlay {several[0]} is for several machines, got --nodes 1; give --nodes 2 or more, or drop --overlay "
            f"{several[0]}"
        )
    gpus = (0 if "local" in overlays else 1) if given.gpus is None else given.gpus
    _check_gpus(gpus, given.gpu_resource)
    _check_resources(given)
    _check_variables(given)
    return Placement(
        overlays=overlays,
        gpus=gpus,
        nodes=(2 if several else 1) if given.nodes is None else given.nodes,
        memory=given.memory,
        cpu=given.cpu,
        registry=given.registry,
        tag=given.tag,
        queue=given.queue,
        gpu_resource=given.gpu_resource or GPU,
        resources=dict(given.resource),
        node_labels=dict(given.node_label),
        topology=given.topology,
        environment=dict(given.env),
    )


def _overlays(given: argparse.Namespace) -> tuple[str, ...]:
    """Returns the overlays. If none is for a cloud, adds the one that fits the URI scheme of the output."""
    scheme = urlsplit(given.output if given.command == "prepare" else given.workdir).scheme
    if not given.overlay and scheme not in _CLOUDS:
        raise ValueError(f"{scheme}:// does not identify a cloud; give an --overlay: {', '.join(OVERLAYS)}")
    cloud = _CLOUDS.get(scheme)
    names_cloud = not set(given.overlay).isdisjoint(_CLOUDS.values())
    overlays = tuple(given.overlay) if names_cloud or cloud is None else (cloud, *given.overlay)
    return (*overlays, "kueue") if given.queue and "kueue" not in overlays else overlays


def _check_paths(given: argparse.Namespace, overlays: Sequence[str]) -> None:
    """Refuses a path whose files would be lost with the pod."""
    for name in _PATH_FLAGS:
        value = getattr(given, name, None)
        if value and not _is_kept(value, overlays):
            flag = name.replace("_", "-")
            raise ValueError(
                f"--{flag} {value} is inside the pod and would be lost with it; give the URI of a bucket, or a path "
                "below /data, the volume of --overlay local"
            )


def _is_kept(path: str, overlays: Sequence[str]) -> bool:
    """Returns True if `path` outlives the pod, that is, if it is a URI or on the volume of the overlay `local`."""
    parts = urlsplit(path)
    if parts.scheme not in ("", "file"):
        return True
    return "local" in overlays and not parts.netloc and posixpath.normpath(parts.path).startswith("/data/")


def _check_gpus(gpus: int, resource: str | None) -> None:
    """Refuses a number of GPUs that does not fit their resource."""
    if resource and not gpus:
        raise ValueError(f"--gpu-resource {resource} needs --gpus, which is 0 with --overlay local by default")
    if "/mig-" in (resource or "") and gpus > 1:
        raise ValueError(f"a process uses one MIG instance, got --gpus {gpus} of {resource}; give --gpus 1")


def _check_resources(given: argparse.Namespace) -> None:
    """Refuses a resource that would replace one of submit.py."""
    for name, _ in given.resource:
        if name in (*_MANAGED_RESOURCES, given.gpu_resource):
            raise ValueError(
                f"--resource is for network devices and the like, got {name}; give cores, memory and GPUs with --cpu, "
                "--memory, --gpus and --gpu-resource"
            )


def _check_variables(given: argparse.Namespace) -> None:
    """Refuses a variable that would replace one of submit.py, or that may contain a credential."""
    for name, _ in given.env:
        if _MANAGED_VARIABLE.fullmatch(name):
            raise ValueError(
                f"--env {name} would replace what submit.py or Kubernetes sets; remove it, and give the number of "
                "machines with --nodes"
            )
        if _CREDENTIAL.search(name):
            raise ValueError(f"--env {name} would store a credential in the manifest; put it in the Secret {_SECRET}")
