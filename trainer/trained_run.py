"""A finished run, opened: what evaluation, export and recommendation start from."""

from dataclasses import dataclass

from common.errors import ContractError
from trainer.data.dataset import Dataset, open_dataset
from trainer.distributed.replicas import Replicas
from trainer.models.build import build_inference_model
from trainer.models.interface import InferenceModel
from trainer.runs.checkpoint import choose_step, read_weights_of_step
from trainer.runs.record import RunRecord, read_record


@dataclass(frozen=True)
class TrainedRun:
    """What a run was, the dataset it was trained on, its best model, and the step of the checkpoint that this is."""

    record: RunRecord
    dataset: Dataset
    model: InferenceModel
    step: int


def open_trained_run(workdir: str, data: str | None = None, replicas: Replicas | None = None) -> TrainedRun:
    """Opens the run at `workdir`.

    Args:
      workdir: directory of the run.
      data: where its dataset lies now; by default where it lay when the run began.
      replicas: whose workers open it together, and get the same model.

    Raises:
      ContractError: there is no dataset, or it is damaged.
      ValueError: there is no run or no checkpoint, or it was trained on another dataset.
    """
    record = read_record(workdir)
    try:
        dataset = open_dataset(data or record.data)
    except ContractError as error:
        hint = (
            "" if data else f" (that is where the run at {workdir} was trained: if it has moved, say where by --data)"
        )
        raise ContractError(f"{error}{hint}") from error
    step = choose_step(workdir, replicas=replicas)
    return TrainedRun(record, dataset, load_inference_model(workdir, record, step, dataset), step)


def load_inference_model(workdir: str, record: RunRecord, step: int, dataset: Dataset) -> InferenceModel:
    """The model of the run at `workdir`, from its checkpoint of `step`, which is whole.

    Raises:
      ValueError: it was trained on another dataset.
    """
    if record.dataset_checksum != dataset.checksum:
        raise ValueError(
            f"the run at {workdir} was trained on the dataset {record.dataset_checksum[:12]}…, then at {record.data}; "
            f"{dataset.root} holds {dataset.checksum[:12]}…, whose indices mean other visitors and items"
        )
    model = build_inference_model(record.config, dataset)
    model.fill(read_weights_of_step(workdir, step))
    return model
