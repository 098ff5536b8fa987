"""The training job as one story."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from common import storage
from contract.schema import EVENT_KINDS, Split
from contract.shards import translate_read_errors
from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.models import TowersConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.input_pipeline import count_events, training_batches
from trainer.data.interactions import read_interactions
from trainer.distributed.cluster import join_cluster
from trainer.distributed.embeddings import ShardedTable, initialize
from trainer.distributed.optimizers import dense_optimizer
from trainer.distributed.preemption import Preempted, StopRequest, stop_on_sigterm
from trainer.distributed.replicas import Replicas, check_batch_divides, preempt_on_worker_loss, start_replicas
from trainer.distributed.watchdog import Watchdog, watching
from trainer.models.build import build_inference_model, build_tables, build_training_model
from trainer.models.objectives import TrainingModel
from trainer.runs import checkpoint
from trainer.runs.checkpoint import TrainState
from trainer.runs.checkpoint_writer import CheckpointWriter
from trainer.runs.metrics_log import open_log
from trainer.runs.record import (
    RunRecord,
    check_same_run,
    current_commit,
    current_versions,
    has_run,
    read_record,
    write_record,
)
from trainer.training.als import AlternatingSolver
from trainer.training.callbacks import Length, TrainingCallbacks
from trainer.training.divergence import DivergenceMonitor, describe_batch, describe_dense, describe_tables
from trainer.training.step import TrainingStep, compile_steps
from trainer.training.validation import Validator, make_next_item_validator, make_validator
from trainer.training.warm_start import warm_start_from

__all__ = ["Preempted", "train"]

log = logging.getLogger(__name__)

Advance = Callable[[int, int], np.ndarray]
"""Trains `count` steps, the first of which has the number `first`, and gives their losses [count]."""


def train(
    config: RunConfig, *, data: str, workdir: str, warm_start: str | None = None, stop: StopRequest | None = None
) -> dict[str, Any]:
    """Trains to the end of the last epoch, from where the run at `workdir` stands.

    Args:
      data: the prepared dataset.
      workdir: directory of the run; made where it does not exist.
      warm_start: a run whose vectors this one begins with, see `warm_start.warm_start_from`.
      stop: asks the run to stop; None: SIGTERM does.

    Returns:
      Figures of the run, as JSON values.

    Raises:
      Preempted: asked to stop, and saved; or another worker was lost. The run goes on when it is started again.
      ValueError: config, dataset and workdir do not go together, or the loss is no longer finite or has diverged; then
        no checkpoint is written.
    """
    cluster = join_cluster()
    with stop_on_sigterm(stop) as request, preempt_on_worker_loss(cluster):
        replicas = start_replicas(config.devices, cluster)
        with watching(config.step_timeout_seconds, is_active=replicas.workers > 1) as watchdog:
            return _train(config, data, workdir, warm_start, replicas, request, watchdog)


def _train(
    config: RunConfig,
    data: str,
    workdir: str,
    warm_start: str | None,
    replicas: Replicas,
    request: StopRequest,
    watchdog: Watchdog,
) -> dict[str, Any]:
    dataset = open_dataset(data)
    if replicas.is_chief:
        storage.check_writable(workdir)
    record = _open_run(workdir, config, dataset, replicas, warm_start)
    rows_of_step = record.training_rows if config.solver == "als" else config.input.batch_size
    length = Length(record.training_rows, rows_of_step, config.epochs)

    parts, start = _build(config, dataset, replicas, length)
    step = first_step = checkpoint.last_step(workdir, replicas) or 0
    if step:
        log.info("going on from the checkpoint of step %d of %d", step, length.steps)
        _tell_other_replicas(checkpoint.restore(workdir, parts, step).replicas, replicas.count)
    else:
        record = _begin(workdir, parts, record, dataset, replicas, length)
    advance = start(step)
    validator = _make_validator(config, dataset, replicas)
    writer = CheckpointWriter(workdir, parts, replicas, steps_per_epoch=length.steps_per_epoch)
    model = build_inference_model(config, dataset) if validator is not None else None
    keeper = TrainingCallbacks(config, workdir, replicas, length, writer, validator, model, request)
    watch = DivergenceMonitor(config.max_loss_growth, is_beginning=step == 0)
    if replicas.any_worker(request.is_requested):
        raise Preempted(f"stopped before step {step}; the same command goes on from there")

    began = time.monotonic()
    with open_log(
        workdir,
        is_chief=replicas.is_chief,
        total_rows=length.rows_before(length.steps),
        first_row=length.rows_before(step),
        first_step=step,
    ) as run_log:
        if step and step % length.steps_per_epoch == 0:
            keeper.validate(step, run_log, watchdog)  # a run killed between saving and measuring
        while step < length.steps and not keeper.is_out_of_patience(step):
            epoch = step // length.steps_per_epoch + 1
            epoch_end = epoch * length.steps_per_epoch
            epoch_losses: list[np.ndarray] = []
            while step < epoch_end:
                count = min(config.steps_per_execution, epoch_end - step, _until_save(config, step))
                with translate_read_errors():
                    losses = advance(step, count)
                watchdog.progress()
                fault = watch.check(losses)
                if fault is not None:
                    place, what = fault
                    raise ValueError(_describe_fault(config, dataset, parts, length, step + place, what))
                rows = length.rows_before(step + count) - length.rows_before(step)
                step += count
                epoch_losses.append(losses)
                run_log.steps(step=step, epoch=epoch, rows=rows, loss=float(losses.mean()))
                is_due = replicas.is_chief and writer.is_due(config.checkpoint_every_seconds)
                is_stopped, is_due = replicas.any_worker_each(request.is_requested, is_due)
                if is_stopped:
                    keeper.stop(step, run_log, watchdog)
                if step == epoch_end or is_due or _until_save(config, step) == config.checkpoint_every_steps:
                    writer.begin(step, watchdog.progress)
                    run_log.log_event("checkpoint")
                else:
                    writer.poll()
            loss = float(np.concatenate(epoch_losses).mean())
            run_log.epoch(epoch, f"loss {loss:.4f}{keeper.validate(step, run_log, watchdog)}")
        keeper.end(watchdog)
    return _result(workdir, record, length, range(first_step, step), time.monotonic() - began)


def _open_run(
    workdir: str, config: RunConfig, dataset: Dataset, replicas: Replicas, warm_start: str | None
) -> RunRecord:
    """The record of the run at `workdir`, which must be this one, or a new record, which `_begin` writes."""
    if has_run(workdir):
        record = read_record(workdir)
        check_same_run(record, config, dataset, warm_start)
        replicas.wait_for_all()
        return record
    shards = dataset.shards(Split.TRAIN)
    events = count_events(shards, config.input, config.history_length, config.is_sequential)
    if not events.sum():
        raise ValueError(
            f"no visitor of the training split of {dataset.root} has a second row, and this model learns from the "
            "others of the same visitor; train mf with model.history_length=0, or prepare a longer log"
        )
    record = RunRecord(
        config=config,
        data=dataset.root,
        dataset_checksum=dataset.checksum,
        training_rows=int(events.sum()),
        events=dict(zip(EVENT_KINDS, events.tolist(), strict=True)),
        mean_event_weight=float(events @ np.array(config.loss.event_weights) / events.sum()),
        commit=current_commit(),
        versions=current_versions(),
        dataset_facts=dataset.facts(),
        warm_start={"run": warm_start} if warm_start is not None else None,
    )
    replicas.wait_for_all()  # all have seen that there is no run yet
    return record


def _tell_other_replicas(writers: int, replicas: int) -> None:
    if writers != replicas:
        log.warning(
            "going on with %d replicas, the checkpoint was written by %d: sums are added in another order from here "
            "on, so tables agree with an undisturbed run's to rounding, not to the bit",
            replicas,
            writers,
        )


def _make_validator(config: RunConfig, dataset: Dataset, replicas: Replicas) -> Validator | None:
    """What picks the best checkpoint: next items for models of sequences, which returning visitors would not tell."""
    if config.is_sequential:
        return make_next_item_validator(dataset, replicas)
    return make_validator(config, dataset, replicas)


def _build(
    config: RunConfig, dataset: Dataset, replicas: Replicas, length: Length
) -> tuple[TrainState, Callable[[int], Advance]]:
    """What a run trains, and what goes on with it from a step once it is filled."""
    if config.solver == "als":
        tables = build_tables(config, dataset, replicas)
        return TrainState(tables, [], []), lambda step: _sweeps(config, dataset, tables, replicas)  # noqa: ARG005
    check_batch_divides(config.input.batch_size, replicas.count)
    model = build_training_model(config, dataset, replicas)
    optimizer = _make_dense_optimizer(config, model, replicas)
    run_steps = compile_steps(
        TrainingStep(model, replicas, optimizer=optimizer, jit_compile=config.jit_compile), replicas
    )

    def start(step: int) -> Advance:
        batches = iter(_batches_from(step, config, dataset, length))
        return lambda first, count: run_steps(batches, tf.constant(first, tf.int64), tf.constant(count)).numpy()

    return TrainState(model.tables, model.dense, optimizer.variables if optimizer else []), start


def _batches_from(step: int, config: RunConfig, dataset: Dataset, length: Length) -> tf.data.Dataset:
    return training_batches(
        dataset.shards(Split.TRAIN),
        config.input,
        seed=config.seed,
        epochs=config.epochs,
        history_length=config.history_length,
        is_sequential=config.is_sequential,
        has_times=config.has_times,
        first_epoch=step // length.steps_per_epoch,
        first_step=step % length.steps_per_epoch,
    )


def _sweeps(config: RunConfig, dataset: Dataset, tables: Mapping[str, ShardedTable], replicas: Replicas) -> Advance:
    solver = AlternatingSolver(config.als, _interactions(config, dataset), tables, replicas)
    return lambda first, count: np.array([solver.sweep() for _ in range(count)], np.float32)  # noqa: ARG005


def _interactions(config: RunConfig, dataset: Dataset) -> sp.csr_matrix:
    if not isinstance(config.loss, SampledSoftmaxConfig):
        raise ValueError("least squares take their weights from a sampled softmax's settings")
    return read_interactions(dataset, config.loss.event_weights, config.loss.half_life_days)


def _make_dense_optimizer(
    config: RunConfig, model: TrainingModel, replicas: Replicas
) -> keras.optimizers.Optimizer | None:
    if not model.dense:
        return None
    with replicas.strategy.scope():
        optimizer = dense_optimizer(config.dense_optimizer)
        optimizer.build(model.dense)
    return optimizer


def _begin(
    workdir: str, parts: TrainState, record: RunRecord, dataset: Dataset, replicas: Replicas, length: Length
) -> RunRecord:
    """Fills the tables of a run at its first step, and writes its record, with what it was begun with.

    Not before: what a run cannot begin with, such as another run that is not there, may be corrected.
    """
    config = record.config
    if record.warm_start is not None:
        carried = warm_start_from(record.warm_start["run"], config, dataset, parts)
        record = replace(record, warm_start=carried)
    else:
        for name, table in parts.tables.items():
            initialize(table, name=name, seed=config.seed, stddev=config.model.initial_stddev)
    if replicas.is_chief:
        write_record(record, workdir)
    log.info(
        "beginning: %d rows an epoch, %d steps, tables of %s rows",
        length.rows,
        length.steps,
        ", ".join(f"{table.rows} {name}" for name, table in parts.tables.items()),
    )
    return record


def _until_save(config: RunConfig, step: int) -> int:
    """Steps until the next checkpoint within an epoch."""
    every = config.checkpoint_every_steps
    return every - step % every if every else 2**31 - 1


def _describe_fault(
    config: RunConfig, dataset: Dataset, parts: TrainState, length: Length, step: int, what: str
) -> str:
    """What is wrong at a step, what it was fed, and what to do."""
    told = [f"{what} at step {step}"]
    if config.solver == "sgd":  # a position gives the batch again: nothing is kept of it while all goes well
        batch = next(iter(_batches_from(step, config, dataset, length)))
        told.append(describe_batch(batch, config.loss.event_weights))
        remedy = f"lower optimizer.learning_rate (now {config.optimizer.learning_rate:g}) or "
        if isinstance(config.model, TowersConfig):
            remedy += f"model.dense_learning_rate (now {config.model.dense_learning_rate:g}) or "
    else:
        remedy = f"raise als.l2 (now {config.als.l2:g}) or lower "
    told.append(describe_tables(parts.tables))
    if parts.dense:
        told.append(describe_dense(parts.dense))
    return (
        f"{'; '.join(told)}. The checkpoints before it are kept: {remedy}model.initial_stddev "
        f"(now {config.model.initial_stddev:g}) and train into another --workdir"
    )


def _result(workdir: str, record: RunRecord, length: Length, trained: range, seconds: float) -> dict[str, Any]:
    validations = checkpoint.read_validations(workdir)
    best = checkpoint.best_step(workdir)
    rows = length.rows_before(trained.stop) - length.rows_before(trained.start)
    return {
        "workdir": workdir,
        "name": record.config.name,
        "steps": trained.stop,
        "epochs": trained.stop // length.steps_per_epoch,
        "is_stopped_early": trained.stop < length.steps,
        "training_rows": length.rows,
        "mean_event_weight": record.mean_event_weight,
        "validation_metric": validations.metric or None,
        "best_step": best,
        "best_validation": validations.values[best] if best is not None else None,
        "warm_start": record.warm_start,
        "seconds": round(seconds, 3),
        "examples_per_second": round(rows / seconds, 1),
    }
