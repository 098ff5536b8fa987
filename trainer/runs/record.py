"""run.json: everything needed to reproduce a run and to decide whether it can be resumed."""

import hashlib
import json
import logging
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from common import storage
from common.json_files import encode_json
from common.settings import differences, from_json, settings_of, to_json
from trainer.config.presets import AUTO, PRESETS
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.runs.layout import RunLayout

log = logging.getLogger(__name__)

HARMLESS_SETTINGS = (
    "devices",
    "gpus",
    "steps_per_execution",
    "checkpoint_every_steps",
    "checkpoint_every_seconds",
    "step_timeout_seconds",
    "max_loss_growth",
)
"""Settings that do not change the result of a run; they may be changed when it is resumed."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of run.json: settings, dataset and program versions of a run."""

    config: RunConfig
    """All settings."""
    data: str
    """Path of the dataset, as given."""
    dataset_checksum: str
    """Checksum of the dataset."""
    training_rows: int
    """Rows per epoch."""
    events: dict[str, int]
    """Training rows by event kind."""
    mean_event_weight: float
    """Mean weight of the training rows: the constant prediction that is the baseline of models that predict weights."""
    commit: str | None
    """Commit of the program; None outside a git checkout."""
    versions: dict[str, str]
    """Versions of Python and of the packages that the results depend on."""
    dataset_facts: dict[str, str] = field(default_factory=dict)
    """Properties of the dataset by name. If a run is resumed with another dataset, the error lists the differences."""
    warm_start: dict[str, Any] | None = None
    """The run that initialised this run, and the numbers of rows taken from it; None: random initialisation."""
    refit_of: dict[str, Any] | None = None
    """The run that this run refits on all events; see `refit.describe_run`. None: the run is not a refit."""


def read_record(workdir: str) -> RunRecord:
    """Reads the record of a run.

    Raises:
      ValueError: there is no run, or its record is damaged.
    """
    path = RunLayout(workdir).run
    try:
        content = storage.read_bytes(path)
    except FileNotFoundError:
        raise ValueError(f"{workdir} has no run (no run.json); start one with `cartwheel train`") from None
    try:
        values = json.loads(content)
        return RunRecord(**{**values, "config": from_json(RunConfig, values["config"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or was written by another version ({error}); train into another --workdir"
        ) from error


def write_record(record: RunRecord, workdir: str) -> None:
    """Writes a run's record to `run.json`."""
    values = {**asdict(record), "config": to_json(record.config)}
    storage.check_ownership(workdir)
    storage.write_bytes(RunLayout(workdir).run, encode_json(values))


def run_identity(record: RunRecord) -> str:
    """Returns the SHA-256 of everything that determines the weights of a run.

    These are the settings (except `name` and `HARMLESS_SETTINGS`), the dataset, the warm start and the run to refit.
    """
    labels = ("name", *HARMLESS_SETTINGS)
    values = {key: value for key, value in settings_of(record.config).items() if key not in labels}
    earlier = {"warm_start": (record.warm_start or {}).get("run"), "refit_of": (record.refit_of or {}).get("run")}
    content = json.dumps([values, record.dataset_checksum, earlier], sort_keys=True, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()


def check_checkpoint(workdir: str, record: RunRecord, checkpoint_run: str) -> None:
    """Checks that the run of `record` wrote the checkpoint.

    Args:
      workdir: directory of the run.
      record: record of the run.
      checkpoint_run: the `run_identity` in the checkpoint.

    Raises:
      ValueError: another run wrote the checkpoint.
    """
    if checkpoint_run != run_identity(record):
        raise ValueError(
            f"{workdir} has checkpoints of another run (with other settings, dataset, --warm-start or --refit), and "
            "the run.json of that run is missing or was replaced. To continue that run, restore its run.json, or use "
            "its settings and dataset; to start a new run, give another --workdir"
        )


def has_run(workdir: str) -> bool:
    """Returns whether a run was started at `workdir`."""
    return storage.exists(RunLayout(workdir).run)


def training_view(record: RunRecord, dataset: Dataset) -> Dataset:
    """Returns the dataset with the events to train on: all splits for a refit, else the training split."""
    return dataset if record.refit_of is None else dataset.with_all_events()


def check_same_run(
    workdir: str,
    record: RunRecord,
    config: RunConfig,
    dataset: Dataset,
    warm_start: str | None = None,
    refit_of: Mapping[str, Any] | None = None,
) -> None:
    """Checks that the requested run agrees with the `record` of the run to resume.

    Differences in `HARMLESS_SETTINGS` are allowed, and logged.

    Args:
      workdir: directory of the run.
      record: record of the run in `workdir`.
      config: requested settings.
      dataset: requested dataset.
      warm_start: directory of the run that supplies the initial vectors; None: the warm start is not compared.
      refit_of: description of the run to refit, from `refit.describe_run`; None: the request is not a refit.

    Raises:
      ValueError: the runs differ; the message lists the differences.
    """
    _check_preset(workdir, record, config)
    changed = differences(record.config, config)
    harmless = [line for line in changed if line.split(":")[0] in HARMLESS_SETTINGS]
    found = [line for line in changed if line not in harmless]
    if record.dataset_checksum != dataset.checksum:
        found.append(f"dataset: {record.dataset_checksum[:12]}…, now {dataset.checksum[:12]}… at {dataset.root}")
        facts, old = dataset.facts(), record.dataset_facts
        found += [f"{name}: {old[name]}, now {facts.get(name)}" for name in old if old[name] != facts.get(name)]
    if warm_start is not None and warm_start != (record.warm_start or {}).get("run"):
        found.append(f"warm start: {(record.warm_start or {}).get('run')}, now {warm_start}")
    if (refit_of or {}).get("run") != (record.refit_of or {}).get("run"):
        found.append(f"refit of: {(record.refit_of or {}).get('run')}, now {(refit_of or {}).get('run')}")
    if found:
        raise ValueError(
            f"the run in {workdir} differs from the requested one ({'; '.join(found)}); "
            f"use the original settings and dataset, or give another --workdir (with --warm-start {workdir}, if "
            "training should start from the vectors of the existing run)"
        )
    if harmless:
        log.info("resuming with changed settings: %s", "; ".join(harmless))


def _check_preset(workdir: str, record: RunRecord, config: RunConfig) -> None:
    """Raises ValueError if the runs have different presets: a list of all settings that differ would be too long."""
    found, requested = record.config.name, config.name
    if found != requested and found in (AUTO, *PRESETS) and requested in PRESETS:
        raise ValueError(
            f"{workdir} has a run of the preset {found}, not of {requested}; give another --workdir, or resume that "
            f"run with `--preset {found}`"
            if record.refit_of is None
            else f"{workdir} has a refit of {record.refit_of['run']}; give another --workdir"
        )


def current_commit() -> str | None:
    """Returns the program's git commit, with `-dirty` if files are changed; None outside a checkout."""
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
    # a package installed inside another project's checkout does not belong to its commit
    return done.stdout.strip() if tracked.returncode == 0 else None


def current_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that the results depend on, by name."""
    packages: dict[str, Any] = {name: metadata.version(name) for name in ("cartwheel", "tensorflow", "keras", "numpy")}
    return {"python": platform.python_version(), **packages}
