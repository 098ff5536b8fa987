"""Identifies processes, so that another process can check whether they still run.

A process id alone does not suffice, because the system reuses ids, in particular after a reboot.
"""

import contextlib
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path

from common.once import once

_BOOT_ID, _NAMESPACE = "/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"
_STATE, _START_TIME = 0, 19
"""Indices of fields in /proc/PID/stat, counted after the command name, which may contain spaces (proc_pid_stat(5))."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """Identity of a process. `boot`, `namespace` and `start` are empty on systems without /proc, such as macOS."""

    host: str
    """Name of the machine or container."""
    pod: str
    """Name of the Kubernetes pod, from POD_NAME or HOSTNAME; empty without these variables."""
    id: int
    """Process id in its namespace."""
    boot: str
    """Id of the current boot of the system. It differs between machines and changes at a reboot."""
    namespace: str
    """PID namespace. Containers on the same machine usually have different ones."""
    start: str
    """Start time, in clock ticks since boot. A later process that reuses the id has a later start time."""
    instance: str
    """Random id that the process chose. A restart of a container changes it, but not the host and the process id."""

    def __post_init__(self) -> None:
        if not isinstance(self.id, int) or self.id <= 0:
            raise ValueError(f"the id of a process must be a positive integer, got {self.id!r}")

    def __str__(self) -> str:
        pod = f", pod {self.pod}" if self.pod and self.pod != self.host else ""
        return f"process {self.id} on host {self.host}{pod}"


def current_process() -> Process:
    """Returns the identity of this process."""
    process = os.getpid()
    namespace, start = "", ""
    with contextlib.suppress(OSError):  # there is no /proc, or a sandbox hides parts of it
        # `unshare --pid` alone keeps the /proc of the outer namespace, where the id is another process's
        if os.readlink("/proc/self") == str(process):
            namespace, start = os.readlink(_NAMESPACE), _read_stat(process)[_START_TIME]
    return Process(
        host=socket.gethostname(),
        pod=os.environ.get("POD_NAME") or os.environ.get("HOSTNAME", ""),
        id=process,
        boot=boot_id(),
        namespace=namespace,
        start=start,
        instance=_choose_instance(process, start),
    )


@once
def _choose_instance(process: int, start: str) -> str:  # noqa: ARG001 (a forked child must choose its own)
    return uuid.uuid4().hex


def boot_id() -> str:
    """Returns the id of the current boot, or an empty string if the system has no such id."""
    try:
        return Path(_BOOT_ID).read_text().strip()
    except OSError:
        return ""


def is_running(process: Process) -> bool | None:
    """Returns whether a process still runs; None if unknown, as for a process in another container."""
    here = current_process()
    if process.instance == here.instance:
        return True
    # the host, too: copies of a virtual machine have one boot id
    if not here.namespace or (here.host, here.boot, here.namespace) != (process.host, process.boot, process.namespace):
        return None
    try:
        stat = _read_stat(process.id)
    except OSError:
        return _exists(process.id)
    # a killed process stays as a zombie until its parent has read its status
    return stat[_START_TIME] == process.start and stat[_STATE] not in ("Z", "X")


def _exists(process: int) -> bool | None:
    """Returns False if no process has this id; otherwise None (unknown), because the id may be that of a newer one."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return None
    return None


def _read_stat(process: int) -> list[str]:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
