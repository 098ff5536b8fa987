"""Runs and times commands; writes one JSON file per benchmark with figures, machine, commit and command."""

import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds, CPU seconds, peak memory in MiB, and standard output of a child process."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    stdout: str


def run_command(arguments: list[str]) -> Timing:
    """Runs and measures a command with its child processes.

    Raises:
      RuntimeError: the command failed.
    """
    begin = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    output: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda pipe: output.append(pipe.read()), args=(process.stdout,))
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} exited with {process.returncode}")
    return Timing(time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output[0])


QUIET_SHARE = 0.1
"""Share of the cores that other programs may use while a benchmark is recorded."""


class Load:
    """Measures the share of this machine's cores that other programs use. Works only on Linux."""

    def __init__(self) -> None:
        self._begin = time.perf_counter(), _busy_seconds(), _own_seconds()

    def share(self) -> float | None:
        """Returns the share of the cores, in [0, 1], that other programs have used since `Load()`; None if unknown.

        Child processes that still run count as other programs.
        """
        begin, busy_before, own_before = self._begin
        busy = _busy_seconds()
        if busy is None or busy_before is None:
            return None
        others = busy - busy_before - (_own_seconds() - own_before)
        return max(0.0, others / ((time.perf_counter() - begin) * (os.cpu_count() or 1)))


def refuse_load(share: float | None, *, is_allowed: bool) -> None:
    """Exits if other programs used more than `QUIET_SHARE` of the cores, unless `is_allowed`.

    `share`: the share that the other programs used; if it is None (unknown), the program does not exit.
    """
    if share is not None and share > QUIET_SHARE and not is_allowed:
        raise SystemExit(
            f"nothing was recorded: other programs used {share:.0%} of the cores, so the timings are not reliable "
            f"(limit: {QUIET_SHARE:.0%}). Run the benchmark on an idle machine, or pass --loaded to "
            "record the figures anyway"
        )


def _busy_seconds() -> float | None:
    """CPU seconds of all programs since the machine started; None without /proc/stat."""
    if not Path("/proc/stat").exists():
        return None
    user, nice, system, _, _, interrupts, soft_interrupts, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft_interrupts) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(function: Callable[[], Any]) -> float:
    """Calls a function and returns the elapsed seconds."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def report(
    name: str, figures: dict[str, Any], *, module: str | None = None, quiet: bool = False, load: float | None = None
) -> None:
    """Writes `figures`, the machine and the command to `results/NAME.json`; prints all of it unless `quiet`.

    `load`: share of the CPU time that other programs used during the measurement; None: unknown.
    """
    record = {
        "benchmark": name,
        "command": " ".join(["python -m", module or f"benchmarks.{name}", *map(_portable, sys.argv[1:])]),
        "commit": read_commit(),
        "machine": {"cpus": os.cpu_count(), "processor": _processor(), "python": platform.python_version()}
        | ({} if load is None else {"share_of_other_programs": round(load, 3)}),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
    if not quiet:
        print(json.dumps(record, indent=2))


def _portable(word: str) -> str:
    """Shortens an absolute path to its last part, because a record must not contain paths of this machine."""
    flag, equals, value = word.rpartition("=")
    return f"{flag}{equals}{Path(value).name}" if Path(value).is_absolute() else word


def format_reached(reached: float | None) -> str:
    """Formats a measured value; None becomes "never"."""
    return "never" if reached is None else f"{reached:.3f}"


def resident_mib() -> float:
    """Returns the current resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mib() -> float:
    """Returns the peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_commit() -> str:
    """Returns the current commit, with `-dirty` if a tracked file has changed.

    Ignores README.md and the results of benchmarks.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/results", ":!/README.md")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if changes else "")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
