"""The name of every file in a dataset and in a run directory; the only place that glues paths."""

import re
from dataclasses import dataclass

from contract.schema import Split, Vocabulary

_STEP = re.compile(r"^step-(\d{9})$")


def join(base: str, *names: str) -> str:
    """`base/name/…` for a local path or a URI."""
    return "/".join([base.rstrip("/") or "/", *names])


def shard_name(stem: str, index: int, count: int, suffix: str) -> str:
    """`stem-00003-of-00016suffix`, the naming that TensorFlow and Beam tools expect."""
    return f"{stem}-{index:05d}-of-{count:05d}{suffix}"


@dataclass(frozen=True)
class DatasetLayout:
    """File names below a prepared dataset's root."""

    root: str

    @property
    def manifest(self) -> str:
        return join(self.root, "manifest.json")

    @property
    def statistics(self) -> str:
        return join(self.root, "statistics.json")

    @property
    def expectations(self) -> str:
        """What a later dataset of the same shop is compared with."""
        return join(self.root, "expectations.json")

    @property
    def comparison(self) -> str:
        """What came of comparing it with an earlier dataset; no part of the dataset, as the report is none."""
        return join(self.root, "comparison.json")

    @property
    def report(self) -> str:
        """The statistics as pictures; no part of the dataset: the manifest does not list it."""
        return join(self.root, "report.html")

    @property
    def transform(self) -> str:
        """Directory of the TF-Transform SavedModel."""
        return join(self.root, "transform")

    @property
    def rejects(self) -> str:
        return join(self.root, "rejects")

    @property
    def catalogue(self) -> str:
        return join(self.root, "catalogue")

    @property
    def timelines(self) -> str:
        return join(self.root, "timelines")

    def vocabulary(self, name: Vocabulary) -> str:
        return join(self.root, "vocabulary", f"{name}.txt")

    def timeline_shard(self, split: Split, index: int, count: int, *, compressed: bool) -> str:
        suffix = ".tfrecord.gz" if compressed else ".tfrecord"
        return join(self.timelines, shard_name(split, index, count, suffix))

    def catalogue_shard(self, index: int, count: int) -> str:
        return join(self.catalogue, shard_name("items", index, count, ".parquet"))


@dataclass(frozen=True)
class RunLayout:
    """File names below a run directory."""

    root: str

    @property
    def run(self) -> str:
        """The record from which the run can be remade."""
        return join(self.root, "run.json")

    @property
    def metrics(self) -> str:
        """One JSON object a line: training and validation figures by step."""
        return join(self.root, "metrics.jsonl")

    @property
    def history(self) -> str:
        """One JSON object a line: when the run was started, saved, stopped."""
        return join(self.root, "history.jsonl")

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


def checkpoint_step(name: str) -> int | None:
    """The step of a checkpoint directory's name; None for any other name."""
    match = _STEP.match(name)
    return int(match[1]) if match else None
