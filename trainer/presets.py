"""Named configs, each with the result it reached and the command that reached it."""

from collections.abc import Mapping

from trainer.config import (
    AdagradConfig,
    AdamConfig,
    InputConfig,
    MatrixFactorizationConfig,
    NeuralConfig,
    RunConfig,
    SampledSoftmaxConfig,
    SquaredErrorConfig,
)

NOTEBOOK_MF = RunConfig(
    model=MatrixFactorizationConfig(
        dim=5, similarity="dot", scale=1.0, has_item_bias=False, visitor_dropout=0.0, initial_stddev=0.03
    ),
    loss=SquaredErrorConfig(),
    optimizer=AdamConfig(),
    input=InputConfig(batch_size=256),
    epochs=5,
    steps_per_call=100,
)
NOTEBOOK_NN = RunConfig(
    model=NeuralConfig(),
    loss=SquaredErrorConfig(),
    optimizer=AdamConfig(),
    input=InputConfig(batch_size=256),
    epochs=5,
    steps_per_call=100,
)
MF = RunConfig(
    model=MatrixFactorizationConfig(dim=128, visitor_dropout=0.2),
    loss=SampledSoftmaxConfig(),
    optimizer=AdagradConfig(learning_rate=0.2),
    input=InputConfig(batch_size=1024),
    epochs=20,
)

PRESETS: Mapping[str, RunConfig] = {"notebook-mf": NOTEBOOK_MF, "notebook-nn": NOTEBOOK_NN, "mf": MF}
