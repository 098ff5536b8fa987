"""Opens a trained run for evaluation, export and recommendation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.errors import ContractError
from common.storage.paths import join
from trainer.data.dataset import Dataset, open_dataset
from trainer.data.trend import latest_trends, read_item_events
from trainer.distributed.replicas import Replicas
from trainer.models.blend import BlendInference, Part
from trainer.models.build import build_inference_model
from trainer.models.interface import InferenceModel, ServedModel
from trainer.models.second_stage_file import with_second_stage
from trainer.runs.blend_record import OWN_RUN, BlendRecord, half_lives_of, read_blend
from trainer.runs.checkpoint import choose_step, read_state, read_weights_of_step
from trainer.runs.record import RunRecord, check_checkpoint, read_record, training_view


@dataclass(frozen=True)
class TrainedRun:
    """A run with its dataset and its best model."""

    record: RunRecord
    """Settings and environment of the run."""
    dataset: Dataset
    """Dataset that the run was trained on."""
    model: ServedModel
    """Model with the weights of the best checkpoint, or a blend of several models."""
    step: int
    """Step of the best checkpoint; for a blend, the step of its first part."""
    checkpoints: Mapping[str, int] = field(default_factory=dict)
    """Step of the checkpoint of each part of the blend, or of the run itself, by the directory of the run."""
    blend: BlendRecord | None = None
    """The parts and weights of the blend; None: the model is not a blend."""


def open_trained_run(workdir: str, data: str | None = None, replicas: Replicas | None = None) -> TrainedRun:
    """Opens a run.

    Args:
      workdir: directory of the run.
      data: directory of the run's dataset; by default the path that the run was trained from.
      replicas: all workers open the run together and choose the same checkpoint.

    Raises:
      ContractError: there is no dataset, or the dataset is damaged.
      ValueError: there is no run or no checkpoint, or the run was trained on another dataset.
    """
    record = read_record(workdir)
    try:
        dataset = open_dataset(data or record.data)
    except ContractError as error:
        hint = "" if data else f" (the run at {workdir} was trained from this path; if it has moved, use --data)"
        raise ContractError(f"{error}{hint}") from error
    dataset, blend = training_view(record, dataset), read_blend(workdir)
    if blend is None:
        step = choose_step(workdir, replicas=replicas)
        return TrainedRun(record, dataset, load_inference_model(workdir, record, step, dataset), step, {workdir: step})
    checkpoints = {part_directory(workdir, part): step for part, step in zip(blend.parts, blend.steps, strict=True)}
    parts = [load_part(directory, step, dataset) for directory, step in checkpoints.items()]
    model = build_blend(parts, blend, dataset)
    return TrainedRun(record, dataset, model, blend.steps[0], checkpoints, blend)


def part_directory(workdir: str, part: str) -> str:
    """Returns the directory of `part`, one of the runs in the blend of the run at `workdir`."""
    return workdir if part == OWN_RUN else join(workdir, part)


def load_part(workdir: str, step: int, dataset: Dataset) -> Part:
    """Loads a run as a part of a blend."""
    record = read_record(workdir)
    return Part(load_inference_model(workdir, record, step, dataset), record.config.model.has_sums)


def build_blend(parts: list[Part], blend: BlendRecord, dataset: Dataset) -> BlendInference:
    """Builds a blend, with the trends right after the last event of the dataset."""
    return BlendInference(
        parts,
        weights=blend.weights,
        item_counts=dataset.item_counts,
        trends=latest_trends(read_item_events(dataset), half_lives_of(blend.weights)),
    )


def load_inference_model(workdir: str, record: RunRecord, step: int, dataset: Dataset) -> InferenceModel:
    """Loads the model of a run from its complete checkpoint of `step`.

    Raises:
      ValueError: the run was trained on another dataset, or the checkpoint belongs to another run.
    """
    if record.dataset_checksum != dataset.checksum:
        raise ValueError(
            f"the run at {workdir} was trained on the dataset {record.dataset_checksum[:12]}… (its path was "
            f"{record.data}), but {dataset.root} is the dataset {dataset.checksum[:12]}…, with other visitor and item "
            "indices; give the original dataset with --data"
        )
    check_checkpoint(workdir, record, read_state(workdir, step).run)
    model = build_inference_model(record.config, dataset)
    model.fill(read_weights_of_step(workdir, step))
    return with_second_stage(model, workdir, step, dataset.num_items)
