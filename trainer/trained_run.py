"""Opens a trained run for evaluation, export and recommendation."""

from dataclasses import dataclass

from common.errors import ContractError
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.replicas import Replicas
from trainer.models.build import build_inference_model
from trainer.models.interface import InferenceModel
from trainer.models.second_stage_file import with_second_stage
from trainer.runs.checkpoint import choose_step, read_weights_of_step
from trainer.runs.record import RunRecord, read_record


@dataclass(frozen=True)
class TrainedRun:
    """A run with its dataset and its best model."""

    record: RunRecord
    """Settings and environment of the run."""
    dataset: Dataset
    """Dataset that the run was trained on."""
    model: InferenceModel
    """Model with the weights of the best checkpoint."""
    step: int
    """Step of this checkpoint."""


def open_trained_run(workdir: str, data: str | None = None, replicas: Replicas | None = None) -> TrainedRun:
    """Opens a run.

    Args:
      workdir: directory of the run.
      data: directory of the run's dataset; by default the path that the run was trained from.
      replicas: their workers open the run together and get the same model.

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
    step = choose_step(workdir, replicas=replicas)
    return TrainedRun(record, dataset, load_inference_model(workdir, record, step, dataset), step)


def load_inference_model(workdir: str, record: RunRecord, step: int, dataset: Dataset) -> InferenceModel:
    """Loads the model of a run from its complete checkpoint of `step`.

    Raises:
      ValueError: the run was trained on another dataset.
    """
    if record.dataset_checksum != dataset.checksum:
        raise ValueError(
            f"the run at {workdir} was trained on the dataset {record.dataset_checksum[:12]}… (path then: "
            f"{record.data}), but {dataset.root} is the dataset {dataset.checksum[:12]}…, with other visitor and item "
            "indices; give the original dataset with --data"
        )
    model = build_inference_model(record.config, dataset)
    model.fill(read_weights_of_step(workdir, step))
    return with_second_stage(model, workdir, step, dataset.num_items)
