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
    """A training run with its dataset and the model of its best checkpoint."""

    record: RunRecord
    """Settings and environment of the run."""
    dataset: Dataset
    """Dataset that the run was trained on."""
    model: ServedModel
    """The model with the weights of the best checkpoint; for a blend, the blend of several models."""
    step: int
    """Step of the best checkpoint; for a blend, the step of its first part."""
    checkpoints: Mapping[str, int] = field(default_factory=dict)
    """Steps of the loaded checkpoints, by the run's directory: this run's or, for a blend, those of its parts."""
    blend: BlendRecord | None = None
    """Parts and weights of the blend; None if the model is not a blend."""


def open_trained_run(workdir: str, data: str | None = None, replicas: Replicas | None = None) -> TrainedRun:
    """Opens a run with its dataset and model.

    Args:
      workdir: directory of the run.
      data: directory of the run's dataset. None: the path of the dataset at the time of training.
      replicas: the replicas of the run, if all its workers make this call together. None: this process works alone.

    Raises:
      ContractError: there is no dataset, or the dataset is damaged.
      ValueError: there is no run, it has no intact checkpoint, or it was trained on another dataset.
    """
    record = read_record(workdir)
    try:
        dataset = open_dataset(data or record.data)
    except ContractError as error:
        hint = (
            "" if data else f" (the run at {workdir} was trained from this path; if the dataset has moved, use --data)"
        )
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
    """Returns the directory of a part of a blend.

    Args:
      workdir: directory of the blend's run.
      part: an entry of `BlendRecord.parts`: a path relative to `workdir`, or OWN_RUN for the run itself.
    """
    return workdir if part == OWN_RUN else join(workdir, part)


def load_part(workdir: str, step: int, dataset: Dataset) -> Part:
    """Loads the model of a run's checkpoint as a part of a blend."""
    record = read_record(workdir)
    return Part(load_inference_model(workdir, record, step, dataset), record.config.model.has_sums)


def build_blend(parts: list[Part], blend: BlendRecord, dataset: Dataset) -> BlendInference:
    """Builds a blend of loaded models.

    Args:
      parts: the models, in the order of `blend.parts`.
      blend: the weights of the models.
      dataset: supplies the popularity and the trend of the items.
    """
    return BlendInference(
        parts,
        weights=blend.weights,
        item_counts=dataset.item_counts,
        trends=latest_trends(read_item_events(dataset), half_lives_of(blend.weights)),
    )


def load_inference_model(workdir: str, record: RunRecord, step: int, dataset: Dataset) -> InferenceModel:
    """Loads a run's checkpoint, with the second stage if there is one.

    Raises:
      ValueError: the run was trained on another dataset, or the checkpoint belongs to another run.
    """
    if record.dataset_checksum != dataset.checksum:
        raise ValueError(
            f"the run at {workdir} was trained on the dataset {record.data} (checksum "
            f"{record.dataset_checksum[:12]}…), but {dataset.root} has the checksum {dataset.checksum[:12]}…; give the "
            "original dataset with --data"
        )
    check_checkpoint(workdir, record, read_state(workdir, step).run)
    model = build_inference_model(record.config, dataset)
    with read_weights_of_step(workdir, step).kept_open() as weights:
        model.fill(weights)
    return with_second_stage(model, workdir, step, dataset.num_items)
