"""A run's best checkpoint as a model that ranks."""

import numpy as np

from contract.schema import EVENT_KINDS
from trainer.checkpoint import Weights, read_weights
from trainer.config import NeuralConfig, RunConfig, SampledSoftmaxConfig, TowersConfig
from trainer.dataset import Dataset
from trainer.interactions import read_interactions
from trainer.models.contents import read_contents
from trainer.models.interface import InferenceModel
from trainer.models.matrix_factorization import MatrixFactorizationInference, sum_items
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
    model = config.scored_model
    if isinstance(model, NeuralConfig):
        return NeuralInference(
            model,
            visitor_table=weights.tables["visitor"],
            item_table=weights.tables["item"],
            dense=weights.dense,
            num_items=dataset.num_items,
        )
    if isinstance(model, TowersConfig):
        return _towers(model, weights, dataset)
    # a softmax never trains the buckets' items, and ranks unknown visitors by what is popular; a squared error trains
    # all rows, and its scores are weights of events, which popularity is not
    ranks_by_popularity = isinstance(config.loss, SampledSoftmaxConfig)
    visitors = weights.tables.get("visitor")
    if visitors is None:
        every_kind = [1.0] * len(EVENT_KINDS)
        visitors = sum_items(model, weights.tables["item"], read_interactions(dataset, every_kind))
    return MatrixFactorizationInference(
        model,
        visitor_table=visitors,
        dense=weights.dense,
        item_table=weights.tables["item"],
        num_visitors=dataset.num_visitors,
        num_items=dataset.num_items,
        item_counts=dataset.item_counts() if ranks_by_popularity else None,
    )


def _towers(config: TowersConfig, weights: Weights, dataset: Dataset) -> TowersInference:
    """Towers whose items are all put together: own row, if training knows the item, plus content."""
    own, contents = weights.tables["item"][:-1], read_contents(dataset)
    items = np.zeros((dataset.num_items, own.shape[1]), np.float32)
    if "feature" in weights.tables:
        items += contents.rows(weights.tables["feature"])
    items[: len(own)] += own
    has_content = np.any(contents.weight > 0, axis=1)
    # of the others nothing is known: as unpopular as the least popular item
    items[len(own) :][~has_content[len(own) :], -1] = own[:, -1].min()
    visitors = weights.tables.get("visitor", np.zeros((1, config.dim), np.float32))[:-1]
    return TowersInference(
        config, items=items, visitors=visitors, dense=weights.dense, item_counts=dataset.item_counts()
    )
