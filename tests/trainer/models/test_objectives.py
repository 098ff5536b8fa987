from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainer.config.losses import SampledSoftmaxConfig, SquaredErrorConfig
from trainer.config.models import MatrixFactorizationConfig
from trainer.config.optimizers import AdagradConfig
from trainer.data.input_pipeline import Batch
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import start_replicas
from trainer.models.matrix_factorization import MatrixFactorization
from trainer.models.objectives import SampledSoftmaxObjective, SquaredErrorObjective, in_batch_rows, keep_mask

NUM_ITEMS = 3
VISITORS = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
ITEMS = np.array([[1, 0], [0, 1], [2, 2], [9, 9]], np.float32)
"""The last row is the out-of-vocabulary bucket."""

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
    rows: int | None = None,
    *,
    weight: list[float] | None = None,
    days: list[int] | None = None,
    history: list[list[int]] | None = None,
) -> Batch:
    """Builds a batch of rows on the given days, each with the other items of its visitor as history; -1 is padding."""
    columns = [tf.constant(column, tf.int64) for column in (visitor, item, [0] * len(visitor))]
    items = tf.reshape(tf.constant(history or [], tf.int64), [len(visitor), -1 if history else 0])
    zeros = tf.zeros_like(items)
    day_ms = tf.constant(days or [0] * len(visitor), tf.int64) * 24 * 60 * 60 * 1000
    is_row = tf.range(len(visitor)) < (len(visitor) if rows is None else rows)
    weights = tf.constant(weight or [1.0] * len(visitor))
    return Batch(*columns, tf.maximum(items, 0), zeros, zeros, items >= 0, day_ms, weights, is_row)


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
    return SampledSoftmaxObjective(config, make_tables(), start_replicas(1, None), factorization, sampler, seed=3)


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

    objective = SquaredErrorObjective(SquaredErrorConfig(), make_tables(), start_replicas(1, None), predict)
    batch = make_batch([0, 1, 2, 0], [0, 2, 1, 0], weight=[1.0, 2.0, 3.0, 1.0], rows=3)
    # scores 1, 2, 1 for weights 1, 2, 3; the fourth row is padding
    assert loss_of(objective, batch) == pytest.approx((0 + 0 + 4) / 3)


def test_the_items_of_other_rows_are_negatives() -> None:
    # visitors 0 and 1 have positives 0 and 1: scores 1 and 0 each; items 0 and 1 each have an expected count of 1 × 1/4
    # in the other row, so one occurrence represents 4 items
    expected = np.log(1 + 4 * np.exp(0 - 1))
    assert loss_of(make_softmax(), make_batch([0, 1], [0, 1])) == pytest.approx(expected, rel=1e-5)


def test_a_row_with_the_same_item_is_no_negative() -> None:
    assert loss_of(make_softmax(), make_batch([0, 1, 2], [0, 0, 0])) == pytest.approx(0.0, abs=1e-6)


def test_padding_rows_neither_have_a_loss_nor_compete() -> None:
    full = loss_of(make_softmax(), make_batch([0, 1], [0, 1]))
    assert loss_of(make_softmax(), make_batch([0, 1, 2, 2], [0, 1, 2, 2], rows=2)) == pytest.approx(full, rel=1e-5)


def test_rows_with_unknown_items_neither_have_a_loss_nor_compete() -> None:
    full = loss_of(make_softmax(), make_batch([0, 1], [0, 1]))
    assert loss_of(make_softmax(), make_batch([0, 1, 2], [0, 1, 3])) == pytest.approx(full, rel=1e-5)


def test_a_batch_without_a_known_item_has_loss_0() -> None:
    assert loss_of(make_softmax(num_negatives=5), make_batch([0, 1], [3, 3])) == 0.0


def test_the_loss_is_a_weighted_mean_of_examples() -> None:
    batch = ([0, 2], [0, 1])
    first, second = (loss_of(make_softmax(), make_batch(*batch, weight=weight)) for weight in ([1.0, 0.0], [0.0, 1.0]))
    assert first != pytest.approx(second, rel=0.01)
    mixed = loss_of(make_softmax(), make_batch(*batch, weight=[1.0, 3.0]))
    assert mixed == pytest.approx((first + 3 * second) / 4, rel=1e-5)


def test_sampled_negatives_compete_and_differ_by_step() -> None:
    batch = make_batch([0, 1], [0, 1])
    objective = make_softmax(num_negatives=4)
    losses = {step: loss_of(objective, batch, step) for step in range(4)}
    assert losses[0] == loss_of(objective, batch, 0)
    assert len(set(losses.values())) > 1
    assert losses[0] != pytest.approx(loss_of(make_softmax(), batch))


def test_dropout_drops_a_share_of_the_entries_and_scales_the_rest() -> None:
    objective = make_softmax(dropout=0.25)
    batch = make_batch([0] * 4000, [0] * 4000)
    keep = objective.prepare(0, batch, tf.constant(0, tf.int64)).inputs.keep.numpy()
    assert set(np.unique(keep)) == {0.0, np.float32(1 / 0.75)}
    # 8,000 entries: the standard error of the share is 0.005
    assert abs((keep == 0).mean() - 0.25) < 0.02
    other = objective.prepare(0, batch, tf.constant(1, tf.int64)).inputs.keep.numpy()
    assert not np.array_equal(keep, other)


@pytest.mark.parametrize("shape", [(12,), (12, 8), (12, 3, 5)])
def test_the_mask_of_a_replica_is_its_part_of_the_whole_mask(shape: tuple[int, ...]) -> None:
    """Tests rows of 1, 8 and 15 entries, because random numbers are generated four at a time."""
    step = tf.constant(7, tf.int64)
    whole = keep_mask(shape, 0.4, 3, step, stream=2).numpy()
    assert whole.shape == shape
    for replicas in (2, 3, 4):
        own = (12 // replicas, *shape[1:])
        parts = [keep_mask(own, 0.4, 3, step, stream=2, replica=replica).numpy() for replica in range(replicas)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(np.unique(whole.reshape(12, -1), axis=0)) > 1, "rows differ"
    assert not np.array_equal(keep_mask(shape, 0.4, 3, step, stream=3), whole)


def test_the_weight_of_an_example_halves_per_half_life() -> None:
    batch = ([0, 2], [0, 1])
    first, second = (loss_of(make_softmax(), make_batch(*batch, weight=weight)) for weight in ([1.0, 0.0], [0.0, 1.0]))
    aged = loss_of(make_softmax(half_life_days=2.0), make_batch(*batch, days=[16, 20]))
    # four days older, two half-lives: a quarter
    assert aged == pytest.approx((first + 4 * second) / 5, rel=1e-5)


def test_without_in_batch_negatives_only_sampled_ones_compete() -> None:
    objective = make_softmax(num_negatives=3, in_batch_negatives=False)
    negatives = objective.sampler.draw(tf.constant(0, tf.int64)).numpy()
    # visitor 0, (1, 0), has positive 0; (count + 1) ** 0.5 is 1.414, 1.414 and 1.732
    share = np.sqrt([2, 2, 3]) / np.sqrt([2, 2, 3]).sum()
    others = sum(np.exp(ITEMS[item, 0]) / (3 * share[item]) for item in negatives if item != 0)
    assert loss_of(objective, make_batch([0, 1], [0, 0], rows=1)) == pytest.approx(np.log(1 + others / np.e), rel=1e-5)
    assert loss_of(objective, make_batch([0, 2], [0, 3])) == pytest.approx(np.log(1 + others / np.e), rel=1e-5)


def test_a_large_batch_has_evenly_spaced_in_batch_candidates() -> None:
    """Rows 0 and 2 of four are candidates. So on average, 1.5 of the 3 other rows of a row are candidates."""
    objective = make_softmax(max_in_batch_negatives=2, l2=0.5)
    visitor, item = [0, 1, 2, 2], [0, 2, 1, 0]
    losses = []
    for row in range(4):
        score = ITEMS[:3] @ VISITORS[visitor[row]]
        # items 0 and 1 have 1/4 of the events each
        others = sum(np.exp(score[other]) / (1.5 / 4) for other in (item[0], item[2]) if other != item[row])
        squares = np.square(VISITORS[visitor[row]]).sum() + np.square(ITEMS[item[row]]).sum()
        losses.append(np.log(1 + others / np.exp(score[item[row]])) + 0.5 * squares)
    assert loss_of(objective, make_batch(visitor, item)) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
def test_each_replica_has_an_equal_share_of_the_in_batch_candidates(replicas: int) -> None:
    rows = in_batch_rows(64, SampledSoftmaxConfig(max_in_batch_negatives=24))
    assert np.bincount(rows // (64 // replicas)).tolist() == [24 // replicas] * replicas
    np.testing.assert_array_equal(in_batch_rows(24, SampledSoftmaxConfig(max_in_batch_negatives=24)), np.arange(24))


def test_the_l2_penalty_is_on_the_rows_that_are_read() -> None:
    batch = make_batch([2, 0], [2, 1])
    plain, penalized = (loss_of(make_softmax(l2=l2), batch) for l2 in (0.0, 0.5))
    # the rows read are (1, 1) with (2, 2), and (1, 0) with (0, 1)
    assert penalized == pytest.approx(plain + 0.5 * ((2 + 8) + (1 + 1)) / 2, rel=1e-5)


def test_sampled_negatives_have_their_share_of_the_l2_penalty() -> None:
    batch, (plain, penalized) = make_batch([2, 0], [2, 1]), (make_softmax(num_negatives=3, l2=l2) for l2 in (0.0, 0.5))
    negatives = plain.sampler.draw(tf.constant(0, tf.int64)).numpy()
    # as above, plus the negatives, which both rows share
    expected = loss_of(plain, batch) + 0.5 * ((2 + 8) + (1 + 1) + np.square(ITEMS[negatives]).sum()) / 2
    assert loss_of(penalized, batch) == pytest.approx(expected, rel=1e-5)


def test_a_learnt_scale_multiplies_the_scores() -> None:
    batch = make_batch([0, 1], [0, 1])
    learnt = make_softmax(model=replace(DOT, is_scale_learnt=True))
    fixed = make_softmax(model=replace(DOT, scale=2.0))
    assert loss_of(learnt, batch, dense=[tf.math.log(2.0)]) == pytest.approx(loss_of(fixed, batch), rel=1e-6)


HISTORY_SUM = MatrixFactorizationConfig(dim=2, scale=3.0, has_item_bias=False, history_length=2)


def test_a_visitor_is_the_sum_of_their_items_without_the_positive() -> None:
    objective = make_softmax(model=HISTORY_SUM)
    batch = make_batch([0, 1], [0, 1], history=[[1, 0], [2, -1]])
    # positive 0, (1, 0), from item 1, (0, 1): score 0, and item 1 competes with 3; positive 1 from item 2, (.7, .7):
    # equal scores; both items have an expected count of 1 × 1/4 in the other row
    expected = (np.log(1 + 4 * np.exp(3)) + np.log(1 + 4)) / 2
    assert loss_of(objective, batch) == pytest.approx(expected, rel=1e-5)


def test_rows_with_an_empty_history_have_no_loss() -> None:
    objective = make_softmax(model=HISTORY_SUM)
    full = loss_of(objective, make_batch([0, 1], [0, 1], history=[[1, -1], [2, -1]]))
    # the positive only, an unknown item, no item
    for history in ([2, 2], [3, -1], [-1, -1]):
        batch = make_batch([0, 1, 2], [0, 1, 2], history=[[1, -1], [2, -1], history])
        assert loss_of(objective, batch) == pytest.approx(full, rel=1e-5)
