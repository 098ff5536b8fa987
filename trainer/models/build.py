"""Builds models for training and for inference; calls the Python module that implements the model."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import scipy.sparse as sp

from common.report.diagram_box import DiagramBox
from trainer.config.models import CountedConfig, ModelConfig
from trainer.config.run import RunConfig
from trainer.data.dataset import Dataset
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import Replicas
from trainer.models import ease, matrix_factorization, neural, session_knn, towers, walk
from trainer.models.description import ModelDescription, TableShapes, table_box
from trainer.models.interface import InferenceModel
from trainer.models.objectives import Tables, TrainingModel
from trainer.models.table_rows import RowCounter, TableRows


class ModelFile(Protocol):
    """The functions that every model's Python module defines; their argument `model` is the model's config."""

    def table_rows(self, model: Any, dataset: Dataset, /) -> dict[str, TableRows]:
        """Specifies the rows of each of the model's tables, by name."""

    def inference_model(self, model: Any, config: RunConfig, dataset: Dataset, /) -> InferenceModel:
        """Builds the model that ranks; `fill` sets its weights later."""


@runtime_checkable
class GradientModelFile(ModelFile, Protocol):
    """The Python module of a model that gradient steps can train."""

    def training_model(
        self, model: Any, config: RunConfig, dataset: Dataset, tables: Tables, replicas: Replicas, /
    ) -> TrainingModel:
        """Builds the trainable model, which consists of the embedding `tables`, dense weights and an objective."""


@runtime_checkable
class CountedModelFile(ModelFile, Protocol):
    """The Python module of a model that `solver=count` computes from the training timelines."""

    def row_counter(self, model: Any, baskets: sp.csr_matrix, /) -> RowCounter:
        """Returns a function that computes a replica's table rows for `solver=count`.

        The function takes three numbers: an index in `CountedConfig.combinations`, which selects the exponents to use,
        the index of the replica, and the number of replicas. It yields the replica's rows in order; all others are 0.

        Args:
          baskets: [T, I] items of T training timelines; see `data.baskets.training_baskets`.
        """


@runtime_checkable
class DescribedModelFile(ModelFile, Protocol):
    """The Python module of a model, with functions that describe and draw the model."""

    def describe(self, config: RunConfig, /, *, has_content: bool) -> ModelDescription:
        """Describes the model for its model card; `has_content`: whether the dataset's catalogue describes items."""

    def diagram(self, model: Any, tables: TableShapes, /) -> list[DiagramBox]:
        """Returns the boxes of the model's diagram, from the inputs to the score.

        In shapes, B is the number of rows of a batch, C the number of candidates, and H the length of the history.
        """


MODELS: Mapping[str, ModelFile] = {
    "matrix_factorization": matrix_factorization,
    "neural": neural,
    "towers": towers,
    "walk": walk,
    "session_knn": session_knn,
    "ease": ease,
}
"""The Python module of each `model.kind`."""


def table_rows(config: RunConfig, dataset: Dataset) -> dict[str, TableRows]:
    """Specifies the rows of each of the model's tables, by name."""
    model = config.scored_model
    return MODELS[model.kind].table_rows(model, dataset)


def build_tables(config: RunConfig, dataset: Dataset, replicas: Replicas) -> dict[str, ShardedTable]:
    """Builds the model's tables, by name; all are 0 until `embeddings.initialize` or a checkpoint sets them."""
    optimizer = row_optimizer(config.optimizer) if config.solver == "sgd" else None
    return {
        name: ShardedTable(rows=rows.num_rows, dim=rows.width, replicas=replicas, optimizer=optimizer)
        for name, rows in table_rows(config, dataset).items()
    }


def build_training_model(config: RunConfig, dataset: Dataset, replicas: Replicas) -> TrainingModel:
    """Builds the model that gradient steps train.

    Raises:
      ValueError: gradient steps cannot train this model.
    """
    file = MODELS[config.model.kind]
    if not isinstance(file, GradientModelFile):
        raise ValueError(
            f"model.kind={config.model.kind} cannot be trained with solver={config.solver}; use the preset of the "
            "model, which sets the right solver"
        )
    return file.training_model(config.model, config, dataset, build_tables(config, dataset, replicas), replicas)


def counted_model_file(model: ModelConfig) -> tuple[CountedModelFile, CountedConfig[Any]]:
    """Returns the Python module and the config of a model that `solver=count` computes.

    Raises:
      ValueError: `solver=count` cannot compute this model.
    """
    file = MODELS[model.kind]
    if not isinstance(model, CountedConfig) or not isinstance(file, CountedModelFile):
        raise ValueError(
            f"solver=count needs model.kind=walk, session_knn or ease, got model.kind={model.kind}; use the model's "
            "preset, which sets the right solver"
        )
    return file, model


def build_inference_model(config: RunConfig, dataset: Dataset) -> InferenceModel:
    """Builds the model that ranks; `fill` sets its weights later."""
    model = config.scored_model
    return MODELS[model.kind].inference_model(model, config, dataset)


def describe_model(config: RunConfig, *, has_content: bool) -> ModelDescription:
    """Describes the model for its model card; see `DescribedModelFile.describe`."""
    file = MODELS[config.model.kind]
    if isinstance(file, DescribedModelFile):
        return file.describe(config, has_content=has_content)
    return ModelDescription(f"a model of kind `{config.model.kind}`")


def model_diagram(model: ModelConfig, tables: TableShapes) -> list[DiagramBox]:
    """Returns the boxes of the model's diagram; see `DescribedModelFile.diagram`."""
    file = MODELS[model.kind]
    if isinstance(file, DescribedModelFile):
        return file.diagram(model, tables)
    name = model.kind.replace("_", " ")
    return [
        DiagramBox("rows", "[B]", 0),
        *(table_box(table, tables, "rows") for table in tables),
        DiagramBox(name, "[B, C]", 2, tuple(f"{table} table" for table in tables)),
        DiagramBox("score", "[B, C]", 3, (name,)),
    ]
