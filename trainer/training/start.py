"""Starts or resumes a run: reads or creates its record, and sets its initial weights."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from common import storage
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.data.input_pipeline import total_events
from trainer.distributed.embeddings import initialize
from trainer.distributed.replicas import Replicas
from trainer.runs import checkpoint
from trainer.runs.checkpoint import TrainState
from trainer.runs.layout import RunLayout
from trainer.runs.record import (
    RunRecord,
    check_same_run,
    current_commit,
    current_versions,
    has_run,
    read_record,
    write_record,
)
from trainer.training.schedule import Schedule
from trainer.training.warm_start import warm_start_from

log = logging.getLogger(__name__)


def open_run(
    workdir: str,
    config: RunConfig,
    dataset: Dataset,
    replicas: Replicas,
    warm_start: str | None,
    refit_of: Mapping[str, Any] | None,
) -> RunRecord:
    """Reads the record of an existing run, or creates one for a new run, which `start_run` writes later.

    Args:
      workdir: directory of the run.
      config: requested settings.
      dataset: requested dataset.
      replicas: all replicas; all workers call this together.
      warm_start: directory of the run that supplies the initial vectors; None: any warm start of a resumed run is kept.
      refit_of: description of the run to refit, from `refit.describe_run`; None: the run is not a refit.

    Raises:
      ValueError: `workdir` has a different run, the settings do not fit the dataset, the solver does not support a warm
        start, or the dataset has no training rows for this model.
    """
    if has_run(workdir):
        record = read_record(workdir)
        check_same_run(workdir, record, config, dataset, warm_start, refit_of)
    else:
        record = _new_record(config, dataset, warm_start, refit_of)
    replicas.wait_for_all()  # the chief writes a new record only after every worker has looked for an old one
    return record


def resume_run(
    workdir: str,
    state: TrainState,
    step: int,
    replicas: Replicas,
    schedule: Schedule,
    on_progress: Callable[[], None] = lambda: None,
) -> None:
    """Restores the checkpoint of a resumed run.

    Args:
      workdir: directory of the run.
      state: variables to restore.
      step: step of the checkpoint.
      replicas: all replicas.
      schedule: schedule of the run.
      on_progress: called repeatedly while the variables are restored.
    """
    log.info("resuming from the checkpoint of step %d of %d", step, schedule.steps)
    written_by = checkpoint.restore(workdir, state, step, on_progress).replicas
    if written_by != replicas.count:
        log.warning(
            "resuming with %d replicas from a checkpoint that %d replicas wrote: from here on, values are summed in a "
            "different order, so the result equals that of an uninterrupted run only up to rounding",
            replicas.count,
            written_by,
        )


def start_run(
    workdir: str, state: TrainState, record: RunRecord, dataset: Dataset, replicas: Replicas, schedule: Schedule
) -> RunRecord:
    """Initialises the weights of a new run, randomly or by a warm start, and writes its record.

    The record is written last, so that `workdir` can be used again after a failed warm start.

    Returns:
      The record, with the result of `warm_start_from`.
    """
    config = record.config
    if record.warm_start is not None:
        record = replace(record, warm_start=warm_start_from(record.warm_start["run"], config, dataset, state))
    else:
        for name, table in state.tables.items() if config.model.initial_stddev else ():
            stddev = config.model.initial_stddev
            initialize(table, name=name, seed=config.seed, stddev=stddev, on_progress=dataset.on_progress)
    if replicas.is_chief:
        if record.refit_of is not None:
            _copy_evaluations(record.refit_of, workdir)
        write_record(record, workdir)
    log.info(
        "starting: %d training rows per epoch, %d steps in total, %s",
        schedule.rows,
        schedule.steps,
        ", ".join(f"{name} table of {table.rows} rows" for name, table in state.tables.items()),
    )
    return record


def _copy_evaluations(refit_of: Mapping[str, Any], workdir: str) -> None:
    """Copies the evaluations of the original run to the refit, for its report and model card."""
    for split in refit_of["evaluations"]:
        content = storage.read_bytes(RunLayout(refit_of["run"]).evaluation(split))
        storage.write_bytes(RunLayout(workdir).evaluation(split), content)


def _new_record(
    config: RunConfig, dataset: Dataset, warm_start: str | None, refit_of: Mapping[str, Any] | None
) -> RunRecord:
    kinds, weights = dataset.manifest.event_kinds, config.loss.weights_by_kind(dataset.manifest)
    if config.solver == "count" and warm_start is not None:
        raise ValueError("solver=count computes the model from the training events alone; drop --warm-start")
    config.evaluate.check_kinds(kinds)
    events, total_weight = total_events(
        dataset.training_events, config.input, weights, config.history_length, config.is_sequential
    )
    if not events.sum():
        raise ValueError(
            "this model predicts each event of a visitor from the visitor's other events, but no visitor in the "
            f"training split of {dataset.root} has more than one event; train mf with model.history_length=0, or "
            "prepare a longer log"
        )
    return RunRecord(
        config=config,
        data=dataset.root,
        dataset_checksum=dataset.checksum,
        training_rows=int(events.sum()),
        events=dict(zip(kinds, events.tolist(), strict=True)),
        mean_event_weight=total_weight / int(events.sum()),
        commit=current_commit(),
        versions=current_versions(),
        dataset_facts=dataset.facts(),
        warm_start={"run": warm_start} if warm_start is not None else None,
        refit_of=dict(refit_of) if refit_of is not None else None,
    )
