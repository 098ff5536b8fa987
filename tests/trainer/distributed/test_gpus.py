"""Tests the choice of GPUs with fake ones: TensorFlow's functions are replaced."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from common.settings import apply_settings
from trainer import doctor
from trainer.config.presets import PRESETS
from trainer.distributed import gpus
from trainer.distributed.replicas import start_replicas


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the environment variable that hides the real GPUs in tests."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


class Machine:
    """A machine with `count` GPUs."""

    def __init__(self, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.all = [tf.config.PhysicalDevice(f"/physical_device:GPU:{number}", "GPU") for number in range(count)]
        self.visible = self.all
        self.is_started = False
        list_devices = tf.config.list_physical_devices
        monkeypatch.setattr(
            tf.config, "list_physical_devices", lambda kind=None: self.all if kind == "GPU" else list_devices(kind)
        )
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda _: self.visible)
        monkeypatch.setattr(tf.config, "set_visible_devices", self.show)

    def show(self, devices: Sequence[Any], kind: str) -> None:
        if self.is_started:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        self.visible = list(devices)


def test_a_process_hides_the_gpus_that_it_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(4, monkeypatch)
    assert start_replicas(1, None).devices == ("GPU:0",)  # as `evaluate` and `recommend` do
    assert machine.visible == machine.all[:1]
    machine.is_started = True
    assert gpus.choose_gpus(1, is_required=False) == ("GPU:0",)
    with pytest.raises(ValueError, match="2 GPUs cannot be used, because TensorFlow already runs with 1"):
        gpus.choose_gpus(2, is_required=False)


def test_all_gpus_are_used_unless_a_number_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(2, monkeypatch)
    assert gpus.choose_gpus(None, is_required=False) == ("GPU:0", "GPU:1")
    with pytest.raises(ValueError, match="devices=3, but TensorFlow sees 2 GPUs"):
        gpus.choose_gpus(3, is_required=False)


def test_required_gpus_that_are_not_visible_are_refused_with_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "glob", lambda _: [])
    with pytest.raises(
        ValueError, match=r"gpus=4, but TensorFlow sees 0 GPUs: no NVIDIA device; .*, or set gpus=none to train"
    ):
        start_replicas(None, None, gpus=4)
    assert start_replicas(None, None).devices == ("CPU:0",)


def test_fewer_gpus_than_required_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(2, monkeypatch)
    monkeypatch.setattr(gpus, "glob", lambda _: ["/dev/nvidia0", "/dev/nvidia1"])
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    monkeypatch.setattr(gpus, "_diagnose_driver", lambda: None)
    with pytest.raises(ValueError, match="gpus=4, but TensorFlow sees 2 GPUs: 2 NVIDIA devices; request more GPUs"):
        start_replicas(None, None, gpus=4)


def test_a_driver_outside_the_loaders_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "glob", lambda _: ["/dev/nvidia0"])
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    monkeypatch.setattr(gpus, "_DRIVER", "libcuda-of-this-test.so.1")
    monkeypatch.setattr(gpus, "_DRIVER_FOLDERS", (str(tmp_path),))
    assert gpus.diagnose_gpus().found == "the driver's libcuda-of-this-test.so.1 is missing"
    (tmp_path / "libcuda-of-this-test.so.1").touch()
    finding = doctor.check_gpus()
    assert finding.advice == f"add {tmp_path} to LD_LIBRARY_PATH"
    assert finding.state == doctor.State.WARNING


@pytest.mark.parametrize(
    ("line", "version", "is_old"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15", True),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build", "570.86.15", False),
    ],
)
def test_the_version_of_the_driver_is_reported(
    line: str, version: str, is_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "version"
    path.write_text(f"{line}\nGCC version:  gcc version 12.2.0\n")
    monkeypatch.setattr(gpus, "_DRIVER_VERSION", path)
    assert (gpus.driver_version(), gpus.is_old_driver(version)) == (version, is_old)
    Machine(1, monkeypatch)
    finding = doctor.check_gpus()
    assert f"driver {version}" in finding.found
    assert (finding.state == doctor.State.WARNING) == is_old


def test_gpus_and_devices_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="devices must be none if gpus is set"):
        apply_settings(PRESETS["mf"], ["gpus=2", "devices=2"])
