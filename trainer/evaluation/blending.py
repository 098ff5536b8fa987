"""Blends trained runs, as the last stage of training: validation chooses weights for models, popularity and trend."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from common import storage
from trainer.data.dataset import Dataset
from trainer.data.trend import read_item_events
from trainer.distributed.replicas import Replicas
from trainer.evaluation.blend_weights import OutOfTimeError, fit_blend, ranking_cases
from trainer.models.trained_run import load_part, part_directory
from trainer.runs.blend_record import BlendRecord, BlendWeights, read_blend, write_blend
from trainer.runs.checkpoint import choose_step
from trainer.runs.layout import RunLayout
from trainer.runs.record import read_record

log = logging.getLogger(__name__)


def blend_runs(
    workdir: str,
    parts: Sequence[str],
    dataset: Dataset,
    replicas: Replicas,
    *,
    kinds: Sequence[str] = (),
    on_chunk: Callable[[], None] = lambda: None,
    deadline: float | None = None,
    is_forced: bool = False,
) -> BlendRecord:
    """Blends the best checkpoints of several runs, and writes the blend to the run at `workdir`.

    Drops the parts with the weight 0 in all rankings, but keeps at least one part. If the run already has a blend of
    some of these checkpoints, returns it unchanged.

    Args:
      workdir: directory of the run that the blend belongs to.
      parts: directories of the runs to blend, relative to `workdir`; `.` is the run at `workdir`.
      replicas: all replicas; each worker ranks a part of the cases, and the chief writes the blend.
      kinds: event kinds that make an item relevant; empty: all.
      on_chunk: called before each chunk of validation cases.
      deadline: see `fit_blend`.
      is_forced: see `fit_blend`.

    Raises:
      OutOfTimeError: the weights could not be chosen by the deadline.
    """
    steps = [choose_step(part_directory(workdir, part), replicas=replicas) for part in parts]
    existing = read_blend(workdir)
    if existing is not None and set(zip(existing.parts, existing.steps, strict=True)) <= set(
        zip(parts, steps, strict=True)
    ):
        return existing
    if deadline is not None and not is_forced and time.monotonic() > deadline:
        raise OutOfTimeError("no time is left")
    models = [load_part(part_directory(workdir, part), step, dataset) for part, step in zip(parts, steps, strict=True)]
    fit = fit_blend(
        models,
        ranking_cases(dataset, kinds, held_out_seed=_held_out_seed(workdir, parts)),
        read_item_events(dataset),
        dataset.item_counts,
        replicas=replicas,
        on_chunk=on_chunk,
        deadline=deadline,
        is_forced=is_forced,
    )
    kept = [
        column
        for column in range(len(parts))
        if any(weights.parts[column] for weights in fit.weights.values()) or len(parts) == 1
    ] or [0]
    record = BlendRecord(
        parts=tuple(parts[column] for column in kept),
        steps=tuple(steps[column] for column in kept),
        weights={ranking: _only(weights, kept) for ranking, weights in fit.weights.items()},
        validation={name: _name_parts(figures, parts) for name, figures in fit.validation.items()},
    )
    if replicas.is_chief:
        write_blend(record, workdir)
    replicas.wait_for_all()
    for name, figures in record.validation.items():
        if figures is not None:
            alone = ", ".join(f"{part} {value:.4f}" for part, value in figures["parts"].items())
            log.info("blend for %s: validation ndcg@20 %.4f (each model alone: %s)", name, figures["blend"], alone)
    return record


def _held_out_seed(workdir: str, parts: Sequence[str]) -> int | None:
    """Returns the seed of the first run in `parts` with a second stage, for `ranking_cases`; None: no run has one."""
    directories = [part_directory(workdir, part) for part in parts]
    staged = [directory for directory in directories if storage.exists(RunLayout(directory).second_stage)]
    return read_record(staged[0]).config.seed if staged else None


def _name_parts(figures: Mapping[str, Any] | None, parts: Sequence[str]) -> dict[str, Any] | None:
    return None if figures is None else {**figures, "parts": dict(zip(parts, figures["parts"], strict=True))}


def _only(weights: BlendWeights, kept: Sequence[int]) -> BlendWeights:
    return replace(weights, parts=tuple(weights.parts[column] for column in kept))
