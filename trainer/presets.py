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
    TowersConfig,
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
    optimizer=AdagradConfig(),
    input=InputConfig(batch_size=1024),
    epochs=20,
)
# retailrocket_sessions, next item, 4,000 rows of the validation window after three epochs (101 s on two busy cores):
# R@20 .611, MRR@20 .337; item-kNN .564, .309; python -m trainer train --preset nn --data DATASET --workdir RUN
NN = RunConfig(
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
    optimizer=AdagradConfig(),
    input=InputConfig(batch_size=1024),
    epochs=20,
)
# retailrocket_sessions, next item, 4,000 rows of the validation window: R@20 .611, MRR@20 .337 (item-kNN: .564, .309) after
# three epochs in 101 s on two busy cores; python -m trainer train --preset nn --data DATASET --workdir RUN
NN = RunConfig(
    model=TowersConfig(),
    loss=SampledSoftmaxConfig(),
    optimizer=AdagradConfig(),
    input=InputConfig(batch_size=512),
    epochs=3,
)

PRESETS: Mapping[str, RunConfig] = {"notebook-mf": NOTEBOOK_MF, "notebook-nn": NOTEBOOK_NN, "mf": MF, "nn": NN}
