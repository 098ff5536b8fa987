"""An API server with all webhooks accepts every overlay, every rendering of submit.py, and their pods."""

import itertools
from typing import Any

import pytest

from k8s.kubectl import Kubectl
from k8s.rendering import Placement, Step, render
from tests.cluster.namespaces import Namespace
from tests.k8s.rendering import FOLDERS, job_spec, objects_of
from tests.k8s.rendering import render as render_folder

STEPS = {
    "prepare": Step(name="prepare", arguments={"prepare": ["--events=e", "--output=d"]}),
    "train": Step(name="train", arguments={"train": ["--preset=mf", "--data=d"]}),
    "tune": Step(name="tune", arguments={"tune": ["--preset=mf", "--trials=9"]}, trials=9, parallel=3),
    "evaluate-export": Step(name="evaluate-export", arguments={"evaluate": ["--workdir=r"], "export": ["--workdir=r"]}),
}


def placements() -> list[Placement]:
    """Returns placements with all numbers of GPUs and machines on each cloud; on GKE, also with the other overlays.

    The last placements have other devices and labels.
    """
    found = []
    for gpus, nodes in itertools.product([0, 1, 8], [1, 2, 8]):
        last = ["spot", "jobset", "kueue"] if nodes > 1 else ["spot", "kueue"]
        for overlays in (["eks"], ["local"], ["gke"], ["gke", "spot"], ["gke", "kueue"], ["gke", *last]):
            queue = "research" if "kueue" in overlays else None
            found.append(Placement(overlays=tuple(overlays), gpus=gpus, nodes=nodes, queue=queue))
    devices = {"vpc.amazonaws.com/efa": "4", "hugepages-2Mi": "5120Mi"}
    chosen: dict[str, Any] = {"resources": devices, "node_labels": {"pool": "fast"}, "topology": "example.com/rack"}
    chosen |= {"gpu_resource": "nvidia.com/mig-3g.20gb", "environment": {"NCCL_SOCKET_IFNAME": "eth0"}}
    return [*found, *(Placement(overlays=("eks",), gpus=1, nodes=nodes, **chosen) for nodes in (1, 2))]


def pods_of(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Builds the pods that the workloads in `objects` create."""
    pods = []
    for value in objects:
        if value["kind"] in ("Job", "JobSet", "Deployment"):
            template = job_spec(value)["template"]
            metadata = template.get("metadata", {}) | {"name": f"pod-{len(pods)}"}
            spec = {
                key: part
                for key, part in template["spec"].items()
                if value["kind"] != "Deployment" or key != "restartPolicy"
            }
            pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return pods


def check(objects: list[dict[str, Any]], namespace: Namespace) -> None:
    """Lets the server check all objects and their pods strictly, without creating them.

    Pods are checked separately, because `restricted` refuses only pods.
    """
    accounts = [value for value in objects if value["kind"] == "ServiceAccount"]
    namespace.kubectl("apply", "-f", "-", objects=accounts)  # without which no pod is accepted
    flags = ["--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-"]
    namespace.kubectl("create", *flags, objects=[value for value in objects if value not in accounts])
    namespace.kubectl("create", *flags, objects=pods_of(objects))


@pytest.mark.cluster
def test_every_folder_is_accepted(namespace: Namespace) -> None:
    folders = [name for name in FOLDERS if name != "namespace"]  # which is applied to every namespace here
    for name in folders:
        check(objects_of(render_folder(name)), namespace)


@pytest.mark.cluster
def test_every_rendering_of_training_is_accepted(namespace: Namespace) -> None:
    check([value for placement in placements() for value in rendered("train", placement)], namespace)


@pytest.mark.cluster
def test_every_rendering_of_the_other_steps_is_accepted(namespace: Namespace) -> None:
    places = [place for place in placements() if place.gpus < 2 and place.nodes == 1]
    steps = ("prepare", "tune", "evaluate-export")
    check([value for step in steps for place in places for value in rendered(step, place)], namespace)


def rendered(step: str, placement: Placement) -> list[dict[str, Any]]:
    return objects_of(render(STEPS[step], placement, Kubectl()))
