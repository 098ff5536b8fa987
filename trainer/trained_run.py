"""A finished run, opened: what evaluation, export and recommendation start from."""

from dataclasses import dataclass

from contract.errors import ContractError
from trainer.checkpoint import choose_step
from trainer.dataset import Dataset, open_dataset
from trainer.distribution import Replicas
from trainer.models.interface import InferenceModel
from trainer.models.loading import load_inference_model
from trainer.run_record import RunRecord, read_record


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
