"""Chooses the GPUs of a process, and explains why TensorFlow sees fewer GPUs than the machine has or the run needs."""

import ctypes
import os
import re
from glob import glob
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

_DRIVER = "libcuda.so.1"
_DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib")
"""Folders where Google Kubernetes Engine, Linux distributions and WSL put the driver's library."""
_DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_MIN_DRIVER = 555
"""Minimum major version of the driver. For the newest GPUs, TensorFlow 2.21 has PTX of ISA 8.5 (CUDA 12.5), which older
drivers cannot compile."""


class Diagnosis(NamedTuple):
    """Why GPUs are missing."""

    found: str
    """The problem."""
    advice: str
    """What to do."""
    has_device: bool
    """Whether the machine has a GPU at all."""


def choose_gpus(count: int | None, *, is_required: bool) -> tuple[str, ...]:
    """Chooses the first `count` GPUs; hides the others, because TensorFlow would reserve their memory.

    Args:
      count: number of GPUs; None: all.
      is_required: whether it is an error if there is no GPU; False: the process then trains on the CPU.

    Returns:
      The names of the GPUs, such as `GPU:0`; empty if TensorFlow sees no GPUs.

    Raises:
      ValueError: there are fewer GPUs than requested, or TensorFlow has already started with fewer.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if is_required and len(gpus) < (count or 1):
        why = diagnose_gpus()
        fewer = f"gpus={len(gpus)}" if gpus else "gpus=none to train on the CPU"
        raise ValueError(
            f"gpus={count}, but TensorFlow sees {len(gpus)} GPUs: {why.found}; {why.advice}, or set {fewer}"
        )
    if not gpus:
        return ()
    count = count or len(gpus)
    if count > len(gpus):
        raise ValueError(
            f"devices={count}, but TensorFlow sees {len(gpus)} GPUs; set devices={len(gpus)}, or devices=none to use "
            "all GPUs"
        )
    if tf.config.get_visible_devices("GPU") != gpus[:count]:
        try:
            tf.config.set_visible_devices(gpus[:count], "GPU")
        except RuntimeError:  # an earlier run of this process started TensorFlow
            visible = len(tf.config.get_visible_devices("GPU"))
            if visible < count:
                raise ValueError(
                    f"{count} GPUs cannot be used, because TensorFlow already runs with {visible} GPUs in this "
                    "process; start a new process, or restart the notebook's kernel"
                ) from None
    return tuple(f"GPU:{number}" for number in range(count))


def diagnose_gpus() -> Diagnosis:
    """Explains why TensorFlow sees no GPUs, or too few."""
    devices = glob("/dev/nvidia[0-9]*")
    if not devices:
        advice = "if the host of a container has a GPU, use `docker run --gpus all`, or request it from Kubernetes"
        return Diagnosis("no NVIDIA device", advice, has_device=False)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return Diagnosis("CUDA_VISIBLE_DEVICES hides all GPUs", "unset it", has_device=True)
    if not tf.test.is_built_with_cuda():
        advice = "install tensorflow[and-cuda]"
        return Diagnosis("this TensorFlow is built without CUDA", advice, has_device=True)
    if problem := _diagnose_driver():
        return problem
    if tf.config.list_physical_devices("GPU"):
        found = f"{len(devices)} NVIDIA device{'' if len(devices) == 1 else 's'}"
        if visible is not None:
            return Diagnosis(f"{found}, CUDA_VISIBLE_DEVICES={visible}", "unset it", has_device=True)
        return Diagnosis(found, "request more GPUs for this machine", has_device=True)
    advice = "`pip install '.[gpu]'` in the clone installs the CUDA libraries; `nvidia-smi` tests the driver"
    return Diagnosis("TensorFlow cannot open the NVIDIA device", advice, has_device=True)


def driver_version() -> str | None:
    """Returns the version of the NVIDIA driver, such as 555.42.02; None if `/proc` does not contain it."""
    text = _DRIVER_VERSION.read_text() if _DRIVER_VERSION.exists() else ""
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    return found[1] if found else None


def is_old_driver(version: str) -> bool:
    """Whether a driver is too old for the newest GPUs; see `_MIN_DRIVER`."""
    return int(version.partition(".")[0]) < _MIN_DRIVER


def _diagnose_driver() -> Diagnosis | None:
    """Returns what is wrong with the NVIDIA driver (missing, not found by the loader, or too old), or None."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        folders = [folder for folder in _DRIVER_FOLDERS if os.path.exists(os.path.join(folder, _DRIVER))]
        if folders:
            found = f"the driver's {_DRIVER} is in {folders[0]}, which the dynamic loader does not search"
            return Diagnosis(found, f"add {folders[0]} to LD_LIBRARY_PATH", has_device=True)
        advice = (
            "start the container with NVIDIA's container toolkit and NVIDIA_DRIVER_CAPABILITIES=compute,utility, or "
            "install the driver"
        )
        return Diagnosis(f"the driver's {_DRIVER} is missing", advice, has_device=True)
    version = driver_version()
    if version is not None and is_old_driver(version) and not tf.config.list_physical_devices("GPU"):
        return Diagnosis(f"the driver {version} is older than {_MIN_DRIVER}", "update the driver", has_device=True)
    return None
