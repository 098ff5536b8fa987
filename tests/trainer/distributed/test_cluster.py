import json
import os

import pytest

from trainer.distributed.cluster import Cluster, join_cluster, read_cluster, tf_config

JOB = {
    "JOB_COMPLETION_INDEX": "1",
    "CARTWHEEL_WORKERS": "3",
    "CARTWHEEL_JOB": "train",
    "CARTWHEEL_SERVICE": "workers",
    "CARTWHEEL_PORT": "2222",
}


def test_a_process_without_cluster_variables_trains_alone() -> None:
    assert read_cluster({}) is None


def test_an_indexed_job_with_one_worker_trains_alone() -> None:
    assert read_cluster({"JOB_COMPLETION_INDEX": "0"}) is None
    assert read_cluster({**JOB, "CARTWHEEL_WORKERS": "1"}) is None


def test_an_indexed_job_lists_the_hosts_of_its_service() -> None:
    assert read_cluster(JOB) == Cluster(("train-0.workers:2222", "train-1.workers:2222", "train-2.workers:2222"), 1)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ValueError, match="_WORKERS is 3, but these variables are not set: CARTWHEEL_SERVICE; set"):
        read_cluster({**JOB, "CARTWHEEL_SERVICE": ""})


def test_an_index_beyond_the_workers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"worker index 3 is out of range for 3 workers \(0 to 2\)"):
        read_cluster({**JOB, "JOB_COMPLETION_INDEX": "3"})


def test_tf_config_survives_a_round_trip() -> None:
    cluster = Cluster(("a:1", "b:2"), 1)
    assert read_cluster({"TF_CONFIG": tf_config(cluster)}) == cluster


def test_tf_config_takes_precedence_over_the_job_variables() -> None:
    assert read_cluster({**JOB, "TF_CONFIG": tf_config(Cluster(("a:1", "b:2"), 0))}) == Cluster(("a:1", "b:2"), 0)


def test_a_tf_config_of_one_worker_trains_alone() -> None:
    assert read_cluster({"TF_CONFIG": tf_config(Cluster(("a:1",), 0))}) is None


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_damaged_tf_config_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="TF_CONFIG is not the JSON object"):
        read_cluster({"TF_CONFIG": text})


def test_a_tf_config_whose_task_is_no_worker_is_refused() -> None:
    config = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "ps", "index": 0}}
    with pytest.raises(ValueError, match="TF_CONFIG has the task type ps, but only workers can train"):
        read_cluster({"TF_CONFIG": json.dumps(config)})


def test_joining_a_cluster_sets_tf_config(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = dict(JOB)
    monkeypatch.setattr(os, "environ", environment)  # joining must not affect later tests
    cluster = join_cluster()
    assert cluster is not None
    assert cluster.index == 1
    assert read_cluster({"TF_CONFIG": tf_config(cluster)}) == cluster
    assert json.loads(environment["TF_CONFIG"])["task"] == {"type": "worker", "index": 1}
