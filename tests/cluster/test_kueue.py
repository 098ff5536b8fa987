"""Tests submit.py with Kueue: admission, a full queue, a missing queue, and a quota that is too small."""

import pytest

from tests.cluster.namespaces import FAST, QUEUED, TRAIN, Namespace, last_line

pytestmark = pytest.mark.cluster


def test_a_queue_that_does_not_exist_ends_the_wait(namespace: Namespace) -> None:
    status, _, errors = namespace.submit(*TRAIN, *QUEUED, *FAST)
    assert (status, last_line(errors)) == (
        1,
        "train is blocked for 0.05 min and still waiting: queued in research: LocalQueue research doesn't exist; "
        "change --queue",
    ), errors


def test_a_quota_that_is_too_small_ends_the_wait(queue: Namespace) -> None:
    status, _, errors = queue.submit(*TRAIN, *QUEUED, *FAST, "--gpus", "8", "--nodes", "2")
    assert status == 1
    assert "queued in research: couldn't assign flavors" in last_line(errors), errors
    assert "maximum capacity" in last_line(errors)
    assert last_line(errors).endswith("change --gpus")


@pytest.mark.parametrize("overlays", [[], ["--overlay", "jobset"]], ids=["Job", "JobSet"])
def test_a_step_is_admitted_and_the_next_one_waits(overlays: list[str], queue: Namespace) -> None:
    process = queue.start(*TRAIN, *QUEUED, "--poll", "0.2", "--gpus", "4", "--nodes", "2", *overlays)
    queue.wait_for_pods(2)
    tune = [
        "tune",
        *TRAIN[1:5],
        "--workdir",
        "gs://shop/tune",
        "--storage",
        "postgresql://h/d",
        "--search",
        "model.dim=8,16",
    ]
    status, _, errors = queue.submit(*tune, *QUEUED, *FAST)
    assert status == 1
    assert "queued in research: couldn't assign flavors" in last_line(errors), errors
    assert "unused quota" in last_line(errors)
    assert "change --" not in last_line(errors)
    queue.end_pods(0, count=2)
    process.communicate(timeout=60)
    assert process.returncode == 0
