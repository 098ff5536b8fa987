"""Config and dataset to the model that trains: tables, dense weights and objective."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
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
from trainer.models.matrix_factorization import MatrixFactorization, item_width
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


def build_training_model(config: RunConfig, dataset: Dataset, replicas: Replicas) -> TrainingModel:
    """The model with its tables still zero: `embeddings.initialize` or a checkpoint fills them."""
    optimizer = row_optimizer(config.optimizer)
    widths = _table_widths(config.model)
    rows = {
        "visitor": dataset.manifest.vocabularies[Vocabulary.VISITORS].num_indices,
        "item": dataset.manifest.vocabularies[Vocabulary.ITEMS].num_indices,
    }
    tables = {
        name: ShardedTable(rows=rows[name], dim=width, replicas=replicas, optimizer=optimizer)
        for name, width in widths.items()
    }
    compute_dtype = tf.bfloat16 if config.mixed_precision else tf.float32
    if isinstance(config.model, NeuralConfig):
        return _neural(config, config.model, tables, replicas, compute_dtype)
    if isinstance(config.model, TowersConfig):
        return _towers(config, config.model, dataset, tables, replicas, compute_dtype)
    return _factorization(config, config.model, dataset, tables, replicas, compute_dtype)


def _table_widths(model: ModelConfig) -> dict[str, int]:
    """Columns of each table."""
    if isinstance(model, TowersConfig):
        return {"item": towers.item_width(model)}
    if isinstance(model, MatrixFactorizationConfig):
        return {"visitor": model.dim, "item": item_width(model)}
    return {"visitor": model.dim, "item": model.dim}


def _sampler(config: RunConfig, loss: SampledSoftmaxConfig, dataset: Dataset) -> NegativeSampler:
    return NegativeSampler(
        dataset.item_counts(), num_drawn=loss.num_drawn, drawn_power=loss.drawn_power, seed=config.seed
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
    if isinstance(config.loss, SampledSoftmaxConfig):
        sampler = _sampler(config, config.loss, dataset)
        softmax = SampledSoftmaxObjective(config.loss, tables, replicas.count, factorization, sampler, config.seed)
        return TrainingModel(tables, [], softmax)

    def predict(weights: Sequence[tf.Tensor], visitors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:  # noqa: ARG001
        placed, biases = factorization.place_items(items)
        return factorization.pair_scores(factorization.place_visitors(visitors), placed, biases)

    return TrainingModel(tables, [], SquaredErrorObjective(config.loss, tables, replicas.count, predict))
