"""Runs the multi-node Job without a cluster: two processes on two hosts, with the variables of its pods.

A host is a network namespace of this machine, and a file of host names replaces the headless Service.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.processes import SMALL, assert_same, finish
from tests.k8s.rendering import find, objects_of, pod_spec, render
from tests.trainer.dataset_builder import build_dataset, checkerboard

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ADDRESSES = ("10.99.0.1", "10.99.0.2")


@pytest.fixture
def hosts() -> Iterator[tuple[str, ...]]:
    """Two network namespaces connected by a veth pair."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("separate hosts need root and the Debian package iproute2")
    names = tuple(f"cartwheel-{os.getpid()}-{index}" for index in range(2))
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine cannot create network namespaces: {done.stderr.strip()}")


def pod_environment(index: int) -> dict[str, str]:
    """Returns the variables that the manifest and Kubernetes set in the pod of an index."""
    (main,) = pod_spec(find(objects_of(render("overlays/multi-node")), "Job", "train"))["containers"]
    of_labels = {"metadata.labels['batch.kubernetes.io/job-name']": "train"}
    variables = {
        variable["name"]: variable.get("value") or of_labels[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        for variable in main["env"]
    }
    return variables | {"JOB_COMPLETION_INDEX": str(index)}


def test_the_pods_of_the_multi_node_job_train_together(hosts: tuple[str, ...], tmp_path: Path) -> None:
    dataset = str(tmp_path / "dataset")
    build_dataset(dataset, **checkerboard(), num_shards=3, block_rows=20)
    names = tmp_path / "hosts"
    lines = [f"{address} train-{index}.train" for index, address in enumerate(ADDRESSES)]
    names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    command = [sys.executable, "-m", "trainer", "train", "--preset", "mf", "--data", dataset, "--workdir"]
    settings = ["--set", *SMALL, "epochs=2"]
    # a mount namespace for each, so that its host names can be replaced
    on_host = ["sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(names)]
    workers = [
        subprocess.Popen(
            ["ip", "netns", "exec", host, *on_host, *command, str(tmp_path / "pods"), *settings],
            env=os.environ | pod_environment(index),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, host in enumerate(hosts)
    ]
    finish(workers)
    alone = [*command, str(tmp_path / "alone"), *settings, "devices=2"]
    finish([subprocess.Popen(alone, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)])
    assert_same(tmp_path / "alone", tmp_path / "pods")
