"""Refit: trains with the settings of a finished run on the events of all splits.

A refit has no held-out events, so it has neither validation nor evaluation. It trains for as many epochs as the
finished run had completed at its best checkpoint. The refit's report and model card show the evaluation of the
finished run.
"""

import json
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from common import storage
from common.errors import ContractError, explain_damage
from common.settings import apply_settings
from contract.manifest import dataset_checksum, read_manifest
from contract.schema import Split, SplitMethod
from trainer.config.models import CountedConfig, TowersConfig
from trainer.config.run import RunConfig
from trainer.distributed.cluster import is_chief, join_cluster
from trainer.distributed.preemption import StopRequest
from trainer.evaluation.tables import MAIN_METRIC, primary_ranking
from trainer.models.second_stage_file import copy_second_stage
from trainer.models.trained_run import part_directory
from trainer.runs import checkpoint
from trainer.runs.blend_record import OWN_RUN, BlendRecord, read_blend, write_blend
from trainer.runs.layout import RunLayout
from trainer.runs.record import HARMLESS_SETTINGS, RunRecord, has_run, read_record, write_record
from trainer.train import train

log = logging.getLogger(__name__)


def refit(
    run: str,
    *,
    workdir: str,
    data: str | None = None,
    settings: Sequence[str] = (),
    stop: StopRequest | None = None,
) -> dict[str, Any]:
    """Trains a run again on the events of all splits, as a new run; resumes a started refit.

    Args:
      run: directory of the run to refit.
      workdir: directory of the refit.
      data: directory of the dataset of `run`, or of one prepared with `--split none`, for example from a newer log.
        None: the directory that `run` was trained from.
      settings: `HARMLESS_SETTINGS` to change, as `KEY=VALUE`, such as `devices=2`.
      stop: request that stops the refit; None: SIGTERM stops the refit.

    Returns:
      The results of `train`; `refit_of` is the description from `describe_run`.

    Raises:
      ContractError: there is no dataset, or it is damaged.
      ValueError: `run` cannot be refitted, the dataset does not fit `run`, or `workdir` has another run.
      Preempted: a stop was requested, or another worker was lost. Refit again to resume.
      OwnershipError: another process trains in `workdir`.
    """
    owned = storage.own_directory(workdir) if is_chief(join_cluster()) else nullcontext()
    with owned:
        blend = read_blend(run)
        if blend is None:
            return _refit_run(run, workdir, data, settings, stop)
        return _refit_blend(blend, run, workdir, data, settings, stop)


def _refit_blend(
    blend: BlendRecord, run: str, workdir: str, data: str | None, settings: Sequence[str], stop: StopRequest | None
) -> dict[str, Any]:
    """Refits each model of a blend, and copies the weights of the blend.

    Returns the results of the first model, but with the name, directory and total seconds of the blend.
    """
    if has_run(workdir):
        _read_refit(workdir, run)  # refuses another run before anything is trained
    results = {
        part: _refit_run(part_directory(run, part), part_directory(workdir, part), data, settings, stop)
        for part in blend.parts
    }
    result = next(iter(results.values()))
    if OWN_RUN not in blend.parts:
        _write_main_record(run, workdir, part_directory(workdir, blend.parts[0]))
    steps = tuple(checkpoint.choose_step(part_directory(workdir, part)) for part in blend.parts)
    write_blend(replace(blend, steps=steps), workdir)
    return result | {
        "workdir": workdir,
        "name": read_record(workdir).config.name,
        "refit_of": result["refit_of"] | {"run": run},
        "seconds": round(sum(part["seconds"] for part in results.values()), 3),
    }


def _refit_run(
    run: str, workdir: str, data: str | None, settings: Sequence[str], stop: StopRequest | None
) -> dict[str, Any]:
    """Refits the model of one run; copies its second stage, if any, without training it again."""
    if has_run(workdir):
        record = _read_refit(workdir, run)
        config, origin = record.config, dict(record.refit_of or {})
    else:
        record = read_record(run)
        _check_dataset(run, record, data or record.data)
        origin = describe_run(run, record)
        config = best_settings(record.config, origin["epochs"])
    log.info("refit of %s on all events; epochs: %d", run, config.num_epochs)
    result = train(
        _apply_harmless(config, settings),
        data=data or record.data,
        workdir=workdir,
        warm_start=record.warm_start["run"] if record.warm_start else None,
        refit_of=origin,
        stop=stop,
    )
    # a new second stage would need events that the refit was not trained on, and there are none
    copy_second_stage(run, workdir, checkpoint.choose_step(workdir))
    return result


def _write_main_record(run: str, workdir: str, part: str) -> None:
    """Writes the record of a refitted blend that has no model of its own.

    It is a copy of the record of `part`, with the name and the evaluations of `run`.
    """
    record, name = read_record(part), read_record(run).config.name
    origin = dict(record.refit_of or {})
    evaluations = _summarize_evaluations(run, origin["step"])
    refit_of = origin | {"run": run, "evaluations": evaluations}
    write_record(replace(record, config=replace(record.config, name=name), refit_of=refit_of), workdir)


def best_settings(config: RunConfig, epochs: int) -> RunConfig:
    """Returns the settings that repeat the first `epochs` epochs of a run, without validation.

    With `solver=count`, only the last of these epochs is repeated. Blend and second stage are disabled: they need a
    validation split.
    """
    alone = replace(config, patience=None, blend=False, companions=())
    if isinstance(config.model, CountedConfig):
        return replace(alone, model=config.model.with_combination(epochs - 1))
    if isinstance(config.model, TowersConfig):
        alone = replace(alone, model=replace(config.model, second_stage_cases=0))
    return replace(alone, epochs=epochs)


def describe_run(run: str, record: RunRecord) -> dict[str, Any]:
    """Describes the best checkpoint of a run, as JSON values for the record of its refit.

    Returns:
      `run` (the directory), `step` and `epochs` of the checkpoint, `dataset_checksum`, `validation_metric` and
      `best_validation` (name and value; null without validations), and `evaluations`: by split, the `protocol`, the
      `metric`, its `value`, and its confidence limits `low` and `high`.

    Raises:
      ValueError: the run is a refit or has no checkpoint at the end of an epoch.
    """
    if record.refit_of is not None:
        raise ValueError(f"{run} is itself a refit; refit its original run, {record.refit_of['run']}")
    step = checkpoint.choose_step(run)
    epochs = checkpoint.read_state(run, step).epoch
    if epochs == 0:
        raise ValueError(f"{run} has not completed an epoch; resume it until the first epoch is complete")
    validations = checkpoint.read_validations(run)
    if step not in validations.values:
        log.warning(
            "the checkpoint at step %d of %s was not validated, so it may not be the best; the refit trains for %d "
            "epochs, the number that the run had completed at this checkpoint",
            step,
            run,
            epochs,
        )
    evaluations = _summarize_evaluations(run, step)
    if not evaluations:
        log.warning(
            "%s was not evaluated, so the report of the refit will show no metrics; to show them, run `cartwheel "
            "evaluate --workdir %s`, then refit into another --workdir",
            run,
            run,
        )
    return {
        "run": run,
        "step": step,
        "epochs": epochs,
        "dataset_checksum": record.dataset_checksum,
        "validation_metric": validations.metric or None,
        "best_validation": validations.values.get(step),
        "evaluations": evaluations,
    }


def _check_dataset(run: str, record: RunRecord, data: str) -> None:
    """Checks that a dataset is the one that the run was trained on, or has no held-out splits.

    Raises:
      ContractError: there is no dataset.
      ValueError: the dataset does not fit, or the run was already trained on all its events.
    """
    try:
        manifest, checksum = read_manifest(data), dataset_checksum(data)
    except ContractError as error:
        raise ContractError(
            f"{error} (the run at {run} was trained from {record.data}; if the dataset has moved, use --data)"
        ) from error
    is_same = checksum == record.dataset_checksum
    if is_same and set(manifest.splits) == {Split.TRAIN}:
        raise ValueError(
            f"{run} was trained on all events of {data}, which has no held-out split; there is no need to refit"
        )
    if not is_same and manifest.split_method != SplitMethod.NONE:
        raise ValueError(
            f"{run} was trained on the dataset {record.data} (checksum {record.dataset_checksum[:12]}…), but {data} "
            f"has the checksum {checksum[:12]}…; give the original dataset with --data, or a dataset that was prepared "
            "with `--split none`"
        )


def _read_refit(workdir: str, run: str) -> RunRecord:
    record = read_record(workdir)
    if record.refit_of is None or record.refit_of["run"] != run:
        found = f"a refit of {record.refit_of['run']}" if record.refit_of else "a run that is not a refit"
        raise ValueError(f"{workdir} has {found}, not a refit of {run}; give another --workdir")
    return record


def _apply_harmless(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    changed = [setting for setting in settings if setting.partition("=")[0] not in HARMLESS_SETTINGS]
    if changed:
        raise ValueError(
            f"a refit has the settings of the original run, but --set changes {', '.join(changed)}; remove these "
            f"settings (a refit can change only {', '.join(HARMLESS_SETTINGS)})"
        )
    return apply_settings(config, settings)


def _summarize_evaluations(run: str, step: int) -> dict[str, Any]:
    """Returns the main metric of a run's checkpoint for each evaluated split."""
    found = {}
    for split in (Split.TEST, Split.VALIDATION):
        path = RunLayout(run).evaluation(split)
        if not storage.exists(path):
            continue
        with explain_damage(path, "evaluate the run again, or remove the file"):
            evaluation = json.loads(storage.read_bytes(path))
            protocol = evaluation["main_protocol"]
            ranking = primary_ranking(evaluation["protocols"][protocol])
            if evaluation["step"] == step and ranking is not None:
                estimate = next(iter(ranking.values()))[MAIN_METRIC]
                found[str(split)] = {"protocol": protocol, "metric": MAIN_METRIC, **estimate}
    return found
