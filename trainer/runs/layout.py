"""The name of every file in a run directory."""

import re
from dataclasses import dataclass

from common.storage.paths import join
from contract.schema import Split

_STEP = re.compile(r"^step-(\d{9})$")


@dataclass(frozen=True)
class RunLayout:
    """File names below a run directory."""

    root: str

    @property
    def run(self) -> str:
        """The record of the run, with everything needed to reproduce it."""
        return join(self.root, "run.json")

    @property
    def result(self) -> str:
        """The result of the last `train`."""
        return join(self.root, "result.json")

    @property
    def blend(self) -> str:
        """The parts of the run's blend and their weights."""
        return join(self.root, "blend.json")

    @property
    def auto(self) -> str:
        """The models that `--preset auto` tried, with their states and seconds."""
        return join(self.root, "auto.json")

    @property
    def second_stage(self) -> str:
        """The record of the second stage, if the model has one."""
        return join(self.root, "second_stage.json")

    @property
    def second_stage_arrays(self) -> str:
        """The weights of the second stage."""
        return join(self.root, "second_stage.npz")

    def part(self, name: str) -> str:
        """The directory of a run that is a part of the blend."""
        return join(self.root, part_name(name))

    @property
    def metrics(self) -> str:
        """JSON lines: training and validation metrics by step."""
        return join(self.root, "metrics.jsonl")

    @property
    def history(self) -> str:
        """JSON lines: the times at which the run started, saved and stopped."""
        return join(self.root, "history.jsonl")

    @property
    def starts(self) -> str:
        """The number of starts since the last checkpoint; does not exist if the last start ended by itself."""
        return join(self.root, "starts.json")

    @property
    def report(self) -> str:
        """The pages of the run: its data, its training, its evaluation."""
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
    """Returns the directory of a part, relative to the blended run; a part is a run like any other."""
    return join("parts", name)


def checkpoint_step(name: str) -> int | None:
    """Returns the step in the name of a checkpoint directory; None for any other name."""
    match = _STEP.match(name)
    return int(match[1]) if match else None
