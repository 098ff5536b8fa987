import re

import pytest

from common.report.run_charts import diagram
from tests.trainer.dataset_builder import build_dataset, checkerboard
from tests.trainer.tiny_runs import make_config
from trainer.config.models import (
    EaseConfig,
    MatrixFactorizationConfig,
    ModelConfig,
    NeuralConfig,
    SessionKnnConfig,
    TowersConfig,
    WalkConfig,
)
from trainer.data.dataset import open_dataset
from trainer.distributed.replicas import start_replicas
from trainer.models.build import build_training_model, model_diagram

TABLES = {"visitor": (1001, 8), "item": (501, 9), "feature": (40, 9)}


@pytest.mark.parametrize(
    "model",
    [
        MatrixFactorizationConfig(),
        MatrixFactorizationConfig(history_length=12),
        MatrixFactorizationConfig(similarity="dot", has_item_bias=False),
        NeuralConfig(hidden=(6,)),
        TowersConfig(),
        WalkConfig(),
        SessionKnnConfig(),
        EaseConfig(),
    ],
)
@pytest.mark.parametrize("tables", [TABLES, {}, {"item": (501, 9)}])
def test_every_box_reads_earlier_ones_and_all_lead_to_the_score(model: ModelConfig, tables):
    boxes = model_diagram(model, tables)
    levels = {box.name: box.level for box in boxes}
    assert len(levels) == len(boxes), "names are unique"
    for box in boxes:
        assert all(levels[source] < box.level for source in box.reads)
    read = {source for box in boxes for source in box.reads}
    (result,) = set(levels) - read
    assert levels[result] == max(levels.values())
    assert "<svg" in diagram("key", boxes)


def test_boxes_have_the_shapes_of_the_tables():
    shapes = {box.name: box.shape for box in model_diagram(NeuralConfig(dim=8, hidden=(6,)), TABLES)}
    assert shapes["visitor table"] == "1,001 × 8"
    assert (shapes["dense 1, relu"], shapes["dense 2, relu"]) == ("16 × 6", "6 × 1")


@pytest.mark.parametrize("preset", ["notebook-mf", "notebook-nn", "mf", "nn"])
def test_trained_boxes_have_the_shapes_of_the_models_variables(tmp_path, preset):
    build_dataset(str(tmp_path), **checkerboard())
    dataset, config = open_dataset(str(tmp_path)), make_config(preset)
    model = build_training_model(config, dataset, start_replicas(1, None))
    tables = {name: (table.rows, table.dim) for name, table in model.tables.items()}
    trained = {box.name: box.shape for box in model_diagram(config.model, tables) if box.is_trained}
    assert {name: trained.pop(f"{name} table") for name in tables} == {
        name: f"{rows:,} × {dim}" for name, (rows, dim) in tables.items()
    }
    drawn = [(int(rows), int(columns)) for rows, columns in re.findall(r"(\d+) × (\d+)", " ".join(trained.values()))]
    # the diagram shows the kernels of the layers, not the attention and embeddings of the towers
    kernels = [tuple(v.shape) for v in model.dense if re.fullmatch(r"kernel_\d|hidden|output", v.name)]
    assert drawn == kernels
    assert bool(trained) == bool(model.dense), "a box has weights only if the model has dense weights"
