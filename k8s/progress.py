"""Follows a workload: shows the chief's log and a status line, and returns the outcome."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from common.text import printable
from k8s.errors import KubectlError, Reason
from k8s.kubectl import Kubectl, Object
from k8s.logs import ChiefLog
from k8s.state import Phase, State, deletion_reason, disruption, failure_reasons, latest_pods
from k8s.submission import find, location, pods_of
from k8s.waiting import find_state

_UNANSWERED_SECONDS = 300
_DRAIN_SECONDS = 30
_OUTPUTS = {"dataset": "dataset", "workdir": "run", "output": "model"}
_EPOCH = re.compile(r"epoch (\d+): (.*)")


@dataclass(frozen=True)
class Outcome:
    """How a workload ended, or why it is no longer followed."""

    is_done: bool
    """Whether the workload succeeded."""
    text: str
    """The outcome in a sentence."""
    result: dict[str, Any] | None = None
    """Result that the workload's last command printed."""


class Screen:
    """Terminal output: permanent lines above a status line. Without a terminal, all lines are permanent."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._shown = ""

    def line(self, text: str) -> None:
        """Writes a permanent line."""
        self._stream.write(f"{self._clear()}{printable(text)}\n")
        self._stream.flush()

    def status(self, text: str, clock: str) -> None:
        """Updates the status line. `clock`, the elapsed time, is shown on a terminal only."""
        if self._is_terminal:
            self._stream.write(f"{self._clear()}{printable(text)}, {clock}")
            self._stream.flush()
        elif text != self._shown:
            self.line(text)
        self._shown = text

    def end(self) -> None:
        """Removes the status line."""
        self._stream.write(self._clear())
        self._stream.flush()

    def _clear(self) -> str:
        return "\r\033[K" if self._is_terminal else ""


@dataclass
class Follower:
    """Polls a step's workload until it ends."""

    kubectl: Kubectl
    """The cluster."""
    name: str
    """Name of the step."""
    screen: Screen
    """Where progress is shown."""
    poll_seconds: float
    """Pause between two polls."""
    patience_seconds: float
    """How long the workload may be blocked. After this time, `follow` returns."""
    epochs: int | None = None
    """Epochs of a training run, if known."""
    clock: Callable[[], float] = time.monotonic
    """Returns the current time in seconds."""

    def __post_init__(self) -> None:
        self._log = ChiefLog(self.kubectl)
        self._reported: set[str] = set()
        self._active: dict[str, Object] = {}
        self._epoch = ""
        self._is_in_result = False
        self._start = self.clock()

    def follow(self) -> Outcome:
        """Follows the workload until it ends or is blocked for too long.

        Raises:
          NotOwned: a workload of another project has taken the step's name.
          KubectlError: kubectl failed, or the cluster has not answered for five minutes.
          KeyboardInterrupt: the user stopped following; the workload keeps running.
        """
        try:
            return self._follow()
        finally:
            self._log.close()
            self.screen.end()

    def _follow(self) -> Outcome:
        answered = blocked_since = self.clock()
        while True:
            try:
                workload, pods = self._poll()
                state = find_state(workload, pods, self.kubectl) if workload else None
                answered = self.clock()
            except KubectlError as error:
                if error.reason is not Reason.NO_ANSWER or self.clock() - answered > _UNANSWERED_SECONDS:
                    raise
                self.screen.status("the cluster does not answer; retrying", "")
                time.sleep(self.poll_seconds)
                continue
            if workload is None or state is None:
                return Outcome(False, f"{self.name} no longer exists: it was cancelled")
            self._report(state, pods)
            if state.phase in (Phase.DONE, Phase.FAILED):
                return self._end(workload, state, pods)
            if state.phase is Phase.STUCK:
                return Outcome(False, f"{self.name} {state.phase.value}: {state.text}")
            if state.phase is not Phase.BLOCKED:
                blocked_since = self.clock()
            elif self.clock() - blocked_since >= self.patience_seconds:
                minutes = f"{self.patience_seconds / 60:g} min"
                return Outcome(False, f"{self.name} {state.phase.value} for {minutes} and still waiting: {state.text}")
            time.sleep(self.poll_seconds)

    def _poll(self) -> tuple[Object | None, list[Object]]:
        workload = find(self.name, self.kubectl)
        return workload, pods_of(workload, self.kubectl) if workload else []

    def _report(self, state: State, pods: Sequence[Object]) -> None:
        latest = latest_pods(pods)
        if latest:
            self._log.watch(latest[0])
        for line in self._log.lines():
            self._show(line)
        problem = self._log.problem()
        if problem and problem not in self._reported:
            self.screen.line(f"{self.name}: its log cannot be read: {problem}; the step continues")
            self._reported.add(problem)
        for pod, reason in failure_reasons(pods).items():
            if pod not in self._reported and state.phase is not Phase.FAILED:
                self.screen.line(f"{self.name}: pod {pod} ended: {reason}")
            self._reported.add(pod)
        if state.phase is not Phase.FAILED:
            self._report_removed(pods)
        if state.phase in (Phase.DONE, Phase.FAILED, Phase.STUCK):
            return
        text = ": ".join(part for part in (f"{self.name} {state.phase.value}", state.text, self._epoch) if part)
        minutes, seconds = divmod(int(self.clock() - self._start), 60)
        self.screen.status(text, f"{minutes}:{seconds:02}")

    def _report_removed(self, pods: Sequence[Object]) -> None:
        """Reports pods that ended and were removed since the last poll, as happens on a drained node."""
        names = {pod["metadata"]["name"] for pod in pods}
        for name, pod in self._active.items():
            if name not in names:
                self.screen.line(f"{self.name}: pod {name} ended: deleted{disruption(pod)}; its exit status is unknown")
        ended = ("Failed", "Succeeded")
        active = [pod for pod in pods if pod.get("status", {}).get("phase") not in ended]
        self._active = {pod["metadata"]["name"]: pod for pod in active}

    def _show(self, line: str) -> None:
        """Shows a log line. Skips the JSON result: the caller prints it."""
        self._is_in_result = self._is_in_result or line == "{"
        if not self._is_in_result:
            self.screen.line(line)
        self._is_in_result = self._is_in_result and line != "}"
        found = _EPOCH.search(line)
        if found:
            total = f" of {self.epochs}" if self.epochs else ""
            self._epoch = f"epoch {found[1]}{total} done"

    def _end(self, workload: Object, state: State, pods: Sequence[Object]) -> Outcome:
        latest = latest_pods(pods)
        if latest:
            for line in self._log.drain(latest[0], _DRAIN_SECONDS):
                self._show(line)
        problem = self._log.problem()
        unread = f"; its log cannot be read: {problem}" if problem else ""
        if state.phase is Phase.DONE:
            result = self._log.result()
            if problem and result is None:
                unread += f"; its result is in {location(workload, self.kubectl)}"
            return Outcome(True, f"{self.name} is done{_summary(result)}{unread}", result)
        error = self._log.last_error() if state.text.startswith(("exit 1", "exit 2")) else None
        return Outcome(False, f"{self.name} failed: {state.text}{f': {error}' if error else ''}{unread}")


@dataclass(frozen=True)
class Removal:
    """Waits until deleted workloads are gone, and shows what delays the deletion."""

    kubectl: Kubectl
    """The cluster."""
    screen: Screen
    """Where progress is shown."""
    poll_seconds: float
    """Pause between two polls."""
    patience_seconds: float
    """How long a deletion may take."""
    clock: Callable[[], float] = time.monotonic
    """Returns the current time in seconds."""

    def wait(self, workload: Object) -> None:
        """Waits until a deleted workload no longer exists.

        Raises:
          KubectlError: kubectl failed, or `patience_seconds` are over.
        """
        start, name = self.clock(), workload["metadata"]["name"]
        while reason := self._reason(workload):
            if self.clock() - start >= self.patience_seconds:
                limit = f"{self.patience_seconds / 60:g} min"
                raise KubectlError(
                    f"{name} has still not been deleted after {limit}: {reason}; the deletion continues. "
                    "Run the same command again later, or wait longer with --patience"
                )
            minutes, seconds = divmod(int(self.clock() - start), 60)
            self.screen.status(f"{name} is being deleted: {reason}", f"{minutes}:{seconds:02}")
            time.sleep(self.poll_seconds)
        self.screen.end()

    def _reason(self, workload: Object) -> str | None:
        """Returns what the deletion waits for; None if the workload no longer exists."""
        kind, name = workload["kind"].lower(), workload["metadata"]["name"]
        try:
            left = self.kubectl.get(kind, name)
            if left is None or left["metadata"].get("uid") != workload["metadata"].get("uid"):
                return None
            return deletion_reason(left, pods_of(left, self.kubectl))
        except KubectlError as error:
            if error.reason is not Reason.NO_ANSWER:
                raise
            return str(error)


def _summary(result: dict[str, Any] | None) -> str:
    """Formats the main values of a result; '' if there are none."""
    result = result or {}
    parts = [f"{what} in {result[key]}" for key, what in _OUTPUTS.items() if result.get(key)]
    if result.get("validation_metric"):
        parts.append(f"{result['validation_metric']} {result['best_validation']:.4f} at step {result['best_step']}")
    return f": {', '.join(parts)}" if parts else ""
