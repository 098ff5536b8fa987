"""Named configs, each with its result and the command to reproduce it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from common.settings import apply_settings
from trainer.config.losses import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.config.models import (
    EaseConfig,
    MatrixFactorizationConfig,
    NeuralConfig,
    SessionKnnConfig,
    TowersConfig,
    WalkConfig,
)
from trainer.config.optimizers import AdagradConfig, AdamConfig, AlternatingConfig
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
"""The original notebook's factorization: embeddings of 5, dot product, squared error, batches of 32.

Test MSE 1.078 on a synthetic shop of 20,000 visitors, split at random; the mean of the training weights, predicted for
all pairs, reaches .050. The model starts from a prediction of 0, and training updates a visitor's row only as often as
the visitor has events. The notebook printed .964.

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
"""The original notebook's network: embeddings of 5, dense layers of 80, 40, 20 and 1, squared error, batches of 32.

Test MSE .040 on the shop above, where the mean of the training weights reaches .050; the notebook printed .057. The
network overfits after about five epochs.

    python -m trainer train --preset notebook-nn --data DATASET --workdir RUN
"""

MF = RunConfig(
    name="mf",
    model=MatrixFactorizationConfig(dim=128, history_length=12),
    loss=SampledSoftmaxConfig(num_negatives=512),
    optimizer=AdagradConfig(learning_rate=0.2),
    input=InputConfig(batch_size=512),
    epochs=10,
    companions=("walk",),
    blend=True,
)
"""Matrix factorization as a recommender: visitors built from their items, sampled softmax, cosine, row-sparse Adagrad.

docs/benchmarks.md compares its lists for returning visitors with those of tuned peers, on four real shops.

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
    blend=True,
)
"""Two towers: attention over the latest ten items, sampled softmax; a second stage ranks the best items again.

docs/benchmarks.md compares its next items with those of tuned peers, on four real shops.

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
    blend=True,
)
"""The item walk, computed from counts without gradients; validation chooses among three combinations of powers.

Test windows, split by time at the quantiles 0.8 and 0.9: NDCG@20 of returning visitors .183 [.180, .187] on
retailrocket_matrix, where the best tuned item-kNN reaches .180 and ALS .188; R@20 .566 [.558, .574] and MRR@20 .311
[.305, .318] of next items on retailrocket_sessions, where the best tuned item-kNN reaches .558 and .311. Each run takes
14 s on two cores, including the three validations.

    python -m trainer train --preset walk --data DATASET --workdir RUN
"""

SESSION_KNN = replace(WALK, name="session_knn", model=SessionKnnConfig())
"""Session kNN (V-SKNN): the timelines most similar to the history; validation chooses among four combinations.

Test windows, split by time at the quantiles 0.8 and 0.9: NDCG@20 of 2,066 returning visitors of the grocer .047, where
200 neighbours with fixed powers reach .045 and popular items .037; R@20 .553 and MRR@20 .295 of 10,000 next items of
retailrocket_sessions, where 200 neighbours with fixed powers reach .546 and .289. The runs take 25 and 14 CPU seconds,
including validations.

    python -m trainer train --preset session_knn --data DATASET --workdir RUN
"""

EASE = replace(WALK, name="ease", model=EaseConfig())
"""EASE: a linear regression between the most frequent items; for visitors with dozens of events each.

NDCG@20 of 2,094 returning visitors of the grocer's validation window: .0533 with l2 1,000, where popular items reach
.0373. Blended with popularity and trend, it reaches .0573 on 2,000 of these visitors.

    python -m trainer train --preset ease --data DATASET --workdir RUN
"""

PRESETS: Mapping[str, RunConfig] = {
    run.name: run for run in (NOTEBOOK_MF, NOTEBOOK_NN, MF, NN, WALK, SESSION_KNN, EASE)
}
"""All presets, by name."""


AUTO = "auto"
"""Name of the preset that tries several models; see `auto_trials`."""


def auto_trials(settings: Sequence[str] = (), *, is_dense: bool = False) -> dict[str, RunConfig]:
    """Returns the settings of the models that `--preset auto` blends, by name; the fastest is first.

    Args:
      settings: changes to the settings of all models, as `key=value`.
      is_dense: whether visitors have dozens of events each; adds EASE, and changes the settings of least squares.

    Raises:
      ValueError: a setting is invalid, or one of the models lacks it.
    """
    plain = replace(MF, companions=(), blend=False, patience=1)
    als = replace(plain, solver="als", model=MatrixFactorizationConfig(dim=256), epochs=7)
    als = replace(als, als=AlternatingConfig(unobserved_weight=0.0062, l2=0.00006))
    if is_dense:
        dense = AlternatingConfig(unobserved_weight=1.0, l2=30.0, weight_power=0.0)
        als = replace(als, model=MatrixFactorizationConfig(dim=32), als=dense, epochs=8)
    models = {
        "walk": replace(WALK, blend=False),
        "session_knn": replace(SESSION_KNN, blend=False),
        **({"ease": replace(EASE, blend=False)} if is_dense else {}),
        "als": als,
        "mf": replace(plain, epochs=20),
        "nn": replace(NN, blend=False),
    }
    return _apply_to_all([replace(config, name=name) for name, config in models.items()], settings)


def _apply_to_all(configs: Sequence[RunConfig], settings: Sequence[str]) -> dict[str, RunConfig]:
    refused = {config.name: error for config in configs if (error := _refusal(config, settings))}
    if len(refused) == len(configs):  # wrong for every preset
        raise list(refused.values())[-1]
    if refused:
        raise ValueError(
            f"--preset auto applies all settings to all its models, but {', '.join(refused)} cannot use "
            f"{', '.join(settings)}; train a single preset with these settings"
        )
    return {config.name: apply_settings(config, settings) for config in configs}


def _refusal(config: RunConfig, settings: Sequence[str]) -> ValueError | None:
    """Returns the error that applying the settings raises; None if the config accepts them."""
    try:
        apply_settings(config, settings)
    except ValueError as error:
        return error
    return None
