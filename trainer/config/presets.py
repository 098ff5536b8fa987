"""Named configs, each with its result and the command to reproduce it."""

from collections.abc import Mapping

from trainer.config.losses import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.config.models import MatrixFactorizationConfig, NeuralConfig, TowersConfig, WalkConfig
from trainer.config.optimizers import AdagradConfig, AdamConfig
from trainer.config.run import InputConfig, RunConfig

NOTEBOOK_MF = RunConfig(
    name="notebook-mf",
    model=MatrixFactorizationConfig(
        dim=5, similarity="dot", scale=1.0, has_item_bias=False, visitor_dropout=0.0, initial_stddev=0.03
    ),
    loss=SquaredErrorConfig(),
    optimizer=AdamConfig(),
    input=InputConfig(batch_size=32),
    epochs=10,
    steps_per_execution=500,
)
"""The notebook's factorization: embeddings of 5, dot product, squared error, batches of 32.

Test MSE 1.078 on a synthetic shop of 20,000 visitors, split at random; the training mean reaches .050. It starts from a
prediction of 0 and moves each visitor's row only as often as the visitor has events; the notebook printed .964.

    python -m preprocessing synthesize --visitors 20000 --output SHOP
    python -m preprocessing prepare --events SHOP/events.csv --split random --output DATASET
    python -m trainer train --preset notebook-mf --data DATASET --workdir RUN
"""

NOTEBOOK_NN = RunConfig(
    name="notebook-nn",
    model=NeuralConfig(),
    loss=SquaredErrorConfig(),
    optimizer=AdamConfig(),
    input=InputConfig(batch_size=32),
    epochs=5,
    steps_per_execution=500,
)
"""The notebook's network: embeddings of 5, dense layers of 80, 40, 20 and 1, squared error, batches of 32.

Test MSE .040 on the shop above, where the training mean reaches .050; the notebook printed .057. It overfits after
about five epochs.

    python -m trainer train --preset notebook-nn --data DATASET --workdir RUN
"""

MF = RunConfig(
    name="mf",
    model=MatrixFactorizationConfig(dim=128, history_length=12),
    loss=SampledSoftmaxConfig(num_negatives=512),
    optimizer=AdagradConfig(learning_rate=0.2),
    input=InputConfig(batch_size=512),
    epochs=10,
)
"""Matrix factorization as a recommender: visitors built from their items, sampled softmax, cosine, row-sparse Adagrad.

NDCG@20 of returning visitors .194 [.190, .197] on the test split of retailrocket_matrix, split by time at the quantiles
0.8 and 0.9, in 82 s on two cores; the best tuned peer, ALS with 256 factors, reaches .188, popular items .0055.

    python -m trainer train --preset mf --data DATASET --workdir RUN
"""

NN = RunConfig(
    name="nn",
    model=TowersConfig(dim=128, return_bonus=4.0),
    loss=SampledSoftmaxConfig(),
    optimizer=AdagradConfig(),
    input=InputConfig(batch_size=512),
    epochs=3,
    patience=1,
)
"""Two towers over timelines: attention over the latest ten items, sampled softmax; a second stage ranks the best again.

Next items of the test windows, split by time at the quantiles 0.8 and 0.9, R@20 and MRR@20: retailrocket_sessions .598
and .345, where the best item-kNN, tuned, reaches .558 and .311; retailrocket_buyers .261 and .180, where it reaches
.178 and .123.

    python -m trainer train --preset nn --data DATASET --workdir RUN
"""

WALK = RunConfig(
    name="walk",
    model=WalkConfig(),
    loss=SampledSoftmaxConfig(),
    optimizer=AdagradConfig(),
    solver="count",
    patience=None,
    max_loss_growth=None,
)
"""The item walk: counts instead of gradients; validation chooses among three combinations of powers.

Test windows, split by time at the quantiles 0.8 and 0.9: NDCG@20 of returning visitors .183 [.180, .187] on
retailrocket_matrix, where the best tuned item-kNN reaches .180 and ALS .188; R@20 .566 [.558, .574] and MRR@20 .311
[.305, .318] of next items on retailrocket_sessions, where the best tuned item-kNN reaches .558 and .311. Either takes
14 s on two cores, with the three validations.

    python -m trainer train --preset walk --data DATASET --workdir RUN
"""

PRESETS: Mapping[str, RunConfig] = {run.name: run for run in (NOTEBOOK_MF, NOTEBOOK_NN, MF, NN, WALK)}
"""Every preset by its name."""
