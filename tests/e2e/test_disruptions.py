"""Training in pods that are deleted, drained, killed for memory or cut off from their kubelet: no bit of it changes."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.namespaces import last_line
from tests.e2e.node import NAME, Node
from tests.e2e.shops import SECONDS, Shop, differing, training

pytestmark = pytest.mark.e2e

RESUMED = "ended: exit 75: preempted, or another worker was lost; the run will resume from its last checkpoint"


def wait_for_epoch(epoch: int, process: "subprocess.Popen[str]") -> str:
    """Reads the output of submit.py until it shows that an epoch is done; returns what it read."""
    seen = []
    for line in process.stderr or ():
        seen.append(line)
        if re.search(rf"epoch {epoch}: ", line):
            return "".join(seen)
    raise AssertionError("".join(seen))


def finish(process: "subprocess.Popen[str]") -> str:
    """Waits for a successful end of submit.py; returns its messages."""
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def undisturbed(shop: Shop) -> Path:
    """The checkpoints of two workers that nothing disturbs."""
    messages = finish(shop.start("train", *training("/data", "two"), "--nodes", "2"))
    assert "StartAbort" not in messages  # no worker is taken for a crashed one at the end
    return shop.data / "two" / "checkpoints"


def test_a_deleted_worker_changes_no_bit(shop: Shop, undisturbed: Path) -> None:
    process = shop.start("train", *training("/data", "deleted"), "--nodes", "2")
    wait_for_epoch(2, process)
    shop.namespace.kubectl("delete", "pod", "--selector=batch.kubernetes.io/job-completion-index=1", "--force")
    assert RESUMED in finish(process)
    assert differing(undisturbed, shop.data / "deleted" / "checkpoints") == set()


def test_a_drained_run_resumes_and_changes_no_bit(shop: Shop, node: Node) -> None:
    process = shop.start("train", *training("/data", "drained"))
    wait_for_epoch(2, process)
    try:
        node.plane.kubectl("drain", NAME, "--force", "--delete-emptydir-data", "--timeout=120s")
    finally:
        node.plane.kubectl("uncordon", NAME)
    assert re.search(r"train: pod \S+ ended: (exit 75|deleted)", finish(process))
    assert differing(shop.data / "run" / "checkpoints", shop.data / "drained" / "checkpoints") == set()


def test_a_restarted_kubelet_disturbs_no_run(shop: Shop, node: Node) -> None:
    process = shop.start("train", *training("/data", "kubelet"))
    wait_for_epoch(1, process)
    node.machine.stop("kubelet")
    node.start_kubelet()
    finish(process)
    assert differing(shop.data / "run" / "checkpoints", shop.data / "kubelet" / "checkpoints") == set()


def test_a_run_out_of_memory_names_its_limit(shop: Shop) -> None:
    process = shop.start("train", *training("/data", "memory"), "--memory", "150Mi")
    for line in process.stderr or ():
        if "OOMKilled" in line:
            break
    assert shop.namespace.submit("cancel", "train", "--poll", "0.5")[0] == 0
    assert line.endswith("ended: OOMKilled: it needed more than its memory limit of 150Mi; raise --memory\n")
    _, errors = process.communicate(timeout=SECONDS)
    assert last_line(errors) == "train no longer exists: it was cancelled"
