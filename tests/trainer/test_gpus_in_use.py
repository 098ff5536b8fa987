"""Which GPUs commands and tests use, other than training."""

import importlib
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tensorflow as tf

from tests.conftest import NUM_LOGICAL_CPUS


class Started(Exception):  # noqa: N818
    """Ends a command when it starts its replicas; has the numbers of devices and GPUs."""


@pytest.mark.parametrize("command", ["evaluate", "recommend", "export"])
def test_commands_that_do_not_train_use_one_gpu(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"trainer.{command}")

    def start(devices: int | None, cluster: Any, gpus: int | None = None) -> NoReturn:
        raise Started(devices, gpus)

    monkeypatch.setattr(module, "start_replicas", start)
    output = {} if command == "evaluate" else {"output": str(tmp_path / "output")}
    with pytest.raises(Started) as started:
        getattr(module, command)(workdir=str(tmp_path), **output)
    assert started.value.args == (1, None)


def test_tests_see_no_gpu_and_split_the_cpu() -> None:
    """So tests with several devices also run on a machine with one GPU."""
    assert len(tf.config.list_logical_devices("CPU")) == NUM_LOGICAL_CPUS
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "-1"
