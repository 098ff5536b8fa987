"""The neural network of the original notebook (docs/experiments.md): dense ReLU layers and a ReLU output.

The input is the concatenation of a visitor vector and an item vector.

Shapes: B rows, I items of the vocabulary, D columns of a vector, U units of the first dense layer.
"""

import itertools
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from common.report.diagram_box import DiagramBox
from contract.schema import Vocabulary
from trainer.config.losses import SquaredErrorConfig
from trainer.config.models import NeuralConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.replicas import Replicas
from trainer.models.description import PAIR_INPUTS, SQUARED_ERROR_LIMITS, ModelDescription, TableShapes, table_box
from trainer.models.interface import Queries
from trainer.models.objectives import SquaredErrorObjective, Tables, TrainingModel, compute_dtype
from trainer.models.similarity import cosines
from trainer.models.table_rows import TableRows, vocabulary_rows
from trainer.models.table_variables import HOST, fill, fill_rows, make_variable
from trainer.runs.checkpoint import Weights


def table_rows(model: NeuralConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies a visitor table and an item table with D columns; see `models.build.ModelFile`."""
    return {
        "visitor": vocabulary_rows(dataset, Vocabulary.VISITORS, model.dim),
        "item": vocabulary_rows(dataset, Vocabulary.ITEMS, model.dim),
    }


def training_model(
    model: NeuralConfig, config: RunConfig, _: Dataset, tables: Tables, replicas: Replicas
) -> TrainingModel:
    """Builds the network with the squared-error objective."""
    if not isinstance(config.loss, SquaredErrorConfig):
        raise ValueError(
            f"model.kind={model.kind} cannot be trained with loss.kind={config.loss.kind}; use loss.kind=squared_error"
        )
    with replicas.strategy.scope():
        dense = make_dense_variables(model, config.seed)

    def predict_pairs(weights: Sequence[tf.Tensor], visitors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return predict(weights, visitors, items, compute_dtype(config))

    return TrainingModel(tables, dense, SquaredErrorObjective(config.loss, tables, replicas, predict_pairs))


def inference_model(model: NeuralConfig, _: RunConfig, dataset: Dataset) -> "NeuralInference":
    """Builds the model that ranks; `fill` sets its weights later."""
    rows = {name: table.num_rows for name, table in table_rows(model, dataset).items()}
    return NeuralInference(model, visitor_rows=rows["visitor"], item_rows=rows["item"], num_items=dataset.num_items)


def describe(_: RunConfig, *, has_content: bool) -> ModelDescription:  # noqa: ARG001 (content is not used)
    """Describes the model for its model card; see `models.build.DescribedModelFile`."""
    principle = "each visitor and item has a vector, and dense layers turn the two into one number"
    return ModelDescription(principle, SQUARED_ERROR_LIMITS)


def diagram(model: NeuralConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `models.build.DescribedModelFile`."""
    boxes = [
        *PAIR_INPUTS,
        table_box("visitor", tables, "visitors"),
        table_box("item", tables, "items"),
        DiagramBox("concatenation", f"[B, {2 * model.dim}]", 2, ("visitor table", "item table")),
    ]
    sizes = [2 * model.dim, *model.hidden, 1]
    for layer, (inputs, units) in enumerate(itertools.pairwise(sizes)):
        name = f"dense {layer + 1}, relu"
        boxes.append(DiagramBox(name, f"{inputs} × {units}", 3 + layer, (boxes[-1].name,), is_trained=True))
    return [*boxes, DiagramBox("event weight", "[B]", 2 + len(sizes), (boxes[-1].name,))]


def make_dense_variables(config: NeuralConfig, seed: int) -> list[keras.Variable]:
    """Creates kernel and bias of each layer, initialised as in `keras.layers.Dense`.

    Must be called in the strategy's scope if the variables are to be trained.
    """
    sizes = [2 * config.dim, *config.hidden, 1]
    variables = []
    for layer, shape in enumerate(itertools.pairwise(sizes)):
        kernel = keras.initializers.GlorotUniform(seed=seed + layer)(shape)
        variables.append(keras.Variable(kernel, name=f"kernel_{layer}"))
        variables.append(keras.Variable(np.zeros(shape[1:], np.float32), name=f"bias_{layer}"))
    return variables


def predict(
    dense: Sequence[tf.Tensor], visitors: tf.Tensor, items: tf.Tensor, compute_dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """[B] float32: scores of (visitor, item) pairs.

    Args:
      dense: kernel and bias of each layer, in the order of the layers.
      visitors: [B, D] visitor vectors.
      items: [B, D] item vectors.
      compute_dtype: data type of the matrix products.
    """
    hidden = tf.cast(tf.concat([visitors, items], axis=1), compute_dtype)
    for kernel, bias in zip(dense[::2], dense[1::2], strict=True):
        hidden = tf.nn.relu(tf.matmul(hidden, tf.cast(kernel, compute_dtype)) + tf.cast(bias, compute_dtype))
    return tf.cast(hidden[:, 0], tf.float32)


class NeuralInference(tf.Module):
    """A trained network; see `models.interface.InferenceModel`.

    Unknown visitors and items are scored by the rows of their out-of-vocabulary buckets.
    """

    def __init__(self, config: NeuralConfig, *, visitor_rows: int, item_rows: int, num_items: int) -> None:
        """Creates the model; `fill` sets its weights.

        Args:
          visitor_rows: number of rows of the visitor table, including out-of-vocabulary buckets.
          item_rows: number of rows of the item table, including out-of-vocabulary buckets.
        """
        super().__init__(name="neural")
        self._dim = config.dim
        self._num_items = num_items
        with tf.device(HOST):
            self._visitors = make_variable((visitor_rows, config.dim), "visitors")
        self._items = make_variable((item_rows, config.dim), "items")
        self._dense = [
            make_variable(tuple(variable.shape), variable.name) for variable in make_dense_variables(config, seed=0)
        ]

    def fill(self, weights: Weights) -> None:
        needed = weights.needed_rows(self._visitors.shape[0])
        fill_rows(self._visitors, weights.tables["visitor"].__getitem__, needed)
        fill(self._items, weights.tables["item"].__getitem__)
        for variable, weight in zip(self._dense, weights.dense, strict=True):
            variable.assign(weight)

    def catalogue_scores(self, queries: Queries) -> tf.Tensor:
        kernel, bias = self._dense[:2]
        # the first layer is linear in each half of its input, so it takes B + I products instead of B × I
        visitor_part = tf.matmul(self._visitor_rows(queries.visitor), kernel[: self._dim]) + bias
        item_part = tf.matmul(self._items[: self._num_items], kernel[self._dim :])

        def score_one(part: tf.Tensor) -> tf.Tensor:
            hidden = tf.nn.relu(part + item_part)
            for weight, offset in zip(self._dense[2::2], self._dense[3::2], strict=True):
                hidden = tf.nn.relu(tf.matmul(hidden, weight) + offset)
            return hidden[:, 0]

        # one visitor at a time, because [B, I, U] would not fit in memory for a large catalogue
        return tf.map_fn(score_one, visitor_part, parallel_iterations=1)

    def pair_scores(self, visitor: tf.Tensor, item: tf.Tensor) -> tf.Tensor:
        items = tf.gather(self._items, tf.minimum(item, self._items.shape[0] - 1))
        return predict(self._dense, self._visitor_rows(visitor), items)

    def item_similarities(self, item: tf.Tensor) -> tf.Tensor:
        return cosines(self._items[: self._num_items], item)

    def _visitor_rows(self, visitor: tf.Tensor) -> tf.Tensor:
        return tf.gather(self._visitors, tf.minimum(visitor, self._visitors.shape[0] - 1))
