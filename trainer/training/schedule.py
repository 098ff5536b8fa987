"""The schedule of a run: at which steps compiled calls, checkpoints, epochs and the run itself end."""

from dataclasses import dataclass

from trainer.config.run import RunConfig
from trainer.data.input_pipeline import steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """All steps of a run; the last step of an epoch may have fewer rows than the others."""

    rows: int
    """Training rows per epoch."""
    rows_per_step: int
    """Rows of a global batch; all rows if a step is a sweep of least squares or a combination of a counted model."""
    epochs: int
    """Epochs of the run."""
    steps_per_execution: int
    """Steps per compiled call, at most."""
    checkpoint_every_steps: int | None
    """Steps between checkpoints within an epoch; None: there is one only at the end of each epoch."""
    validate_every_epochs: int
    """Epochs between validations."""

    @property
    def steps_per_epoch(self) -> int:
        """Global batches per epoch."""
        return steps_per_epoch(self.rows, self.rows_per_step)

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.steps_per_epoch * self.epochs

    def rows_before(self, step: int) -> int:
        """Returns the number of rows in all steps before `step`."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * self.rows + steps * self.rows_per_step

    def rows_between(self, first: int, end: int) -> int:
        """Returns the number of rows in the steps first … end - 1."""
        return self.rows_before(end) - self.rows_before(first)

    def epoch_of(self, step: int) -> int:
        """Returns the epoch of `step`, counted from 1."""
        return step // self.steps_per_epoch + 1

    def call_end(self, step: int) -> int:
        """Returns the step at which the call that starts at `step` ends: no later than the epoch or checkpoint."""
        ends = [step + self.steps_per_execution, self.epoch_of(step) * self.steps_per_epoch]
        every = self.checkpoint_every_steps
        return min(ends if every is None else [*ends, (step // every + 1) * every])

    def is_epoch_end(self, step: int) -> bool:
        """Returns True if an epoch ends right before `step`."""
        return step > 0 and step % self.steps_per_epoch == 0

    def has_checkpoint(self, step: int) -> bool:
        """Returns True if a checkpoint is scheduled right before `step`."""
        every = self.checkpoint_every_steps
        return self.is_epoch_end(step) or (every is not None and step % every == 0)

    def has_validation(self, step: int) -> bool:
        """Returns True if an epoch ends right before `step` and its validation is scheduled."""
        return (step // self.steps_per_epoch) % self.validate_every_epochs == 0 or step == self.steps


def make_schedule(config: RunConfig, training_rows: int) -> Schedule:
    """Returns the schedule of a run with `training_rows` rows per epoch."""
    return Schedule(
        rows=training_rows,
        rows_per_step=config.input.batch_size if config.solver == "sgd" else training_rows,
        epochs=config.num_epochs,
        steps_per_execution=config.steps_per_execution,
        checkpoint_every_steps=config.checkpoint_every_steps,
        validate_every_epochs=config.validate_every_epochs,
    )
