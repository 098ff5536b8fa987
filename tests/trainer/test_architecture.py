import pytest

from contract.report.run_charts import diagram
from trainer.architecture import describe_architecture
from trainer.config import MatrixFactorizationConfig, ModelConfig, NeuralConfig, TowersConfig

TABLES = {"visitor": (1001, 8), "item": (501, 9), "feature": (40, 9)}


@pytest.mark.parametrize(
    "model",
    [
        MatrixFactorizationConfig(),
        MatrixFactorizationConfig(history_length=12),
        MatrixFactorizationConfig(similarity="dot", has_item_bias=False),
        NeuralConfig(hidden=(6,)),
        TowersConfig(),
    ],
)
@pytest.mark.parametrize("tables", [TABLES, {}, {"item": (501, 9)}])
def test_every_part_reads_parts_before_it_and_all_lead_to_the_score(model: ModelConfig, tables):
    boxes = describe_architecture(model, tables)
    levels = {box.name: box.level for box in boxes}
    assert len(levels) == len(boxes), "names are told apart"
    for box in boxes:
        assert all(levels[source] < box.level for source in box.reads)
    read = {source for box in boxes for source in box.reads}
    (result,) = set(levels) - read
    assert levels[result] == max(levels.values())
    assert "<svg" in diagram("key", boxes)


def test_the_parts_have_the_shapes_of_the_tables():
    shapes = {box.name: box.shape for box in describe_architecture(NeuralConfig(dim=8, hidden=(6,)), TABLES)}
    assert shapes["visitor table"] == "1,001 × 8"
    assert (shapes["dense 1, relu"], shapes["dense 2, relu"]) == ("16 × 6", "6 × 1")
