"""The schedule of a run: the steps at which compiled calls, epochs and the run end, and checkpoints are due."""

from dataclasses import dataclass

from trainer.config.run import RunConfig
from trainer.data.input_pipeline import steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The steps of a run, counted from 0. The last step of an epoch may have fewer rows."""

    rows: int
    """Training rows per epoch."""
    rows_per_step: int
    """Rows of a global batch. With the solvers `als` and `count`, a step is a whole epoch, so this is `rows`."""
    epochs: int
    """Epochs of the run."""
    steps_per_execution: int
    """Maximum number of steps per compiled call."""
    checkpoint_every_steps: int | None
    """Steps between checkpoints within an epoch; None: none within an epoch. Each epoch ends with a checkpoint, too."""
    validate_every_epochs: int
    """Epochs between validations."""

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps per epoch."""
        return steps_per_epoch(self.rows, self.rows_per_step)

    @property
    def steps(self) -> int:
        """Number of training steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def rows_before(self, step: int) -> int:
        """Returns the number of training rows in all steps before `step`."""
        epochs, steps = divmod(step, self.steps_per_epoch)
        return epochs * self.rows + steps * self.rows_per_step

    def rows_between(self, first: int, end: int) -> int:
        """Returns the number of training rows in the steps from `first` to `end` - 1."""
        return self.rows_before(end) - self.rows_before(first)

    def epoch_of(self, step: int) -> int:
        """Returns the epoch that contains `step`; epochs are counted from 1."""
        return step // self.steps_per_epoch + 1

    def call_end(self, step: int) -> int:
        """Returns the step after the last step of the compiled call that starts at `step`.

        A compiled call trains several steps. It ends early at a checkpoint or at the end of an epoch.
        """
        ends = [step + self.steps_per_execution, self.epoch_of(step) * self.steps_per_epoch]
        every = self.checkpoint_every_steps
        return min(ends if every is None else [*ends, (step // every + 1) * every])

    def is_epoch_end(self, step: int) -> bool:
        """Returns whether an epoch ends after `step` steps."""
        return step > 0 and step % self.steps_per_epoch == 0

    def has_checkpoint(self, step: int) -> bool:
        """Returns whether a checkpoint is due after `step` steps."""
        every = self.checkpoint_every_steps
        return self.is_epoch_end(step) or (every is not None and step % every == 0)

    def has_validation(self, step: int) -> bool:
        """Returns whether a validation is due after `step` steps; `step` must be the end of an epoch."""
        return (step // self.steps_per_epoch) % self.validate_every_epochs == 0 or step == self.steps


def make_schedule(config: RunConfig, training_rows: int) -> Schedule:
    """Returns the schedule of a run; `training_rows` is the number of training rows per epoch."""
    return Schedule(
        rows=training_rows,
        rows_per_step=config.input.batch_size if config.solver == "sgd" else training_rows,
        epochs=config.num_epochs,
        steps_per_execution=config.steps_per_execution,
        checkpoint_every_steps=config.checkpoint_every_steps,
        validate_every_epochs=config.validate_every_epochs,
    )
