"""Overlays and the URI of the results determine where steps run; submit.py refuses invalid placements."""

import pytest

from tests.k8s.scenarios import TRAIN, Cluster


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "epoch=3"], "did you mean `epochs`"),
        (["--set", "input.batch_size=100", "--gpus", "8"], "100 is not divisible by 8 replicas; use 96 or 104"),
        (["--nodes", "0"], "not a whole number of at least 1"),
        *(
            (
                ["--overlay", name, "--nodes", "1"],
                f"--overlay {name} is for several machines, got --nodes 1; give --nodes 2",
            )
            for name in ("multi-node", "jobset")
        ),
        (["--overlay", "moon"], "invalid choice: 'moon'"),
        (["--queue", "My Queue"], "--queue: 'My Queue' is not valid; give a value such as research"),
    ],
)
def test_wrong_flags_are_refused_before_any_call(flags: list[str], message: str, cluster: Cluster) -> None:
    status, _, errors = cluster.submit(*TRAIN, *flags)
    assert (status, message in errors, cluster.calls("")) == (2, True, [])


@pytest.mark.parametrize(
    ("workdir", "overlays", "is_there", "is_not"),
    [
        ("gs://shop/run", ["spot"], ["iam.gke.io", "gke-accelerator", "gke-spot"], ["/data"]),
        ("s3://shop/run", ["kueue"], ["eks.amazonaws.com/role-arn", "queue-name"], ["iam.gke.io"]),
        ("/data/run", ["spot"], ["mountPath: /data", "gke-spot"], ["nvidia.com/gpu: "]),
        ("s3://shop/run", ["spot", "gke"], ["iam.gke.io"], ["eks.amazonaws.com/role-arn"]),
        ("hdfs://shop/run", ["spot"], ["gke-spot"], ["iam.gke.io", "role-arn", "/data"]),
    ],
)
def test_other_overlays_are_added_to_the_cloud_of_the_results(
    workdir: str, overlays: list[str], is_there: list[str], is_not: list[str], cluster: Cluster
) -> None:
    flags = [flag for name in overlays for flag in ("--overlay", name)]
    status, manifests, errors = cluster.submit(*TRAIN[:3], "--data", workdir, "--workdir", workdir, *flags, "--dry-run")
    assert status == 0, errors
    assert {text: text in manifests for text in is_there + is_not} == (
        dict.fromkeys(is_there, True) | dict.fromkeys(is_not, False)
    )


@pytest.mark.parametrize(
    ("data", "workdir", "overlays", "lost"),
    [
        ("/data/dataset", "file:///data/run", [], None),
        ("gs://shop/dataset", "/data/run", [], None),
        ("/data/dataset", "run", [], "--workdir run"),
        ("/data/dataset", "/data/../run", [], "--workdir /data/../run"),
        ("/data/dataset", "/database/run", [], "--workdir /database/run"),
        ("/data/dataset", "gs://shop/run", [], "--data /data/dataset"),
        ("/data/dataset", "/data/run", ["--overlay", "gke"], "--data /data/dataset"),
    ],
)
def test_a_path_on_no_volume_is_refused(
    data: str, workdir: str, overlays: list[str], lost: str | None, cluster: Cluster
) -> None:
    status, _, errors = cluster.submit(*TRAIN[:3], "--data", data, "--workdir", workdir, *overlays, "--dry-run")
    assert status == (2 if lost else 0), errors
    assert not lost or f"{lost} is inside the pod and would be lost with it; give the URI of a bucket" in errors


def test_a_scheme_of_no_known_cloud_asks_for_an_overlay(cluster: Cluster) -> None:
    status, _, errors = cluster.submit(*TRAIN[:-1], "hdfs://shop/run")
    assert (status, "hdfs:// does not identify a cloud; give an --overlay" in errors) == (2, True)
