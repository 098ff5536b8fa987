"""run.json: what a run can be remade from, and what tells whether a run may go on."""

import json
import logging
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from common import storage
from common.settings import differences, from_json, to_json
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

_MAY_CHANGE = (
    "devices",
    "steps_per_execution",
    "checkpoint_every_steps",
    "checkpoint_every_seconds",
    "step_timeout_seconds",
    "max_loss_growth",
)
"""Knobs that change how a run proceeds, not where it ends: a resumed run may have others."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    data                where the dataset lay, as given
    dataset_checksum    SHA-256 of its manifest
    training_rows       rows of an epoch
    events              of these, by kind
    mean_event_weight   of these, where the loss has event weights to predict: what a constant would predict
    commit              of the program; None where it does not run from a git checkout
    versions            of Python and the packages that decide the numbers
    dataset_facts       what a dataset of another checksum may differ in
    warm_start          the run that this one began with, and what of it was carried over; None: it began with nothing
    """

    config: RunConfig
    data: str
    dataset_checksum: str
    training_rows: int
    events: dict[str, int]
    mean_event_weight: float
    commit: str | None
    versions: dict[str, str]
    dataset_facts: dict[str, str] = field(default_factory=dict)
    warm_start: dict[str, Any] | None = None


def read_record(workdir: str) -> RunRecord:
    """The record of the run at `workdir`.

    Raises:
      ValueError: there is no run, or its record is damaged.
    """
    path = RunLayout(workdir).run
    try:
        values = json.loads(storage.read_bytes(path))
        return RunRecord(**{**values, "config": from_json(RunConfig, values["config"])})
    except FileNotFoundError:
        raise ValueError(f"{workdir} holds no run (no run.json); make one with `python -m trainer train`") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or of another version ({error}); train into another --workdir") from error


def write_record(record: RunRecord, workdir: str) -> None:
    """Writes `run.json`."""
    values = {**asdict(record), "config": to_json(record.config)}
    storage.write_bytes(RunLayout(workdir).run, (json.dumps(values, indent=2) + "\n").encode())


def has_run(workdir: str) -> bool:
    """True where a run was begun."""
    return storage.exists(RunLayout(workdir).run)


def check_same_run(record: RunRecord, config: RunConfig, dataset: Dataset, warm_start: str | None = None) -> None:
    """Refuses to go on with a run under another config or on another dataset, or begun with another run.

    Raises:
      ValueError: names each difference.
    """
    changed = differences(record.config, config)
    harmless = [line for line in changed if line.split(":")[0] in _MAY_CHANGE]
    found = [line for line in changed if line not in harmless]
    if record.dataset_checksum != dataset.checksum:
        found.append(f"dataset: {record.dataset_checksum[:12]}…, now {dataset.checksum[:12]}… at {dataset.root}")
        facts, old = dataset.facts(), record.dataset_facts
        found += [f"{name}: {old[name]}, now {facts.get(name)}" for name in old if old[name] != facts.get(name)]
    if warm_start is not None and warm_start != (record.warm_start or {}).get("run"):
        found.append(f"warm start: {(record.warm_start or {}).get('run')}, now {warm_start}")
    if found:
        raise ValueError(
            f"the workdir holds a run that differs from this one ({'; '.join(found)}); "
            "give another --workdir, and --warm-start with this one to carry its vectors over, or the settings and "
            "dataset it began with"
        )
    if harmless:
        log.info("going on with %s", "; ".join(harmless))


def current_commit() -> str | None:
    """The commit of the checkout that this program runs from, with `-dirty` where it was changed; else None."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        tracked = subprocess.run(
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name],
            capture_output=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # a package that merely lies below some other project's checkout is not of its commit
    return done.stdout.strip() if tracked.returncode == 0 else None


def current_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    packages: dict[str, Any] = {name: metadata.version(name) for name in ("cartwheel", "tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), **packages}
