"""Config and dataset to the model that trains: tables, dense weights and objective."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from contract.schema import Vocabulary
from trainer.config import (
    MatrixFactorizationConfig,
    ModelConfig,
    NeuralConfig,
    RunConfig,
    SampledSoftmaxConfig,
    TowersConfig,
)
from trainer.dataset import Dataset
from trainer.distribution import Replicas
from trainer.embeddings import ShardedTable
from trainer.models import neural, towers
from trainer.models.contents import read_contents
from trainer.models.matrix_factorization import MatrixFactorization, item_width, make_dense_variables
from trainer.models.next_item import NextItemObjective
from trainer.models.objectives import Objective, SampledSoftmaxObjective, SquaredErrorObjective
from trainer.negative_sampling import NegativeSampler
from trainer.optimizers import row_optimizer


@dataclass(frozen=True)
class TrainingModel:
    """What a run trains: tables by name, dense weights, and the objective over both."""

    tables: dict[str, ShardedTable]
    dense: list[keras.Variable]
    objective: Objective


def build_tables(config: RunConfig, dataset: Dataset, replicas: Replicas) -> dict[str, ShardedTable]:
    """The model's tables by name, still zero: `embeddings.initialize` or a checkpoint fills them."""
    optimizer = row_optimizer(config.optimizer) if config.solver == "sgd" else None
    return {
        name: ShardedTable(rows=rows, dim=width, replicas=replicas, optimizer=optimizer)
        for name, (rows, width) in _table_shapes(config.scored_model, dataset).items()
    }


def build_training_model(config: RunConfig, dataset: Dataset, replicas: Replicas) -> TrainingModel:
    """The model that gradient steps move."""
    tables = build_tables(config, dataset, replicas)
    compute_dtype = tf.bfloat16 if config.mixed_precision else tf.float32
    if isinstance(config.model, NeuralConfig):
        return _neural(config, config.model, tables, replicas, compute_dtype)
    if isinstance(config.model, TowersConfig):
        return _towers(config, config.model, dataset, tables, replicas, compute_dtype)
    return _factorization(config, config.model, dataset, tables, replicas, compute_dtype)


def _table_shapes(model: ModelConfig, dataset: Dataset) -> dict[str, tuple[int, int]]:
    """Rows and columns of each table."""
    if isinstance(model, TowersConfig):
        return _towers_shapes(model, dataset)
    visitors, items = (
        dataset.manifest.vocabularies[name].num_indices for name in (Vocabulary.VISITORS, Vocabulary.ITEMS)
    )
    if isinstance(model, NeuralConfig):
        return {"visitor": (visitors, model.dim), "item": (items, model.dim)}
    of_visitors = {} if model.history_length else {"visitor": (visitors, model.dim)}
    return {**of_visitors, "item": (items, item_width(model))}


def _towers_shapes(model: TowersConfig, dataset: Dataset) -> dict[str, tuple[int, int]]:
    """As `NextItemObjective` reads them: the last row of items and of visitors is that of all others."""
    contents, width = read_contents(dataset), towers.item_width(model)
    shapes = {"item": (dataset.num_trained_items() + 1, width)}
    if contents.width:
        shapes["feature"] = (contents.num_features, width)
    if model.visitor_min_events is not None:
        num_frequent = np.count_nonzero(dataset.visitor_counts() >= model.visitor_min_events)
        shapes["visitor"] = (int(num_frequent) + 1, model.dim)
    return shapes


def _sampler(config: RunConfig, loss: SampledSoftmaxConfig, dataset: Dataset) -> NegativeSampler:
    return NegativeSampler(
        dataset.item_counts()[: dataset.num_trained_items()],
        num_drawn=loss.num_drawn,
        drawn_power=loss.drawn_power,
        seed=config.seed,
        uniform_share=loss.uniform_share,
        has_batch_items=loss.has_batch_items,
    )


def _towers(
    config: RunConfig,
    model: TowersConfig,
    dataset: Dataset,
    tables: dict[str, ShardedTable],
    replicas: Replicas,
    compute_dtype: tf.DType,
) -> TrainingModel:
    with replicas.strategy.scope():
        dense = towers.make_dense_variables(model, config.seed)
    if not isinstance(config.loss, SampledSoftmaxConfig):
        raise ValueError("the towers have no objective but the softmax")
    objective = NextItemObjective(
        config.loss,
        tables,
        replicas.count,
        towers.Towers(model, compute_dtype),
        _sampler(config, config.loss, dataset),
        read_contents(dataset),
        config.seed,
    )
    return TrainingModel(tables, dense, objective)


def _neural(
    config: RunConfig,
    model: NeuralConfig,
    tables: dict[str, ShardedTable],
    replicas: Replicas,
    compute_dtype: tf.DType,
) -> TrainingModel:
    with replicas.strategy.scope():
        dense = neural.make_dense_variables(model, config.seed)

    def predict(weights: Sequence[tf.Tensor], visitors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return neural.predict(weights, visitors, items, compute_dtype)

    if isinstance(config.loss, SampledSoftmaxConfig):
        raise ValueError("the neural model has no softmax objective")
    return TrainingModel(tables, dense, SquaredErrorObjective(config.loss, tables, replicas.count, predict))


def _factorization(
    config: RunConfig,
    model: MatrixFactorizationConfig,
    dataset: Dataset,
    tables: dict[str, ShardedTable],
    replicas: Replicas,
    compute_dtype: tf.DType,
) -> TrainingModel:
    factorization = MatrixFactorization(model, compute_dtype)
    with replicas.strategy.scope():
        dense = make_dense_variables(model)
    if isinstance(config.loss, SampledSoftmaxConfig):
        sampler = _sampler(config, config.loss, dataset)
        softmax = SampledSoftmaxObjective(config.loss, tables, replicas.count, factorization, sampler, config.seed)
        return TrainingModel(tables, dense, softmax)

    def predict(weights: Sequence[tf.Tensor], visitors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        placed, biases = factorization.place_items(items)
        return factorization.pair_scores(factorization.place_visitors(visitors, weights), placed, biases)

    return TrainingModel(tables, dense, SquaredErrorObjective(config.loss, tables, replicas.count, predict))
