"""The training loop: restore, step, checkpoint, validate."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

from common import storage
from contract.shards import translate_read_errors
from trainer.config.batch_scaling import scale_batch, warn_of_small_batch
from trainer.config.presets import PRESETS
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.cluster import is_chief, join_cluster
from trainer.distributed.preemption import Preempted, StopRequest, stop_on_signals
from trainer.distributed.replicas import Replicas, preempt_on_worker_loss, start_replicas
from trainer.distributed.watchdog import Watchdog, watching
from trainer.evaluation.blending import blend_runs
from trainer.models.build import build_inference_model
from trainer.models.second_stage_file import SecondStageRecord
from trainer.runs import checkpoint
from trainer.runs.blend_record import OWN_RUN
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.runs.layout import RunLayout, part_name
from trainer.runs.metrics_log import open_log
from trainer.runs.record import RunRecord, check_checkpoint, has_run, run_identity, write_record
from trainer.runs.starts import counting_starts
from trainer.training.build import Trainer, build_trainer
from trainer.training.callbacks import TrainingCallbacks, Validation
from trainer.training.divergence import Divergence, DivergenceMonitor, describe_dense, describe_tables
from trainer.training.schedule import Schedule, make_schedule
from trainer.training.second_stage import add_second_stage
from trainer.training.start import open_run, resume_run, start_run
from trainer.training.validation import make_next_item_validator, make_validator

__all__ = ["Preempted", "train"]

log = logging.getLogger(__name__)


def train(
    config: RunConfig,
    *,
    data: str,
    workdir: str,
    warm_start: str | None = None,
    refit_of: Mapping[str, Any] | None = None,
    stop: StopRequest | None = None,
    on_validation: Callable[[int, float], bool] | None = None,
) -> dict[str, Any]:
    """Trains a run until its last epoch or until validation stops it; resumes from its last checkpoint.

    Args:
      config: settings of the run.
      data: path of the prepared dataset.
      workdir: directory of the run; created if it does not exist.
      warm_start: directory of a run that supplies the initial vectors; None: they are random.
      refit_of: description of the run to refit, from `refit.describe_run`. The run then trains on all splits, without
        validation. None: it trains on the training split.
      stop: request that stops the run; None: SIGTERM stops the run.
      on_validation: called with the epoch and the value of each validation, on all workers; must return the same
        value on all of them. If it returns True, the run ends early.

    Returns:
      Results of the run, as JSON values.

    Raises:
      Preempted: a stop was requested and the run is saved, or another worker was lost. Train again to resume.
      ValueError: config, dataset and workdir do not match, the loss is NaN or has diverged, or the last starts of the
        run ended without a new checkpoint; no checkpoint is written in these cases.
      OwnershipError: another process trains in `workdir`, or took over while this process was suspended.
    """
    cluster = join_cluster()
    owned = storage.own_directory(workdir) if is_chief(cluster) else nullcontext()
    with owned, stop_on_signals(stop) as request, preempt_on_worker_loss(cluster):
        replicas = start_replicas(config.devices, cluster, config.gpus)
        companions = {name: RunLayout(workdir).part(name) for name in config.companions if config.blend}
        with (
            watching(config.step_timeout_seconds, is_active=replicas.workers > 1) as watchdog,
            counting_starts(workdir, list(companions.values()), replicas),
        ):
            result = _train(config, data, workdir, warm_start, refit_of, replicas, request, watchdog, on_validation)
            if not config.blend:
                return result
            start_time = time.monotonic()
            for name, part in companions.items():
                log.info("training %s, another model of the blend (see the setting `companions`)", name)
                _train(companion_config(config, name), data, part, None, None, replicas, request, watchdog, None)
            blend = blend_runs(
                workdir,
                [OWN_RUN, *map(part_name, companions)],
                open_dataset(data, watchdog.progress),
                replicas,
                kinds=config.evaluate.kinds,
                on_chunk=watchdog.progress,
            )
            seconds = round(result["seconds"] + time.monotonic() - start_time, 3)
            return result | {"seconds": seconds, "blend": asdict(blend)}


def companion_config(config: RunConfig, name: str) -> RunConfig:
    """Returns the settings of a companion: a second model that a run trains for its blend.

    These are the settings of the preset `name`, with event weights, `evaluate.*`, seed, devices and GPUs from `config`.
    """
    if name not in PRESETS:
        raise ValueError(f"companions must be presets ({', '.join(PRESETS)}), got {name}; correct `--set companions=…`")
    preset = PRESETS[name]
    return replace(
        preset,
        loss=replace(preset.loss, event_weights=config.loss.event_weights),
        evaluate=config.evaluate,
        seed=config.seed,
        devices=config.devices,
        gpus=config.gpus,
        companions=(),
        blend=False,
    )


def _train(
    config: RunConfig,
    data: str,
    workdir: str,
    warm_start: str | None,
    refit_of: Mapping[str, Any] | None,
    replicas: Replicas,
    request: StopRequest,
    watchdog: Watchdog,
    on_validation: Callable[[int, float], bool] | None,
) -> dict[str, Any]:
    # build
    opened = open_dataset(data, watchdog.ping)
    dataset = opened if refit_of is None else opened.with_all_events()
    config = scale_batch(config, replicas.count, dataset.max_training_rows)
    if replicas.is_chief:
        storage.check_writable(workdir)
        if "GPU" in replicas.devices[0] and config.solver == "sgd":
            warn_of_small_batch(config.input.batch_size, replicas.count)
    record = open_run(workdir, config, dataset, replicas, warm_start, refit_of)
    schedule = make_schedule(config, record.training_rows)
    trainer = build_trainer(config, dataset, replicas, schedule)

    # restore or initialise
    step = first_step = checkpoint.last_step(workdir, replicas, watchdog.ping) or 0
    if step:
        _restore_record(workdir, record, step, replicas)
        resume_run(workdir, trainer.state, step, replicas, schedule, watchdog.ping)
    else:
        record = start_run(workdir, trainer.state, record, dataset, replicas, schedule)
    validation = None if dataset.trains_on_all else _build_validation(config, dataset, replicas)
    writer = CheckpointWriter(
        workdir, trainer.state, replicas, run=run_identity(record), steps_per_epoch=schedule.steps_per_epoch
    )
    monitor = DivergenceMonitor(config.max_loss_growth, is_new_run=step == 0)
    if replicas.any_worker(request.is_requested):
        raise Preempted(f"stopped before step {step}; run the same command again to resume")

    # train
    start_time = time.monotonic()
    with open_log(
        workdir,
        is_chief=replicas.is_chief,
        total_rows=schedule.rows_before(schedule.steps),
        first_row=schedule.rows_before(step),
        first_step=step,
    ) as run_log:
        callbacks = TrainingCallbacks(
            workdir=workdir,
            schedule=schedule,
            replicas=replicas,
            writer=writer,
            validation=validation,
            run_log=run_log,
            watchdog=watchdog,
            request=request,
            checkpoint_every_seconds=config.checkpoint_every_seconds,
            patience=config.patience,
            on_validation=on_validation,
        )
        callbacks.on_train_start(step)
        while step < schedule.steps and not (callbacks.is_out_of_patience or callbacks.is_pruned):
            with translate_read_errors(dataset.root):
                losses = trainer.advance(step, schedule.call_end(step) - step)
            watchdog.progress()
            if divergence := monitor.check(losses):
                raise ValueError(_describe_divergence(divergence, step, trainer))
            step += len(losses)
            callbacks.on_steps_end(step, losses)
        callbacks.on_train_end()
        stage = add_second_stage(workdir, config, dataset, replicas, callbacks.on_chunk)
    return _summarize(workdir, record, schedule, range(first_step, step), time.monotonic() - start_time, stage)


def _restore_record(workdir: str, record: RunRecord, step: int, replicas: Replicas) -> None:
    """Checks that the run of `record` wrote the checkpoint of `step`; writes `run.json` if it is missing."""
    check_checkpoint(workdir, record, checkpoint.read_state(workdir, step).run)
    if replicas.is_chief and not has_run(workdir):
        log.warning(
            "%s has no run.json; it is written again, because the checkpoints there belong to this run", workdir
        )
        write_record(record, workdir)


def _build_validation(config: RunConfig, dataset: Dataset, replicas: Replicas) -> Validation | None:
    """Builds the validation that selects the best checkpoint; None without events to validate on.

    Sequence models are validated on next items; for other models, see `make_validator`.
    """
    if config.is_sequential:
        validator = make_next_item_validator(config, dataset, replicas)
    else:
        validator = make_validator(config, dataset, replicas)
    return Validation(validator, build_inference_model(config, dataset)) if validator is not None else None


def _describe_divergence(divergence: Divergence, first_step: int, trainer: Trainer) -> str:
    """Returns the error message for a diverged run; `first_step`: first step of the compiled call."""
    step = first_step + divergence.index
    findings = [
        f"{divergence.problem} at step {step}",
        trainer.describe_input(step),
        describe_tables(trainer.state.tables),
    ]
    if trainer.state.dense:
        findings.append(describe_dense(trainer.state.dense))
    return (
        f"{'; '.join(filter(None, findings))}. Earlier checkpoints are kept. To avoid the divergence, {trainer.remedy} "
        "and train into another --workdir"
    )


def _summarize(
    workdir: str,
    record: RunRecord,
    schedule: Schedule,
    steps: range,
    seconds: float,
    stage: SecondStageRecord | None,
) -> dict[str, Any]:
    """Returns the results of the run as JSON values.

    Args:
      workdir: directory of the run.
      record: record of the run.
      schedule: schedule of the run.
      steps: range of the steps that this process trained.
      seconds: time that this process took.
      stage: record of the second stage; None if the run has no second stage.
    """
    validations = checkpoint.read_validations(workdir)
    best = checkpoint.best_step(workdir)
    return {
        "workdir": workdir,
        "name": record.config.name,
        "steps": steps.stop,
        "epochs": steps.stop // schedule.steps_per_epoch,
        "is_stopped_early": steps.stop < schedule.steps,
        "training_rows": schedule.rows,
        "mean_event_weight": record.mean_event_weight,
        "validation_metric": validations.metric or None,
        "best_step": best,
        "best_validation": validations.values[best] if best is not None else None,
        "second_stage": stage.to_json() if stage is not None else None,
        "warm_start": record.warm_start,
        "refit_of": record.refit_of,
        "seconds": round(seconds, 3),
        "examples_per_second": round(schedule.rows_between(steps.start, steps.stop) / seconds, 1),
    }
