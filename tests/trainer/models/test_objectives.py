from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.run import AdagradConfig, MatrixFactorizationConfig, SampledSoftmaxConfig, SquaredErrorConfig
from trainer.data.input_pipeline import Batch
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import start_replicas
from trainer.models.matrix_factorization import MatrixFactorization
from trainer.models.objectives import SampledSoftmaxObjective, SquaredErrorObjective, keep_mask

NUM_ITEMS = 3
VISITORS = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
ITEMS = np.array([[1, 0], [0, 1], [2, 2], [9, 9]], np.float32)
"""The last row is the bucket of unknown items."""

DOT = MatrixFactorizationConfig(dim=2, similarity="dot", scale=1.0, has_item_bias=False)


def make_tables() -> dict[str, ShardedTable]:
    tables = {}
    for name, values in (("visitor", VISITORS), ("item", ITEMS)):
        tables[name] = ShardedTable(
            rows=len(values), dim=2, replicas=start_replicas(1, None), optimizer=row_optimizer(AdagradConfig())
        )
        tables[name].values.assign(0, values)
    return tables


def make_batch(
    visitor: list[int],
    item: list[int],
    event: list[int] | None = None,
    rows: int | None = None,
    *,
    days: list[int] | None = None,
    history: list[list[int]] | None = None,
) -> Batch:
    """Rows on the days given, each with the other items of its visitor; -1: none."""
    columns = [tf.constant(column, tf.int64) for column in (visitor, item, event or [0] * len(visitor))]
    items = tf.reshape(tf.constant(history or [], tf.int64), [len(visitor), -1 if history else 0])
    zeros = tf.zeros_like(items)
    day_ms = tf.constant(days or [0] * len(visitor), tf.int64) * 24 * 60 * 60 * 1000
    is_row = tf.range(len(visitor)) < (len(visitor) if rows is None else rows)
    return Batch(*columns, tf.maximum(items, 0), zeros, zeros, items >= 0, day_ms, is_row)


def make_softmax(
    *,
    num_negatives: int = 0,
    dropout: float = 0.0,
    model: MatrixFactorizationConfig = DOT,
    **settings: Any,
) -> SampledSoftmaxObjective:
    config = SampledSoftmaxConfig(num_negatives=num_negatives, **settings)
    sampler = NegativeSampler(
        np.array([1, 1, 2]),
        num_negatives=num_negatives,
        negative_power=0.5,
        seed=0,
        in_batch_negatives=config.in_batch_negatives,
    )
    factorization = MatrixFactorization(replace(model, visitor_dropout=dropout))
    return SampledSoftmaxObjective(config, make_tables(), 1, factorization, sampler, seed=3)


def loss_of(
    objective: SquaredErrorObjective | SampledSoftmaxObjective,
    batch: Batch,
    step: int = 0,
    dense: Sequence[tf.Tensor] = (),
) -> float:
    lookups, inputs = objective.prepare(0, batch, tf.constant(step, tf.int64))
    return float(objective.loss({name: lookup.vectors() for name, lookup in lookups.items()}, dense, inputs))


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
    assert loss_of(make_softmax(num_negatives=5), make_batch([0, 1], [3, 3])) == 0.0


def test_an_example_counts_by_the_kind_of_its_event() -> None:
    batch = ([0, 2], [0, 1])
    first, second = (
        loss_of(make_softmax(event_weights=weights), make_batch(*batch, event=[0, 2]))
        for weights in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    )
    assert first != pytest.approx(second, rel=0.01)
    mixed = loss_of(make_softmax(event_weights=(1.0, 1.0, 3.0)), make_batch(*batch, event=[0, 2]))
    assert mixed == pytest.approx((first + 3 * second) / 4, rel=1e-5)


def test_drawn_items_compete_and_differ_by_step() -> None:
    batch = make_batch([0, 1], [0, 1])
    objective = make_softmax(num_negatives=4)
    losses = {step: loss_of(objective, batch, step) for step in range(4)}
    assert losses[0] == loss_of(objective, batch, 0)
    assert len(set(losses.values())) > 1
    assert losses[0] != pytest.approx(loss_of(make_softmax(), batch))


def test_dropout_hides_a_share_of_the_entries_and_raises_the_rest() -> None:
    objective = make_softmax(dropout=0.25)
    batch = make_batch([0] * 4000, [0] * 4000)
    keep = objective.prepare(0, batch, tf.constant(0, tf.int64)).inputs.keep.numpy()
    assert set(np.unique(keep)) == {0.0, np.float32(1 / 0.75)}
    # 8,000 entries: the standard deviation of the share is 0.005
    assert abs((keep == 0).mean() - 0.25) < 0.02
    other = objective.prepare(0, batch, tf.constant(1, tf.int64)).inputs.keep.numpy()
    assert not np.array_equal(keep, other)


@pytest.mark.parametrize("shape", [(12,), (12, 8), (12, 3, 5)])
def test_a_replicas_rows_of_a_mask_are_those_of_the_whole(shape: tuple[int, ...]) -> None:
    """Rows of 1, 8 and 15 entries: random numbers are counted by fours."""
    step = tf.constant(7, tf.int64)
    whole = keep_mask(shape, 0.4, 3, step, stream=2).numpy()
    assert whole.shape == shape
    for replicas in (2, 3, 4):
        rows = [slice(begin, begin + 12 // replicas) for begin in range(0, 12, 12 // replicas)]
        parts = [keep_mask(shape, 0.4, 3, step, stream=2, rows=of_one).numpy() for of_one in rows]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(np.unique(whole.reshape(12, -1), axis=0)) > 1, "no row repeats the one before it"
    assert not np.array_equal(keep_mask(shape, 0.4, 3, step, stream=3), whole)


def test_an_example_halves_with_its_age() -> None:
    batch = ([0, 2], [0, 1])
    first, second = (
        loss_of(make_softmax(event_weights=weights), make_batch(*batch, event=[0, 2]))
        for weights in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
    )
    aged = loss_of(make_softmax(half_life_days=2.0), make_batch(*batch, days=[16, 20]))
    # four days older: a quarter
    assert aged == pytest.approx((first + 4 * second) / 5, rel=1e-5)


def test_without_the_batch_only_drawn_items_compete() -> None:
    objective = make_softmax(num_negatives=3, in_batch_negatives=False)
    drawn = objective.sampler.draw(tf.constant(0, tf.int64)).numpy()
    # visitor 0, (1, 0), chose item 0; (count + 1) ** 0.5 is 1.414, 1.414 and 1.732
    share = np.sqrt([2, 2, 3]) / np.sqrt([2, 2, 3]).sum()
    others = sum(np.exp(ITEMS[item, 0]) / (3 * share[item]) for item in drawn if item != 0)
    assert loss_of(objective, make_batch([0, 1], [0, 0], rows=1)) == pytest.approx(np.log(1 + others / np.e), rel=1e-5)
    assert loss_of(objective, make_batch([0, 2], [0, 3])) == pytest.approx(np.log(1 + others / np.e), rel=1e-5)


def test_the_l2_is_that_of_the_rows_read() -> None:
    batch = make_batch([2, 0], [2, 1])
    plain, penalized = (loss_of(make_softmax(l2=l2), batch) for l2 in (0.0, 0.5))
    # the rows read are (1, 1) with (2, 2), and (1, 0) with (0, 1)
    assert penalized == pytest.approx(plain + 0.5 * ((2 + 8) + (1 + 1)) / 2, rel=1e-5)


def test_drawn_rows_have_their_share_of_the_l2() -> None:
    batch, (plain, penalized) = make_batch([2, 0], [2, 1]), (make_softmax(num_negatives=3, l2=l2) for l2 in (0.0, 0.5))
    drawn = plain.sampler.draw(tf.constant(0, tf.int64)).numpy()
    # as above, and the drawn rows, read once for the two
    expected = loss_of(plain, batch) + 0.5 * ((2 + 8) + (1 + 1) + np.square(ITEMS[drawn]).sum()) / 2
    assert loss_of(penalized, batch) == pytest.approx(expected, rel=1e-5)


def test_a_learnt_scale_multiplies_the_scores() -> None:
    batch = make_batch([0, 1], [0, 1])
    learnt = make_softmax(model=replace(DOT, is_scale_learnt=True))
    fixed = make_softmax(model=replace(DOT, scale=2.0))
    assert loss_of(learnt, batch, dense=[tf.math.log(2.0)]) == pytest.approx(loss_of(fixed, batch), rel=1e-6)


COMPOSED = MatrixFactorizationConfig(dim=2, scale=3.0, has_item_bias=False, history_length=2)


def test_a_visitor_made_of_his_items_points_where_they_do_without_the_one_to_be_found() -> None:
    objective = make_softmax(model=COMPOSED)
    batch = make_batch([0, 1], [0, 1], history=[[1, 0], [2, -1]])
    # to find item 0, (1, 0), from item 1, (0, 1): score 0, item 1 competes with 3; item 1 from item 2, (.7, .7): equal
    # scores; the other row is expected to show either 1 × 1/4 times
    expected = (np.log(1 + 4 * np.exp(3)) + np.log(1 + 4)) / 2
    assert loss_of(objective, batch) == pytest.approx(expected, rel=1e-5)


def test_a_row_of_whose_visitor_nothing_else_is_known_does_not_count() -> None:
    objective = make_softmax(model=COMPOSED)
    full = loss_of(objective, make_batch([0, 1], [0, 1], history=[[1, -1], [2, -1]]))
    # only the item to be found, an unknown one, nothing
    for history in ([2, 2], [3, -1], [-1, -1]):
        batch = make_batch([0, 1, 2], [0, 1, 2], history=[[1, -1], [2, -1], history])
        assert loss_of(objective, batch) == pytest.approx(full, rel=1e-5)
