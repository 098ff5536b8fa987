"""Reads the log of the chief (the first worker) in a thread: each line once, even if the pod is replaced."""

import collections
import json
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

from k8s.errors import KubectlError, Reason, explain
from k8s.kubectl import Kubectl, Object
from k8s.state import containers

_KEPT_LINES = 5000
_RETRY_SECONDS = 1.0


class ChiefLog:
    """Log lines of a workload's first pod and of its replacements, one container after another."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._latest: dict[tuple[str, str], str] = {}
        self._finished: set[tuple[str, str]] = set()
        self._failures: dict[tuple[str, str], list[KubectlError]] = {}
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._kept: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)

    def watch(self, pod: Object) -> bool:
        """Starts or continues reading a pod's logs. Returns False once all logs are read."""
        if self._thread is not None and self._thread.is_alive():
            return True
        for container in containers(pod):
            key = (pod["metadata"]["name"], container["name"])
            has_ended = "terminated" in container.get("state", {})
            if key in self._finished:
                continue
            if not has_ended and "running" not in container.get("state", {}):
                return True
            self._start(key, is_last=has_ended)
            return True
        return False

    def lines(self) -> Iterator[str]:
        """Yields the log lines that were read since the last call."""
        while not self._lines.empty():
            line = self._lines.get()
            self._kept.append(line)
            yield line

    def drain(self, pod: Object, seconds: float) -> Iterator[str]:
        """Yields, for at most `seconds`, the remaining log lines of a pod that has ended."""
        end = time.monotonic() + seconds
        while self.watch(pod) and time.monotonic() < end:
            if self._thread is not None:
                self._thread.join(timeout=0.1)
            if self.problem():
                time.sleep(_RETRY_SECONDS)
            yield from self.lines()
        yield from self.lines()

    def problem(self) -> str | None:
        """Returns why a container's log cannot be read; None if it can be read, or if reading is retried."""
        for key, errors in self._failures.items():
            if errors and (len(errors) > 1 or key in self._finished):
                return str(errors[-1])
        return None

    def result(self) -> dict[str, Any] | None:
        """Returns the JSON object at the end of the log; None if there is none."""
        lines = list(self._kept)
        if "{" not in lines:
            return None
        start = len(lines) - 1 - lines[::-1].index("{")
        try:
            value, _ = json.JSONDecoder().raw_decode("\n".join(lines[start:]))
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def last_error(self) -> str | None:
        """Returns the last ERROR line or Python error in the log; None if there is none."""
        for line in reversed(self._kept):
            if " ERROR " in line:
                return line.partition(" ERROR ")[2].partition(": ")[2]
            if line.partition(":")[0].endswith(("Error", "Exception", "error:")) or ": error: " in line:
                return line.strip()
        return None

    def close(self) -> None:
        """Stops reading the log."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _start(self, key: tuple[str, str], *, is_last: bool) -> None:
        self._process = self._kubectl.follow_logs(*key, since=self._latest.get(key))
        self._thread = threading.Thread(target=self._read, args=(self._process, key, is_last), daemon=True)
        self._thread.start()

    def _read(self, process: "subprocess.Popen[str]", key: tuple[str, str], is_last: bool) -> None:
        with process:
            failures = self._failures.setdefault(key, [])
            for line in process.stdout or ():
                stamp, _, text = line.rstrip("\n").partition(" ")
                # a broken stream resumes at the second of its last line
                if _moment(stamp) > _moment(self._latest.get(key, "")):
                    self._latest[key] = stamp
                    self._lines.put(text)
                failures.clear()
            errors = process.stderr.read() if process.stderr else ""
        if process.returncode:
            failures.append(explain(errors))
        else:
            failures.clear()
        # a log that the user has no right to read is not tried again
        if is_last and (not failures or failures[-1].reason is Reason.FORBIDDEN):
            self._finished.add(key)


def _moment(stamp: str) -> str:
    """Appends the zeros that Kubernetes drops from a timestamp. Timestamps then sort as text."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{whole}.{fraction:0<9}"
