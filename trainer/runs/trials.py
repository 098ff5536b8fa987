"""The files of a search: its definition, its trials, its best settings and its report, below one directory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from common import storage
from common.errors import explain_damage
from common.storage.paths import join

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class SearchLayout:
    """File names below the directory of a search."""

    root: str

    @property
    def definition(self) -> str:
        """The definition of the search: settings and values. It is the same for all processes."""
        return join(self.root, "tune.json")

    @property
    def journal(self) -> str:
        """Optuna's log of the trials, shared by all processes on one file system."""
        return join(self.root, "optuna.log")

    @property
    def trials(self) -> str:
        """The trials, as a list of `Trial`."""
        return join(self.root, "trials.json")

    @property
    def best(self) -> str:
        """The best trial, with the commands that train and refit its settings."""
        return join(self.root, "best.json")

    @property
    def report(self) -> str:
        """The trials as a table and pictures."""
        return join(self.root, "tune.html")

    def run(self, number: int) -> str:
        """Directory of a trial's run, which is a run like any other."""
        return join(self.root, "trials", f"{number:03d}")

    def lock(self, number: int) -> str:
        """The lock file of a trial; the process that runs the trial locks it."""
        return join(self.root, "trials", f"{number:03d}.lock")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A run of the search."""

    number: int
    """Number of the trial, from 0."""
    state: State
    """`pruned`: stopped early, because earlier trials had better validations at the same epoch."""
    settings: Mapping[str, str]
    """The searched settings, as in `--set`."""
    value: float | None
    """Best validation metric; None: no epoch is validated yet."""
    validations: Mapping[int, float]
    """Validation metric by epoch."""
    problem: str | None = None
    """Why the trial failed."""


def check_definition(layout: SearchLayout, definition: Mapping[str, Any]) -> None:
    """Checks that a resumed search has the same definition as before; writes the definition of a new search.

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
    """Writes `trials.json`."""
    write_json(layout.trials, [asdict(trial) for trial in trials])


def write_json(path: str, value: Any) -> None:
    """Writes JSON values, indented."""
    storage.write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())
