"""The trials of `--preset auto`: trains models for a limited time, and records the results in `auto.json`."""

import json
import logging
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import tensorflow as tf

from common import storage
from common.errors import explain_damage
from common.json_files import encode_json
from trainer.config.run import RunConfig
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.runs import checkpoint
from trainer.runs.layout import RunLayout
from trainer.runs.metrics_log import VALIDATION_RATE, read_lines
from trainer.train import train

log = logging.getLogger(__name__)

_MAX_DETAILS = 200  # characters of an error about memory; TensorFlow adds a list of all allocations


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of training one model."""

    name: str
    """Name of the trial: a key of `presets.auto_trials`, or `longer_histories.NAME`."""
    state: str
    """`trained`: training reached its end. `stopped`: its time ran out. `skipped`: there was no time for a first step.
    `failed`: training raised an error or, for a trial that runs once, ended the process."""
    seconds: float
    """Seconds of training."""
    reason: str = ""
    """Why the trial failed, was stopped or was skipped; empty for `trained`."""
    case_seconds: float = 0.0
    """Seconds to rank a validation case; 0 if the model was not validated."""

    @property
    def is_usable(self) -> bool:
        """Whether the trial has a model."""
        return self.state in ("trained", "stopped")


class TrialRunner:
    """Runs trials in sequence, as runs below the directory of the run, and records their results.

    The results of an earlier, interrupted call are read, and these trials are not repeated.
    """

    def __init__(self, workdir: str, data: str) -> None:
        """`workdir`: directory of the run. `data`: path of the dataset."""
        self._layout, self._data = RunLayout(workdir), data
        self.trials = _read_trials(self._layout)

    def run(
        self,
        name: str,
        config: RunConfig,
        request: StopRequest,
        *,
        limit: float | None,
        least_seconds: float,
        runs_once: bool = False,
    ) -> None:
        """Trains or resumes a model, and appends its result to `trials`; does nothing if it has a result.

        Args:
          name: name of the trial.
          config: settings of the model.
          request: request to stop.
          limit: maximum seconds of training; None: no limit.
          least_seconds: with a lower limit, the trial is skipped.
          runs_once: whether the trial fails if the process is killed, such as for its use of memory. Other trials are
            then resumed by the next call, as all are after a requested stop.

        Raises:
          DiskFullError: a disk is full.
          Preempted: `request` stopped the training.
        """
        if self.find(name) is not None:
            return
        if limit is not None and limit < least_seconds:
            reason = f"no time was left ({max(limit, 0.0):.1f} of at least {least_seconds:.1f} s)"
            trial = Trial(name=name, state="skipped", seconds=0.0, reason=reason)
        else:
            attempt = self._try_once if runs_once else self._try
            trial = attempt(name, config, request, limit)
        self.trials.append(trial)
        _write_trials(self.trials, self._layout)

    def find(self, name: str) -> Trial | None:
        """Returns the result of a trial; None if it has none yet."""
        return next((trial for trial in self.trials if trial.name == name), None)

    @property
    def usable(self) -> list[str]:
        """Names of the trials that have a model."""
        return [trial.name for trial in self.trials if trial.is_usable]

    def _try_once(self, name: str, config: RunConfig, request: StopRequest, limit: float | None) -> Trial:
        # a process that is killed cannot record anything afterwards
        killed = Trial(
            name=name, state="failed", seconds=0.0, reason="the process was killed, perhaps for lack of memory"
        )
        _write_trials([*self.trials, killed], self._layout)
        try:
            return self._try(name, config, request, limit)
        except BaseException:
            _write_trials(self.trials, self._layout)
            raise

    def _try(self, name: str, config: RunConfig, request: StopRequest, limit: float | None) -> Trial:
        log.info("trial %s starts, %s", name, "without a time limit" if limit is None else f"for at most {limit:.0f} s")
        started, workdir = time.monotonic(), self._layout.part(name)
        state, reason = "trained", ""
        with _stop_after(limit, request) as own:
            try:
                with storage.explain_full_disk(workdir):  # TensorFlow raises the same error as for memory
                    train(config, data=self._data, workdir=workdir, stop=own)
            except Preempted:
                if request.is_requested:
                    raise
                state, reason = "stopped", "out of time"
                if checkpoint.last_step(workdir) is None:
                    state, reason = "skipped", "out of time before its first step ended"
            # a ValueError is, for example, a dataset without events of the right kind, or a diverged model
            except (ValueError, MemoryError, tf.errors.ResourceExhaustedError) as error:
                state, reason = "failed", _describe(error)
                log.warning("trial %s failed: %s", name, reason)
        trial = Trial(name=name, state=state, seconds=time.monotonic() - started, reason=reason)
        return replace(trial, case_seconds=case_seconds(workdir)) if trial.is_usable else trial


def _describe(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    where = "machine" if isinstance(error, MemoryError) else "device"
    details = textwrap.shorten(str(error), _MAX_DETAILS)
    return f"the {where} ran out of memory" + (f" ({details})" if details else "")


def case_seconds(workdir: str) -> float:
    """Returns the seconds per validation case in a run's fastest validation; 0 if the run has no validation."""
    rates = [line[VALIDATION_RATE] for line in read_lines(RunLayout(workdir).metrics) if VALIDATION_RATE in line]
    return 1 / max(rates) if any(rates) else 0.0


@contextmanager
def _stop_after(seconds: float | None, request: StopRequest) -> Iterator[StopRequest]:
    """Yields a stop request that is set after `seconds` (None: never) and also whenever `request` is set."""
    own = _LinkedRequest(request)
    timer = threading.Timer(seconds or 0.0, own.request)
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield own
    finally:
        timer.cancel()


class _LinkedRequest(StopRequest):
    """A stop request that is also set when the request `other` is set."""

    def __init__(self, other: StopRequest) -> None:
        self._other, self._is_own = other, False

    @property
    def is_requested(self) -> bool:  # type: ignore[override]  # an attribute there
        return self._is_own or self._other.is_requested

    def request(self) -> None:
        self._is_own = True


def _read_trials(layout: RunLayout) -> list[Trial]:
    if not storage.exists(layout.auto):
        return []
    with explain_damage(layout.auto, "remove it to train all models again"):
        return [Trial(**values) for values in json.loads(storage.read_bytes(layout.auto))]


def _write_trials(trials: Sequence[Trial], layout: RunLayout) -> None:
    storage.check_ownership(layout.root)
    storage.write_bytes(layout.auto, encode_json([asdict(trial) for trial in trials]))
