"""A run's best checkpoint as a model that ranks."""

from trainer.checkpoint import read_weights
from trainer.dataset import Dataset
from trainer.models.build import build_inference_model
from trainer.models.interface import InferenceModel
from trainer.run_record import read_record


def load_inference_model(workdir: str, dataset: Dataset) -> InferenceModel:
    """The model of the run at `workdir`, from its best checkpoint.

    Raises:
      ValueError: there is no run or no checkpoint, or it was trained on another dataset.
    """
    record = read_record(workdir)
    if record.dataset_checksum != dataset.checksum:
        raise ValueError(
            f"the run at {workdir} was trained on the dataset {record.dataset_checksum[:12]}…, then at {record.data}; "
            f"{dataset.root} holds {dataset.checksum[:12]}…, whose indices mean other visitors and items"
        )
    return build_inference_model(record.config, read_weights(workdir), dataset)
