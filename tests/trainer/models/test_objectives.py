import numpy as np
import pytest
import tensorflow as tf

from trainer.config import AdagradConfig, MatrixFactorizationConfig, SampledSoftmaxConfig, SquaredErrorConfig
from trainer.distribution import start_replicas
from trainer.embeddings import ShardedTable
from trainer.input_pipeline import Batch
from trainer.models.matrix_factorization import MatrixFactorization
from trainer.models.objectives import SampledSoftmaxObjective, SquaredErrorObjective
from trainer.negative_sampling import NegativeSampler
from trainer.optimizers import row_optimizer

NUM_ITEMS = 3
VISITORS = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
ITEMS = np.array([[1, 0], [0, 1], [2, 2], [9, 9]], np.float32)
"""The last row is the bucket of unknown items."""


def make_tables() -> dict[str, ShardedTable]:
    tables = {}
    for name, values in (("visitor", VISITORS), ("item", ITEMS)):
        tables[name] = ShardedTable(
            rows=len(values), dim=2, replicas=start_replicas(1, None), optimizer=row_optimizer(AdagradConfig())
        )
        tables[name].values.assign(0, values)
    return tables


def make_batch(visitor: list[int], item: list[int], event: list[int] | None = None, rows: int | None = None) -> Batch:
    columns = [tf.constant(column, tf.int64) for column in (visitor, item, event or [0] * len(visitor))]
    return Batch.without_history(*columns, tf.range(len(visitor)) < (len(visitor) if rows is None else rows))


def make_softmax(
    *, num_drawn: int = 0, dropout: float = 0.0, weights: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> SampledSoftmaxObjective:
    config = SampledSoftmaxConfig(num_drawn=num_drawn, event_weights=weights)
    model = MatrixFactorization(
        MatrixFactorizationConfig(dim=2, similarity="dot", scale=1.0, has_item_bias=False, visitor_dropout=dropout)
    )
    sampler = NegativeSampler(np.array([1, 1, 2]), num_drawn=num_drawn, drawn_power=0.5, seed=0)
    return SampledSoftmaxObjective(config, make_tables(), 1, model, sampler, seed=3)


def loss_of(objective: SquaredErrorObjective | SampledSoftmaxObjective, batch: Batch, step: int = 0) -> float:
    lookups, inputs = objective.prepare(0, batch, tf.constant(step, tf.int64))
    return float(objective.loss({name: lookup.vectors() for name, lookup in lookups.items()}, [], inputs))


def test_the_squared_error_is_the_mean_over_the_rows_of_the_batch() -> None:
    def predict(dense: object, visitors: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(visitors * items, axis=1)

    objective = SquaredErrorObjective(SquaredErrorConfig(), make_tables(), 1, predict)
    batch = make_batch([0, 1, 2, 0], [0, 2, 1, 0], event=[0, 1, 2, 0], rows=3)
    # scores 1, 2, 1 against weights 1, 2, 3; the fourth row only fills up
    assert loss_of(objective, batch) == pytest.approx((0 + 0 + 4) / 3)


def test_the_other_rows_of_the_batch_compete() -> None:
    # visitors 0 and 1 chose items 0 and 1: scores 1 and 0 each; the other row is expected to show item 0, and item 1,
    # 1 × 1/4 times: it stands for 4 of its kind
    expected = np.log(1 + 4 * np.exp(0 - 1))
    assert loss_of(make_softmax(), make_batch([0, 1], [0, 1])) == pytest.approx(expected, rel=1e-5)


def test_another_row_with_the_same_item_does_not_compete() -> None:
    assert loss_of(make_softmax(), make_batch([0, 1, 2], [0, 0, 0])) == pytest.approx(0.0, abs=1e-6)


def test_rows_that_fill_up_the_batch_neither_count_nor_compete() -> None:
    full = loss_of(make_softmax(), make_batch([0, 1], [0, 1]))
    assert loss_of(make_softmax(), make_batch([0, 1, 2, 2], [0, 1, 2, 2], rows=2)) == pytest.approx(full, rel=1e-5)


def test_rows_of_unknown_items_neither_count_nor_compete() -> None:
    full = loss_of(make_softmax(), make_batch([0, 1], [0, 1]))
    assert loss_of(make_softmax(), make_batch([0, 1, 2], [0, 1, 3])) == pytest.approx(full, rel=1e-5)


def test_a_batch_without_any_known_item_has_no_loss() -> None:
    assert loss_of(make_softmax(num_drawn=5), make_batch([0, 1], [3, 3])) == 0.0


def test_an_example_counts_by_the_kind_of_its_event() -> None:
    batch = ([0, 2], [0, 1])
    first, second = (
        loss_of(make_softmax(weights=weights), make_batch(*batch, event=[0, 2]))
        for weights in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    )
    assert first != pytest.approx(second, rel=0.01)
    mixed = loss_of(make_softmax(weights=(1.0, 1.0, 3.0)), make_batch(*batch, event=[0, 2]))
    assert mixed == pytest.approx((first + 3 * second) / 4, rel=1e-5)


def test_drawn_items_compete_and_differ_by_step() -> None:
    batch = make_batch([0, 1], [0, 1])
    objective = make_softmax(num_drawn=4)
    losses = {step: loss_of(objective, batch, step) for step in range(4)}
    assert losses[0] == loss_of(objective, batch, 0)
    assert len(set(losses.values())) > 1
    assert losses[0] != pytest.approx(loss_of(make_softmax(), batch))


def test_dropout_hides_a_share_of_the_entries_and_raises_the_rest() -> None:
    objective = make_softmax(dropout=0.25)
    batch = make_batch([0] * 4000, [0] * 4000)
    keep = objective.prepare(0, batch, tf.constant(0, tf.int64)).inputs[-1].numpy()
    assert set(np.unique(keep)) == {0.0, np.float32(1 / 0.75)}
    # 8,000 entries: the standard deviation of the share is 0.005
    assert abs((keep == 0).mean() - 0.25) < 0.02
    other = objective.prepare(0, batch, tf.constant(1, tf.int64)).inputs[-1].numpy()
    assert not np.array_equal(keep, other)
