"""Runs the checks of GPUs one by one, each in its own process with a time limit, and reports PASS or FAIL per line."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, Literal

from common import storage
from trainer.doctor.findings import Finding, State, is_healthy
from trainer.doctor.machine import check_gpus
from trainer.doctor.plan import CPU_LIMIT_FACTOR, DEVICES, PLAN, Check

log = logging.getLogger(__name__)

_LABELS = {State.OK: "PASS", State.FAILED: "FAIL", State.SKIPPED: "SKIP"}
_REHEARSAL = "`cartwheel doctor --gpu --devices cpu` rehearses the checks on logical CPUs"
_HANG = (
    "look at `nvidia-smi` and the kernel's log (`dmesg`) for Xid errors; for a hang with several GPUs only, try "
    "NCCL_DEBUG=INFO and NCCL_P2P_DISABLE=1"
)
_SHOP = {"gpu": {"visitors": 20_000, "items": 5_000}, "cpu": {"visitors": 1_000, "items": 500}}
"""Sizes of the dataset."""
_CLUSTER = ("TF_CONFIG", "CARTWHEEL_WORKERS")
"""Variables of a cluster; the checks use one machine."""
_LOG_LINES = 3


def examine_gpus(devices: Literal["gpu", "cpu"] = "gpu") -> dict[str, Any]:
    """Checks training on all GPUs of this machine, in less than ten minutes; logs each finding.

    Args:
      devices: `gpu`; or `cpu`, a rehearsal on two logical CPUs, which skips what only a GPU can show.

    Returns:
      `is_healthy` (no check failed), `findings` (the fields of each `Finding`), and `seconds`.
    """
    start_time = time.monotonic()
    findings = [_log_line(_check_devices(devices))]
    if is_healthy(findings):
        with storage.scratch_folder("doctor") as folder:
            data = _write_shop(folder, devices)
            for check in PLAN:
                findings += map(_log_line, _run(check, devices, data, folder))
    return {
        "is_healthy": is_healthy(findings),
        "findings": [asdict(finding) for finding in findings],
        "seconds": round(time.monotonic() - start_time, 1),
    }


def _log_line(finding: Finding) -> Finding:
    level = logging.ERROR if finding.state == State.FAILED else logging.INFO
    advice = finding.advice and f"; {finding.advice}"
    log.log(level, "%s  %s: %s%s", _LABELS[finding.state], finding.check, finding.found, advice)
    return finding


def _check_devices(devices: str) -> Finding:
    """Checks that TensorFlow sees a GPU, without starting it: this process must not reserve the GPU's memory."""
    if devices == "cpu":
        return Finding(DEVICES, "a rehearsal on two logical CPUs, which checks no GPU", State.SKIPPED)
    import tensorflow as tf

    from trainer.distributed.gpus import diagnose_gpus

    if not tf.config.list_physical_devices("GPU"):
        why = diagnose_gpus()
        return Finding(DEVICES, f"no GPU: {why.found}", State.FAILED, f"{why.advice}; {_REHEARSAL}")
    found = check_gpus()
    return Finding(DEVICES, found.found, State.OK, found.advice)


def _write_shop(folder: str, devices: str) -> str:
    from trainer.doctor.shop import write_shop

    data = os.path.join(folder, "dataset")
    write_shop(data, **_SHOP[devices])
    return data


def _run(check: Check, devices: str, data: str, folder: str) -> Iterator[Finding]:
    """Runs a check in its own process; yields its findings as soon as they are known, and one for each missing line."""
    limit = check.seconds * (CPU_LIMIT_FACTOR if devices == "cpu" else 1)
    path = os.path.join(folder, f"{check.name}.log")
    missing = [check.line(preset) for preset in check.presets]
    process = _start([sys.executable, "-m", "trainer.doctor", check.name, devices, data, folder], devices, path)
    with _limited(process, limit) as is_late:
        for line in process.stdout or ():
            fields = json.loads(line)
            missing.remove(fields["check"])
            yield Finding(**{**fields, "state": State(fields["state"])})
    log.debug("log of the check %s:\n%s", check.name, _read(path))
    if missing:
        found = f"did not end within {limit} s" if is_late.is_set() else _describe(process.returncode, path)
        yield Finding(missing[0], found, State.FAILED, f"{_HANG}; --verbose shows the log")
        yield from (Finding(name, f"not checked, because {missing[0]} failed", State.SKIPPED) for name in missing[1:])


def _start(command: Sequence[str], devices: str, path: str) -> subprocess.Popen[bytes]:
    """Starts the process of a check in a new process group, with its standard error in the file `path`."""
    with open(path, "wb") as errors:
        return subprocess.Popen(
            command, env=_environment(devices), stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )


@contextmanager
def _limited(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Waits for a process after the context, and kills it and the runs that it started after `seconds`.

    Yields an event that is set if the process exceeded its time.
    """
    is_late = threading.Event()

    def end_late() -> None:
        is_late.set()
        _kill_group(process)

    timer = threading.Timer(seconds, end_late)
    timer.start()
    try:
        yield is_late
        # does not free the process's number, which is that of its group, too
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        timer.cancel()
        _kill_group(process)
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment(devices: str) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if name not in _CLUSTER}
    if devices == "cpu":
        return variables | {"CUDA_VISIBLE_DEVICES": "-1"}
    # memory as needed, so that nvidia-smi shows the need; and its numbers of the GPUs
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | variables | {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def _describe(status: int, path: str) -> str:
    """Describes the end of a process that did not report all its findings, with the last lines of its log."""
    ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    lines = [line.strip() for line in _read(path).splitlines() if line.strip()]
    return f"the process {ended}: {' '.join(lines[-_LOG_LINES:]) or 'it logged nothing'}"


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
