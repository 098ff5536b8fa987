"""GPUs, as far as a device plugin without devices goes: placement, limits, environment, and the refusal to train."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.namespaces import FAST, last_line
from tests.e2e.node import NAME, Node
from tests.e2e.shops import SECONDS, Shop, training

pytestmark = pytest.mark.e2e

TRAIN = ["train", *training("/data", "gpus")]


@pytest.fixture(scope="module", autouse=True)
def plugin(node: Node) -> Iterator[None]:
    """The node advertises two GPUs; the image for GPUs is that for CPUs under another name."""
    node.ctr("images", "tag", "--force", "localhost/cartwheel/trainer:test", "localhost/cartwheel/trainer-gpu:test")
    node.machine.launch("gpu_plugin", sys.executable, str(Path(__file__).with_name("gpu_plugin.py")))
    path = "jsonpath={.status.allocatable.nvidia\\.com/gpu}"
    node.plane.wait("GPUs", lambda: node.plane.kubectl("get", "node", NAME, "-o", path) == "2", seconds=60)
    yield
    node.machine.stop("gpu_plugin")


def test_a_pod_with_a_gpu_gets_its_environment(shop: Shop) -> None:
    output = shop.run_pod("gpu", "sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES", gpus=1)
    assert output.strip() in ("gpu-0", "gpu-1")


def test_a_run_without_a_visible_gpu_refuses_to_train(shop: Shop) -> None:
    process = shop.start(*TRAIN, "--gpus", "1")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "gpus=1, but TensorFlow sees 0 GPUs" in last_line(errors), errors
    job = json.loads(shop.namespace.kubectl("get", "job", "train", "-o", "json"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_more_gpus_than_the_node_has_are_named(shop: Shop) -> None:
    process = shop.start(*TRAIN, "--gpus", "4", *FAST)
    _, errors = process.communicate(timeout=SECONDS)
    assert shop.namespace.submit("cancel", "train", "--poll", "0.5")[0] == 0
    assert process.returncode == 1
    assert (
        "Unschedulable: no node has 4 or more free GPUs (0/1 nodes are available: 1 Insufficient nvidia.com/gpu)"
        in errors
    )
