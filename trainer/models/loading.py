"""A run's best checkpoint as a model that ranks."""

from trainer.checkpoint import Weights, read_weights
from trainer.config import NeuralConfig, RunConfig, SampledSoftmaxConfig, TowersConfig
from trainer.dataset import Dataset
from trainer.models.interface import InferenceModel
from trainer.models.matrix_factorization import MatrixFactorizationInference
from trainer.models.neural import NeuralInference
from trainer.models.towers import TowersInference
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


def build_inference_model(config: RunConfig, weights: Weights, dataset: Dataset) -> InferenceModel:
    """The model that ranks with trained weights."""
    if isinstance(config.model, NeuralConfig):
        return NeuralInference(
            config.model,
            visitor_table=weights.tables["visitor"],
            item_table=weights.tables["item"],
            dense=weights.dense,
            num_items=dataset.num_items,
        )
    if isinstance(config.model, TowersConfig):
        return TowersInference(
            config.model,
            item_table=weights.tables["item"],
            dense=weights.dense,
            num_items=dataset.num_items,
            item_counts=dataset.item_counts(),
        )
    # a softmax never trains the buckets' items, and ranks unknown visitors by what is popular; a squared error trains
    # all rows, and its scores are weights of events, which popularity is not
    ranks_by_popularity = isinstance(config.loss, SampledSoftmaxConfig)
    return MatrixFactorizationInference(
        config.model,
        visitor_table=weights.tables["visitor"],
        item_table=weights.tables["item"],
        num_visitors=dataset.num_visitors,
        num_items=dataset.num_items,
        item_counts=dataset.item_counts() if ranks_by_popularity else None,
    )
