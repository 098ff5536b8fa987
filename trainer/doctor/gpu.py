"""Runs the GPU checks in sequence, each in its own process with a time limit; logs PASS, FAIL or SKIP per finding."""

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
from typing import Any

from common import storage
from trainer.doctor.findings import Finding, State, is_healthy
from trainer.doctor.plan import CPU_LIMIT_FACTOR, DEVICES, PLAN, TOTAL_SECONDS, Check, Kind

log = logging.getLogger(__name__)

_LABELS = {State.OK: "PASS", State.FAILED: "FAIL", State.SKIPPED: "SKIP"}
_AGAIN = (
    "run the check again: at the first start on a new GPU, the driver compiles kernels for minutes, and caches them"
)
_HANG = (
    "look for Xid errors in the system log (`dmesg`); if only checks with several GPUs hang, try NCCL_DEBUG=INFO and "
    "NCCL_P2P_DISABLE=1"
)
_REMOVED = ("TF_CONFIG", "CARTWHEEL_WORKERS", "NCCL_DEBUG_FILE")
"""Environment variables that the checks do not get: those of a cluster, because the checks use one machine, and the
path of NCCL's log, because NCCL would truncate the check's log if the path is /dev/stderr."""
_LOG_LINES = 3
"""Number of last log lines of a failed process in its finding."""


def examine_gpus(devices: str = "gpu") -> dict[str, Any]:
    """Checks training on all GPUs of this machine, in at most ten minutes; logs each finding.

    Args:
      devices: value of `Kind`: `gpu`; or `cpu`, a rehearsal on two logical CPUs, which skips what only a GPU can show.

    Returns:
      `is_healthy` (no check failed), `findings` (the fields of each `Finding`), and `seconds`.
    """
    start_time = time.monotonic()
    findings = list(map(_log_line, _run_all(Kind(devices))))
    return {
        "is_healthy": is_healthy(findings),
        "findings": [asdict(finding) for finding in findings],
        "seconds": round(time.monotonic() - start_time, 1),
    }


def _run_all(kind: Kind) -> Iterator[Finding]:
    """Runs all checks, or only the first one if there is no GPU that they can use."""
    if kind == Kind.GPU and (count := _count_started_gpus()):
        found = f"TensorFlow already runs with {count} GPUs in this process, and has reserved their memory"
        yield Finding(DEVICES.name, found, State.FAILED, "start a new process, or restart the notebook's kernel")
        return
    factor = CPU_LIMIT_FACTOR if kind == Kind.CPU else 1
    end = time.monotonic() + TOTAL_SECONDS * factor
    with storage.scratch_folder("doctor") as folder:
        for check in PLAN:
            for finding in _run(check, kind, folder, min(check.seconds * factor, end - time.monotonic())):
                yield finding
                if check == DEVICES and finding.state == State.FAILED:
                    return


def _count_started_gpus() -> int:
    """Returns the number of GPUs with which TensorFlow has started in this process; does not start it."""
    if "tensorflow" not in sys.modules:
        return 0
    from tensorflow.python.eager import context

    started = context.context_safe()
    return len(started.list_logical_devices("GPU")) if started is not None and started._initialized else 0


def _log_line(finding: Finding) -> Finding:
    level = logging.ERROR if finding.state == State.FAILED else logging.INFO
    advice = finding.advice and f"; {finding.advice}"
    log.log(level, "%s  %s: %s%s", _LABELS[finding.state], finding.check, finding.found, advice)
    return finding


def _run(check: Check, kind: Kind, folder: str, seconds: float) -> Iterator[Finding]:
    """Runs a check in its own process, for at most `seconds`.

    Yields the findings of the process as it reports them, and then one for each line of the report without a finding.
    """
    path = os.path.join(folder, f"{check.name}.log")
    missing = [check.line(preset) for preset in check.presets]
    if seconds <= 0:
        yield from (
            Finding(name, "not checked, because the time limit was reached", State.FAILED, _AGAIN) for name in missing
        )
        return
    process = _start([sys.executable, "-m", "trainer.doctor", check.name, kind, folder], kind, path)
    with _limited(process, seconds) as is_late:
        for line in process.stdout or ():
            fields = json.loads(line)
            missing.remove(fields["check"])
            yield Finding(**{**fields, "state": State(fields["state"])})
    log.debug("log of the check %s:\n%s", check.name, _read(path))
    if missing:
        problem = f"did not end within {seconds:.0f} s" if is_late.is_set() else _describe(process.returncode, path)
        advice = f"{_AGAIN}; {_HANG}" if is_late.is_set() else "--verbose shows the whole log"
        yield Finding(missing[0], problem, State.FAILED, advice)
        yield from (Finding(name, f"not checked, because {missing[0]} failed", State.SKIPPED) for name in missing[1:])


def _start(command: Sequence[str], kind: Kind, path: str) -> subprocess.Popen[bytes]:
    """Starts the process of a check in a new process group, with its standard error in the file `path`."""
    with open(path, "wb") as errors:
        return subprocess.Popen(
            command, env=_environment(kind), stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )


@contextmanager
def _limited(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Waits for a process at the end of the context; after `seconds`, kills the process and the runs that it started.

    Yields an event that is set if the process exceeded its time limit.
    """
    is_late = threading.Event()

    def end_late() -> None:
        is_late.set()
        _kill_group(process)

    timer = threading.Timer(seconds, end_late)
    timer.start()
    try:
        yield is_late
        process.wait()
    finally:
        timer.cancel()
        _kill_group(process)
        process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and the runs that it started. The id of their group is not reused while one of them runs."""
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses if all of them have ended
        os.killpg(process.pid, signal.SIGKILL)


def _environment(kind: Kind) -> dict[str, str]:
    quiet = {} if log.isEnabledFor(logging.DEBUG) else {"TF_CPP_MIN_LOG_LEVEL": "2"}
    variables = quiet | {name: value for name, value in os.environ.items() if name not in _REMOVED}
    if kind == Kind.CPU:
        return variables | {"CUDA_VISIBLE_DEVICES": "-1"}
    # TensorFlow numbers GPUs as nvidia-smi does, and reserves memory only as needed, so that nvidia-smi shows the need
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} | variables | {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def _describe(status: int, path: str) -> str:
    """Describes the end of a process that did not report all its findings, with the last lines of its log."""
    ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    lines = [line.strip() for line in _read(path).splitlines() if line.strip()]
    return f"the process {ended}: {' '.join(lines[-_LOG_LINES:]) or 'it logged nothing'}"


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
