"""submit.py refuses arguments that would change the meaning of others in the pod, or that Kubernetes would refuse."""

import pytest

from k8s.cli import main

TRAIN = ["train", "--preset", "mf", "--data", "gs://shop/dataset", "--workdir", "gs://shop/run", "--dry-run"]
PREPARE = ["prepare", "--events", "gs://shop/e.csv", "--output", "gs://shop/dataset", "--dry-run"]

EVALUATE = ["evaluate-export", "--workdir", "gs://shop/run", "--output", "gs://shop/model", "--dry-run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TRAIN, "--workdir", "gs://b/\n--set=epochs=99"], "contains a line break; give each argument on one line"),
        ([*TRAIN, "--data", "gs://b/d\u2028--set=epochs=99"], "contains a line break"),
        ([*TRAIN, "--data", "gs://b/d\n"], "contains a line break"),
        ([*PREPARE, "--", "--output=gs://b/o\r--x"], "contains a line break"),
        ([*PREPARE, "--", "@/etc/passwd"], "@/etc/passwd starts with @, so the pod would read arguments from a file"),
        ([*TRAIN, "--memory", "64"], "--memory: '64' is not valid; give a value such as 64Gi or 512Mi"),
        ([*TRAIN, "--memory", "64m"], "'64m' is not valid"),
        ([*TRAIN, "--cpu", "four"], "--cpu: 'four' is not valid; give a value such as 4 or 1500m"),
        ([*TRAIN, "--cpu", "0.0"], "'0.0' is not valid"),
        ([*TRAIN, "--gpus", "1e3"], "--gpus: '1e3' is not a whole number of at least 0"),
        ([*TRAIN, "--nodes", "0"], "--nodes: '0' is not a whole number of at least 1"),
        ([*TRAIN, "--tag", "v1 beta"], "--tag: 'v1 beta' is not valid"),
        ([*TRAIN, "--registry", "https://registry"], "--registry: 'https://registry' is not valid"),
        (
            [*TRAIN, "--resource", "cpu=4"],
            "--resource is for network devices and the like, got cpu; give cores, memory",
        ),
        ([*TRAIN, "--resource", "ephemeral-storage=9Gi"], "got ephemeral-storage"),
        ([*TRAIN, "--resource", "nvidia.com/gpu=2"], "GPUs with --cpu, --memory, --gpus and --gpu-resource"),
        ([*TRAIN, "--gpu-resource", "amd.com/gpu", "--resource", "amd.com/gpu=2"], "got amd.com/gpu"),
        (
            [*TRAIN, "--env", "CARTWHEEL_WORKERS=8"],
            "--env CARTWHEEL_WORKERS would replace what submit.py or Kubernetes",
        ),
        ([*TRAIN, "--env", "TF_CONFIG={}"], "give the number of machines with --nodes"),
        ([*TRAIN, "--env", "JOB_COMPLETION_INDEX=0"], "--env JOB_COMPLETION_INDEX"),
        ([*TRAIN, "--env", "NCCL_ALGO=Ring\rTree"], "is not valid; give a value such as NCCL_SOCKET_IFNAME=eth0"),
        ([*PREPARE, "--env", "NCCL_ALGO=Ring"], "unrecognized arguments: --env"),
        ([*EVALUATE, "--resource", "example.com/nic=1"], "unrecognized arguments: --resource example.com/nic=1"),
        ([*TRAIN, "--vocabulary", "10M"], "--vocabulary: '10M' is not VISITORS,ITEMS; give two numbers of at least 1"),
        ([*PREPARE, "--vocabulary", "1.5,2"], "'1.5,2' is not VISITORS,ITEMS"),
        ([*TRAIN, "--vocabulary", "10M,0"], "'10M,0' is not VISITORS,ITEMS"),
        ([*TRAIN, "--vocabulary", "-1,2"], "--vocabulary: expected one argument"),
        (
            [*TRAIN, "--vocabulary", "10M,1M", "--env", "CARTWHEEL_CACHE_BYTES=4G"],
            "--env CARTWHEEL_CACHE_BYTES must be a whole number of bytes, got '4G'",
        ),
        ([*TRAIN, "--poll", "nan"], "--poll: 'nan' is not a finite number of at least 0"),
        ([*TRAIN, "--patience", "soon"], "--patience: 'soon' is not a finite number of at least 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value[-1]),
)
def test_an_invalid_argument_is_a_usage_error_that_names_it(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert (stop.value.code, message in capsys.readouterr().err) == (2, True)


def test_limits_of_cartwheel_are_variables_like_any_other(capsys):
    assert main([*TRAIN, "--env", "CARTWHEEL_CACHE_BYTES=1000"]) == 0
    assert "CARTWHEEL_CACHE_BYTES" in capsys.readouterr().out
