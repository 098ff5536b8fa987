"""Between the steps of a run: measures what it saved, ends it saved, tells when more epochs are no use."""

import logging
from dataclasses import dataclass
from typing import NoReturn

from trainer.config.run import RunConfig
from trainer.data.input_pipeline import steps_per_epoch
from trainer.distributed.preemption import Preempted, StopRequest
from trainer.distributed.replicas import Replicas
from trainer.distributed.watchdog import Watchdog
from trainer.models.interface import InferenceModel
from trainer.runs import checkpoint
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.runs.metrics_log import RunLog
from trainer.training.validation import Validator

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Length:
    """How long a run is, in rows and steps; an epoch's last step has fewer rows than the others."""

    rows: int
    batch_size: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return steps_per_epoch(self.rows, self.batch_size)

    @property
    def steps(self) -> int:
        """Of all epochs."""
        return self.steps_per_epoch * self.epochs

    def rows_before(self, step: int) -> int:
        """Rows that the steps before `step` have seen."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * self.rows + steps * self.batch_size


@dataclass(frozen=True)
class TrainingCallbacks:
    """Measures what a run saved, or ends it saved.

    model   is filled with what was saved, to be measured; None where nothing is
    """

    config: RunConfig
    workdir: str
    replicas: Replicas
    length: Length
    writer: CheckpointWriter
    validator: Validator | None
    model: InferenceModel | None
    request: StopRequest

    def stop(self, step: int, run_log: RunLog, watchdog: Watchdog) -> NoReturn:
        """Saves and ends the run, which was asked to."""
        log.warning("asked to stop: saving step %d; a second SIGTERM ends the run at once", step)
        self.writer.begin(step, watchdog.progress, is_urgent=True)
        if not self.writer.finish(watchdog.progress):
            raise Preempted(f"stopped at step {step} of {self.length.steps}, which could not be saved; {self._go_on()}")
        run_log.log_event("checkpoint")
        raise Preempted(f"stopped at step {step} of {self.length.steps}; the same command goes on from there")

    def validate(self, step: int, run_log: RunLog, watchdog: Watchdog) -> str:
        """Measures the saved model of `step`, an epoch's end, if its turn has come, and tells what came out."""
        validator, model, epoch = self.validator, self.model, step // self.length.steps_per_epoch
        if validator is None or model is None or not self._is_due(epoch) or self._is_measured(step):
            return ""
        if not self.writer.finish(watchdog.progress):
            return ", not saved and so not measured"
        model.fill(checkpoint.read_weights_of_step(self.workdir, step))

        def look() -> None:
            watchdog.progress()
            if self.request.is_requested:  # all is saved: the run measures first when it goes on
                raise Preempted("stopped while measuring; the same command goes on from there")

        value = validator.measure(model, look)
        if self.replicas.is_chief:
            self._record(step, value, validator)
        run_log.validation(step=step, epoch=epoch, metric=validator.metric, value=value)
        return f", validation {validator.metric} {value:.4f}"

    def end(self, watchdog: Watchdog) -> None:
        """Sees that the last step is saved, and what it reached recorded."""
        if not self.writer.finish(watchdog.progress):
            raise OSError(
                f"the last step's checkpoint could not be written below {self.workdir}: make room; {self._go_on()}"
            )
        self.replicas.wait_for_all()

    def _go_on(self) -> str:
        step = checkpoint.last_step(self.workdir) or 0
        return f"the same command goes on from step {step} of {self.length.steps}"

    def _is_due(self, epoch: int) -> bool:
        return epoch % self.config.validate_every_epochs == 0 or epoch == self.length.epochs

    def _is_measured(self, step: int) -> bool:
        """The chief's answer: what it has just written the others may not see yet."""
        is_measured = step in checkpoint.read_validations(self.workdir).values
        return self.replicas.any_worker(is_measured and self.replicas.is_chief)

    def _record(self, step: int, value: float, validator: Validator) -> None:
        try:
            checkpoint.record_validation(
                self.workdir, step, value, metric=validator.metric, is_higher_better=validator.is_higher_better
            )
            checkpoint.keep_best_and_last(self.workdir)
        except OSError as error:  # the disk is full; the last checkpoint then counts as the best
            log.error("what step %d reached could not be kept: %s; training goes on", step, error)

    def is_out_of_patience(self, step: int) -> bool:
        """Whether the measurements up to `step` are no better for too long; every worker asks at once."""
        patience = self.config.patience
        is_over = patience is not None and checkpoint.read_validations(self.workdir).since_best(step) >= patience
        is_over = self.replicas.any_worker(is_over and self.replicas.is_chief)
        if is_over:
            log.info("stopping: the last %d measurements on the validation split were no better (patience)", patience)
        return is_over
