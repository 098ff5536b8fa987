"""GPUs, MIG instances, network devices, NCCL's variables and the choice of nodes, in manifests and messages."""

from typing import Any

import pytest

from k8s.waiting import find_state
from tests.k8s import checks
from tests.k8s.rendering import OVERLAYS, SERVING, Object, find, objects_of, pod_spec, render, yaml
from tests.k8s.scenarios import TRAIN, Cluster, pod
from tests.k8s.test_submitted_manifests import EVALUATE, TUNE, place, rendered
from tests.k8s.test_submitted_manifests import TRAIN as TRAIN_STEP
from tests.k8s.test_waiting import Answers, workload

MIG = "nvidia.com/mig-3g.20gb"
ZONE = "topology.kubernetes.io/zone"


def train_pod(objects: list[Object], kind: str = "Job") -> Object:
    return pod_spec(find(objects, kind, "train"))


def variables(spec: Object) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in spec["containers"][0].get("env", [])}


def near(spec: Object) -> list[tuple[str, dict[str, str]]]:
    """Returns the topology key and the labels of each term of a pod's affinity to other pods."""
    terms = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    return [
        (term["podAffinityTerm"]["topologyKey"], term["podAffinityTerm"]["labelSelector"]["matchLabels"])
        for term in terms
    ]


@pytest.mark.parametrize("overlays", [("gke",), ("eks", "spot"), ("jobset",)], ids="+".join)
def test_instances_of_a_gpu_replace_whole_gpus(overlays: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    placement = place(*overlays, nodes=2 if "jobset" in overlays else 1, gpu_resource=MIG)
    objects = rendered(TRAIN_STEP, placement, monkeypatch)
    assert [problem for check in checks.CHECKS for problem in check(objects)] == []
    (main,) = train_pod(objects, "JobSet" if "jobset" in overlays else "Job")["containers"]
    assert main["resources"]["limits"] == {"memory": "8Gi", MIG: 1}
    assert main["image"] == "cartwheel/trainer-gpu:latest"


def test_flags_for_devices_and_nodes_reach_the_workers(cluster: Cluster) -> None:
    flags = {
        "--resource": ["vpc.amazonaws.com/efa=4", "hugepages-2Mi=5120Mi"],
        "--node-label": ["cloud.google.com/gke-accelerator=nvidia-h100-80gb", "pool=fast"],
        "--topology": ["topology.k8s.aws/network-node-layer-3"],
        "--env": [
            "NCCL_SOCKET_IFNAME=eth0",
            "CUDA_CACHE_PATH=/data/cache",
            "NCCL_DEBUG=INFO",
            "XLA_FLAGS=--a=1 --b='2'",
        ],
    }
    given = [word for flag, values in flags.items() for value in values for word in (flag, value)]
    status, manifests, errors = cluster.submit(
        *TRAIN, "--overlay", "gke", "--gpus", "8", "--nodes", "2", *given, "--dry-run"
    )
    assert status == 0, errors
    spec = train_pod(list(yaml.safe_load_all(manifests)))
    (main,) = spec["containers"]
    assert main["resources"]["limits"] == {
        "memory": "64Gi",
        "nvidia.com/gpu": 8,
        "vpc.amazonaws.com/efa": "4",
        "hugepages-2Mi": "5120Mi",
    }
    assert spec["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "pool": "fast"}
    assert near(spec) == [("topology.k8s.aws/network-node-layer-3", {"app.kubernetes.io/component": "train"})]
    assert "podAntiAffinity" in spec["affinity"]
    found = variables(spec)
    assert (found["NCCL_SOCKET_IFNAME"], found["CUDA_CACHE_PATH"]) == ("eth0", "/data/cache")
    assert (found["NCCL_DEBUG"], found["CARTWHEEL_WORKERS"]) == ("INFO", "2")
    assert found["XLA_FLAGS"] == "--a=1 --b='2'"


def test_only_steps_that_train_get_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: dict[str, Any] = {
        "gpu_resource": MIG,
        "resources": {"vpc.amazonaws.com/efa": "1"},
        "node_labels": {"pool": "fast"},
        "environment": {"NCCL_ALGO": "Ring"},
        "topology": ZONE,
    }
    trial = pod_spec(find(rendered(TUNE, place("gke", **chosen), monkeypatch), "Job", "tune"))
    assert trial["containers"][0]["resources"]["limits"] == {"memory": "8Gi", MIG: 1, "vpc.amazonaws.com/efa": "1"}
    assert (trial["nodeSelector"]["pool"], variables(trial)["NCCL_ALGO"]) == ("fast", "Ring")
    assert "affinity" not in trial  # trials do not communicate
    other = pod_spec(find(rendered(EVALUATE, place("gke", **chosen), monkeypatch), "Job", "evaluate-export"))
    assert other["containers"][0]["resources"]["limits"] == {"memory": "8Gi"}
    assert other.keys().isdisjoint({"nodeSelector", "affinity"})


@pytest.mark.parametrize(("overlay", "kind"), [("multi-node", "Job"), ("jobset", "JobSet")])
def test_workers_prefer_machines_of_one_zone(overlay: str, kind: str) -> None:
    objects = objects_of(render(f"overlays/{overlay}"))
    labels = find(objects, kind, "train")["metadata"]["labels"]
    component = "app.kubernetes.io/component"
    assert near(train_pod(objects, kind)) == [(ZONE, {component: labels[component]})]


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "local"])
def test_nccl_logs_why_a_message_failed(overlay: str) -> None:
    spec = train_pod(objects_of(render(f"overlays/{overlay}")), "JobSet" if overlay == "jobset" else "Job")
    found = variables(spec)
    assert (found["NCCL_DEBUG"], found["NCCL_DEBUG_FILE"]) == ("WARN", "/dev/stderr")


@pytest.mark.parametrize("folder", SERVING)
def test_a_model_server_takes_memory_as_needed_and_ranks_in_full_float32(folder: str) -> None:
    found = variables(pod_spec(find(objects_of(render(folder)), "Deployment", "cartwheel-serving")))
    assert (found["TF_FORCE_GPU_ALLOW_GROWTH"], found["NVIDIA_TF32_OVERRIDE"]) == ("true", "0")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--gpu-resource", MIG, "--gpus", "2"],
            f"a process uses one MIG instance, got --gpus 2 of {MIG}; give --gpus",
        ),
        (["--gpu-resource", MIG, "--gpus", "0"], f"--gpu-resource {MIG} needs --gpus"),
        (["--gpu-resource", "gpu"], "--gpu-resource: 'gpu' is not valid; give a value such as nvidia.com/mig-3g.20gb"),
        (
            ["--resource", "vpc.amazonaws.com/efa"],
            "--resource: 'vpc.amazonaws.com/efa' is not valid; give a value such",
        ),
        (["--node-label", "pool=a b"], "--node-label: 'pool=a b' is not valid"),
        (["--env", "AWS_SECRET_ACCESS_KEY=x"], "--env AWS_SECRET_ACCESS_KEY would store a credential in the manifest"),
    ],
)
def test_devices_that_cannot_work_are_refused(flags: list[str], message: str, cluster: Cluster) -> None:
    status, _, errors = cluster.submit(*TRAIN, *flags, "--dry-run")
    assert (status, message in errors) == (2, True), errors


@pytest.mark.parametrize(
    ("limits", "lacking"),
    [
        ({MIG: "1"}, f"no node has 1 or more free {MIG}"),
        ({"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "32"}, "no node has 32 or more free vpc.amazonaws.com/efa"),
    ],
)
def test_other_devices_that_nodes_lack_are_named(limits: dict[str, str], lacking: str) -> None:
    message = f"0/3 nodes are available: 3 Insufficient {list(limits)[-1]}"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    waiting = pod("train-a", "Pending", conditions=[condition])
    waiting["spec"]["containers"][0]["resources"]["limits"] = limits
    assert find_state(workload(), [waiting], Answers()).text == f"Unschedulable: {lacking} ({message})"
