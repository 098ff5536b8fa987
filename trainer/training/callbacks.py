"""Callbacks of the training loop: log, save checkpoints, validate, stop early, save and stop on preemption."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np

from common import storage
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.distributed.replicas import Replicas
from trainer.distributed.watchdog import Watchdog
from trainer.models.interface import InferenceModel
from trainer.runs import checkpoint
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.runs.metrics_log import RunLog
from trainer.training.schedule import Schedule
from trainer.training.validation import Validator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """A validator, and a model that gets the weights of each checkpoint to validate."""

    validator: Validator
    """Computes the metric of a model."""
    model: InferenceModel
    """Model whose weights are replaced by those of each checkpoint."""


@dataclass(kw_only=True)
class TrainingCallbacks:
    """Functions to call before, during and after training. All workers call them together."""

    workdir: str
    """Directory of the run."""
    schedule: Schedule
    """Steps at which the run saves, validates and ends."""
    replicas: Replicas
    """All replicas; only the chief writes."""
    writer: CheckpointWriter
    """Writes the checkpoints."""
    validation: Validation | None
    """Validates checkpoints; None: they are not validated."""
    run_log: RunLog
    """Writes the metrics and the history of the run."""
    watchdog: Watchdog
    """Pinged while the run waits for checkpoints and validations."""
    request: StopRequest
    """Request to stop the run."""
    checkpoint_every_seconds: float | None
    """Seconds of training from one checkpoint to the next within an epoch; None: no checkpoints by time."""
    patience: int | None
    """Number of validations without improvement after which training stops; None: validations never stop it."""
    on_validation: Callable[[int, float], bool] | None = None
    """Called with the epoch and the value of each validation; if it returns True, the run ends. None: not called."""
    is_out_of_patience: bool = field(init=False, default=False)
    """Whether the last `patience` validations brought no improvement."""
    is_pruned: bool = field(init=False, default=False)
    """Whether `on_validation` ended the run."""
    _losses: list[tuple[int, float]] = field(init=False, default_factory=list)

    def on_train_start(self, step: int) -> None:
        """Validates the checkpoint that a resumed run starts from, if its validation is due and missing."""
        if self.schedule.is_epoch_end(step):
            self._validate(step)
        self._losses = self.run_log.losses_since(step - step % self.schedule.steps_per_epoch)
        self._update_patience(step)

    def on_steps_end(self, step: int, losses: np.ndarray) -> None:
        """Logs losses; saves and validates a checkpoint when one is due.

        Args:
          step: number of steps so far.
          losses: [n] losses of the last n steps.

        Raises:
          Preempted: a stop was requested.
          OwnershipLostError: another process has taken over the run.
        """
        storage.stop_if_lost(self.workdir)
        epoch, rows = self.schedule.epoch_of(step - 1), self.schedule.rows_between(step - len(losses), step)
        loss = float(losses.mean())
        self._losses.append((len(losses), loss))
        self.run_log.log_steps(step=step, epoch=epoch, rows=rows, loss=loss)
        is_due = self.replicas.is_chief and self.writer.is_due(self.checkpoint_every_seconds)
        stop_requested, is_due = self.replicas.any_worker_each(self.request.is_requested, is_due)
        if stop_requested:
            self._save_and_stop(step)
        if is_due or self.schedule.has_checkpoint(step):
            self.writer.begin(step, self.watchdog.progress)
            self.run_log.log_event("checkpoint")
            if self.replicas.any_worker(self.request.is_requested):  # during the pause
                _warn_of_stop(step)
                self._stop(step)
        else:
            self.writer.poll()
        if self.schedule.is_epoch_end(step):
            self._end_epoch(step, epoch)

    def on_train_end(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
          OSError: the last checkpoint could not be written.
        """
        if not self.writer.finish(self.watchdog.progress):
            raise OSError(
                f"the last checkpoint could not be written to {self.workdir}, see the error above; fix its cause (if "
                f"the disk is full, free some space), then {self._how_to_resume()}"
            )
        self.replicas.wait_for_all()

    def on_chunk(self) -> None:
        """Pings the watchdog during long work, such as validation.

        Raises:
          Preempted: a stop was requested.
          OwnershipLostError: another process has taken over the run.
        """
        self.watchdog.progress()
        storage.stop_if_lost(self.workdir)
        if self.request.is_requested:
            raise Preempted("stopped after a checkpoint; run the same command again to resume")

    def _end_epoch(self, step: int, epoch: int) -> None:
        steps, losses = zip(*self._losses, strict=True)
        loss = np.average(losses, weights=steps)
        self._losses.clear()
        self.run_log.log_epoch(epoch, f"loss {loss:.4f}{self._validate(step)}")
        self._update_patience(step)

    def _save_and_stop(self, step: int) -> NoReturn:
        _warn_of_stop(step)
        self.writer.begin(step, self.watchdog.progress)
        self.run_log.log_event("checkpoint")
        self._stop(step)

    def _stop(self, step: int) -> NoReturn:
        """Waits until the started checkpoint of `step` is written, and raises Preempted."""
        is_saved = self.writer.finish(self.watchdog.progress)
        problem = "" if is_saved else ", but this step could not be saved"
        raise Preempted(f"stopped at step {step} of {self.schedule.steps}{problem}; {self._how_to_resume()}")

    def _how_to_resume(self) -> str:
        return f"run the same command again to resume from step {checkpoint.last_step(self.workdir) or 0}"

    def _validate(self, step: int) -> str:
        if self.validation is None or not self.schedule.has_validation(step) or self._is_validated(step):
            return ""
        if not self.writer.finish(self.watchdog.progress):
            return ", not validated because its checkpoint could not be saved"
        validator, model = self.validation.validator, self.validation.model
        with checkpoint.read_weights_of_step(self.workdir, step).kept_open() as weights:
            model.fill(replace(weights, visitors=validator.visitors))
        start_time = time.monotonic()
        value = validator.measure(model, self.on_chunk)
        rate = validator.num_cases / max(time.monotonic() - start_time, 1e-9)
        if self.replicas.is_chief:
            self._record_validation(step, value, validator)
        epoch = self.schedule.epoch_of(step - 1)
        self.run_log.log_validation(step=step, epoch=epoch, metric=validator.metric, value=value, rate=rate)
        if self.on_validation is not None:
            self.is_pruned = self.on_validation(epoch, value)
        return f", validation {validator.metric} {value:.4f}"

    def _is_validated(self, step: int) -> bool:
        """Returns whether validations.json has `step`, as read by the chief; other workers may read an old version."""
        is_validated = step in checkpoint.read_validations(self.workdir).values
        return self.replicas.any_worker(is_validated and self.replicas.is_chief)

    def _record_validation(self, step: int, value: float, validator: Validator) -> None:
        storage.try_to_check_ownership(self.workdir)
        try:
            checkpoint.record_validation(
                self.workdir, step, value, metric=validator.metric, is_higher_better=validator.is_higher_better
            )
            checkpoint.keep_best_and_last(self.workdir)
        except OSError as error:  # the disk is full
            log.error(
                "the validation metric of step %d could not be saved: %s; training continues without it", step, error
            )

    def _update_patience(self, step: int) -> None:
        if self.patience is None:
            return
        is_over = checkpoint.read_validations(self.workdir).since_best(step) >= self.patience
        self.is_out_of_patience = self.replicas.any_worker(is_over and self.replicas.is_chief)
        if self.is_out_of_patience:
            log.info("early stopping: no improvement in the last %d validations", self.patience)


def _warn_of_stop(step: int) -> None:
    log.warning("stop requested: saving step %d; a second signal ends the process at once", step)
