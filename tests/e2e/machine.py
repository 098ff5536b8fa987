"""A machine within this machine, in which a real node runs: with its own processes, mounts and network.

It ends with the process that starts it, even if that is killed: the kernel kills all processes of a PID namespace with
the first one, then removes their mounts and their network. Nothing outside changes but two control groups.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.cluster.control_plane import end_with_parent

HOST, NODE = "10.98.0.1", "10.98.0.2"
"""Addresses of this machine and of the machine within."""
GATEWAY, PODS = "10.98.1.1", "10.98.1.0/24"
"""Address of the machine within in the network of its pods, and that network."""
_LINK = "cartwheel0"
_START_SECONDS, _END_SECONDS = 60, 30
_CGROUPS = Path("/sys/fs/cgroup")
_SYSCTLS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
"""Settings of the kernel that a kubelet would write. It finds files with these values instead, and writes none."""
# dash waits for all its children, also for those that it adopts
_INIT = f"""
for folder in /run /var/lib /var/log; do mount -t tmpfs tmpfs $folder; done
{"".join(f"echo {value} > /run/{path.replace('/', '-')}; " for path, value in _SYSCTLS.items())}
{"".join(f"mount --bind /run/{path.replace('/', '-')} /proc/sys/{path}; " for path in _SYSCTLS)}
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link add pods type bridge
ip address add {GATEWAY}/24 dev pods
ip link set pods up
touch "$0"
sleep infinity & wait
"""


@dataclass
class Machine:
    """A running machine."""

    folder: Path
    """Directory of its logs."""
    init: int
    """Id of its first process."""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """The programs in it, by name."""

    def command(self, *arguments: str) -> list[str]:
        """Returns the command line that runs a command in the machine."""
        return ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", "--ipc", "--", *arguments]

    def run(self, *arguments: str) -> str:
        """Runs a command in the machine, and returns its output."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False, timeout=1800)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def launch(self, name: str, *arguments: str) -> None:
        """Starts a program in the machine; its log is NAME.log."""
        with open(self.folder / f"{name}.log", "ab") as log:
            self.processes[name] = _start(self.command(*arguments), log)

    def stop(self, name: str, by: signal.Signals = signal.SIGTERM) -> None:
        """Ends a program by a signal."""
        process = self.processes.pop(name)
        os.kill(_only_child(process.pid), by)
        process.wait(timeout=_END_SECONDS)


@contextmanager
def running_machine(folder: Path) -> Iterator[Machine]:
    """Starts a machine that is connected with this one; ends it with all its processes.

    Skips the test if the machine runs a kubelet of its own.
    """
    remove_control_groups()
    ready = folder / "ready"
    flags = ["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
    command = ["unshare", *flags, "sh", "-ec", _INIT, str(ready)]
    with open(folder / "machine.log", "wb") as log:
        first = _start(command, log)
    try:
        end = time.monotonic() + _START_SECONDS
        while not ready.exists():
            if first.poll() is not None or time.monotonic() > end:
                pytest.fail(f"the machine did not start: {(folder / 'machine.log').read_text()}")
            time.sleep(0.05)
        machine = Machine(folder, _only_child(first.pid))
        _connect(machine)
        yield machine
    finally:
        first.kill()
        first.wait()
        subprocess.run(["ip", "link", "delete", _LINK], check=False, capture_output=True)
        remove_control_groups()


def remove_control_groups() -> None:
    """Removes the control groups of a kubelet that has ended; skips the test if they contain processes after 10 s."""
    end = time.monotonic() + 10
    while groups := [path for path in (*_CGROUPS.glob("kubepods"), *_CGROUPS.glob("*/kubepods")) if path.exists()]:
        for root in groups:
            for folder, _, _ in os.walk(root, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    continue  # its processes have not ended yet
        if time.monotonic() > end:
            pytest.skip(f"a kubelet runs on this machine: {groups[0]} contains processes")
        time.sleep(0.1)


def _connect(machine: Machine) -> None:
    """Connects both machines by a pair of network devices, and routes the pods' network."""
    _ip("link", "add", _LINK, "type", "veth", "peer", "name", "eth0", "netns", str(machine.init))
    machine.run("ip", "address", "add", f"{NODE}/30", "dev", "eth0")
    machine.run("ip", "link", "set", "eth0", "up")
    _ip("address", "add", f"{HOST}/30", "dev", _LINK)
    _ip("link", "set", _LINK, "up")
    _ip("route", "add", PODS, "via", NODE)


def _start(command: list[str], log: BinaryIO) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        preexec_fn=end_with_parent,  # noqa: PLW1509 (no other thread runs yet)
    )


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
