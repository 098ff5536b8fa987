"""submit.py refuses arguments that would change the meaning of others in the pod, or that Kubernetes would refuse."""

import pytest

from k8s.cli import main

TRAIN = ["train", "--preset", "mf", "--data", "gs://shop/dataset", "--workdir", "gs://shop/run", "--dry-run"]
PREPARE = ["prepare", "--events", "gs://shop/e.csv", "--output", "gs://shop/dataset", "--dry-run"]


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
        ([*TRAIN, "--poll", "nan"], "--poll: 'nan' is not a finite number of at least 0"),
        ([*TRAIN, "--patience", "soon"], "--patience: 'soon' is not a finite number of at least 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else repr(value[-1]),
)
def test_an_invalid_argument_is_a_usage_error_that_names_it(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert (stop.value.code, message in capsys.readouterr().err) == (2, True)
