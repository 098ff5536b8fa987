"""A run's checkpoint as a model that ranks."""

from trainer.checkpoint import read_weights_of_step
from trainer.dataset import Dataset
from trainer.models.build import build_inference_model
from trainer.models.interface import InferenceModel
from trainer.run_record import RunRecord


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
