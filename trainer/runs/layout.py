"""The name of every file in a run directory."""

import re
from dataclasses import dataclass

from common.storage.paths import join
from contract.schema import Split

_STEP = re.compile(r"^step-(\d{9})$")


@dataclass(frozen=True)
class RunLayout:
    """The paths of the files of a run."""

    root: str
    """Directory of the run."""

    @property
    def run(self) -> str:
        """Path of the run's record, which contains everything needed to reproduce the run."""
        return join(self.root, "run.json")

    @property
    def result(self) -> str:
        """Path of the file with the results of the last call of `train`."""
        return join(self.root, "result.json")

    @property
    def blend(self) -> str:
        """Path of the file with the names and weights of the blended models."""
        return join(self.root, "blend.json")

    @property
    def auto(self) -> str:
        """Path of the file that lists the models of `--preset auto` and their training times in seconds."""
        return join(self.root, "auto.json")

    @property
    def second_stage(self) -> str:
        """Path of the record of the second stage, a network that reorders the best items."""
        return join(self.root, "second_stage.json")

    @property
    def second_stage_arrays(self) -> str:
        """Path of the file with the weights of the second stage, as NumPy arrays."""
        return join(self.root, "second_stage.npz")

    def part(self, name: str) -> str:
        """Directory of the blended model that was trained with preset `name`."""
        return join(self.root, part_name(name))

    @property
    def metrics(self) -> str:
        """Path of the file with the training and validation metrics by step, as JSON lines."""
        return join(self.root, "metrics.jsonl")

    @property
    def history(self) -> str:
        """Path of the file with the starts, checkpoints and ends of the run, as JSON lines."""
        return join(self.root, "history.jsonl")

    @property
    def starts(self) -> str:
        """Path of the file that counts the starts without a new checkpoint; see `starts.counting_starts`.

        The current start is counted, too. There is no file if the count is 0.
        """
        return join(self.root, "starts.json")

    @property
    def report(self) -> str:
        """Path of the run's report, a web page."""
        return join(self.root, "report.html")

    @property
    def tensorboard(self) -> str:
        return join(self.root, "tensorboard")

    @property
    def checkpoints(self) -> str:
        return join(self.root, "checkpoints")

    def checkpoint(self, step: int) -> str:
        return join(self.checkpoints, f"step-{step:09d}")

    def evaluation(self, split: Split) -> str:
        return join(self.root, f"evaluation-{split}.json")


def part_name(name: str) -> str:
    """Returns the directory of the blended model with preset `name`, relative to the blend's directory."""
    return join("parts", name)


def checkpoint_step(name: str) -> int | None:
    """Returns the step of a checkpoint directory; None for any other name."""
    match = _STEP.match(name)
    return int(match[1]) if match else None
