"""The files of a search: its definition, its trials, its best settings and its report, below one directory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from common import storage
from common.errors import explain_damage
from common.json_files import encode_json
from common.storage.paths import join

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class SearchLayout:
    """The paths of the files of a search."""

    root: str
    """Directory of the search."""

    @property
    def definition(self) -> str:
        """Path of the file with the preset, settings, searched values, seed and dataset of the search."""
        return join(self.root, "tune.json")

    @property
    def journal(self) -> str:
        """Path of Optuna's log of the trials, shared by all processes on one file system."""
        return join(self.root, "optuna.log")

    @property
    def trials(self) -> str:
        """Path of the file with the list of trials, as JSON with the fields of `Trial`."""
        return join(self.root, "trials.json")

    @property
    def best(self) -> str:
        """Path of the file that contains the best trial and the commands to train and refit it."""
        return join(self.root, "best.json")

    @property
    def report(self) -> str:
        """Path of the search's report, a web page."""
        return join(self.root, "tune.html")

    def run(self, number: int) -> str:
        """Directory of the run of trial `number`."""
        return join(self.root, "trials", f"{number:03d}")

    def lock(self, number: int) -> str:
        """Path of the file that is locked while trial `number` runs."""
        return join(self.root, "trials", f"{number:03d}.lock")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run with one value for each searched setting."""

    number: int
    """Number of the trial; the first one is 0."""
    state: State
    """State of the trial. `pruned`: stopped early, because an epoch was worse than the median of earlier trials."""
    settings: Mapping[str, str]
    """Values of the searched settings by key, in the notation of `--set`."""
    value: float | None
    """Best validation metric of the trial; None: no epoch is validated yet."""
    validations: Mapping[int, float]
    """Validation metric by epoch."""
    problem: str | None = None
    """Why the trial failed; None if it did not fail."""


def check_definition(layout: SearchLayout, definition: Mapping[str, Any]) -> None:
    """Writes the definition of a new search; compares the definition of a resumed search with the stored one.

    Raises:
      ValueError: the definitions differ; the message lists the differences.
    """
    if not storage.exists(layout.definition):
        write_json(layout.definition, definition)
        return
    with explain_damage(layout.definition, "give another --workdir"):
        found = dict(json.loads(storage.read_bytes(layout.definition)))
    changed = [f"{key}: {found.get(key)}, now {value}" for key, value in definition.items() if found.get(key) != value]
    if changed:
        raise ValueError(
            f"the search in {layout.root} differs from the requested one ({'; '.join(changed)}); use the original "
            "arguments, or give another --workdir"
        )


def write_trials(layout: SearchLayout, trials: Sequence[Trial]) -> None:
    """Writes the trials of a search to `trials.json`."""
    write_json(layout.trials, [asdict(trial) for trial in trials])


def write_json(path: str, value: Any) -> None:
    """Writes a value to a file as indented JSON."""
    storage.write_bytes(path, encode_json(value))
