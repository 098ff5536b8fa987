import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config.optimizers import AdagradConfig
from trainer.data.input_pipeline import Batch
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import start_replicas
from trainer.training.divergence import (
    RESUMED_STEPS,
    WINDOW,
    DivergenceMonitor,
    describe_batch,
    describe_dense,
    describe_tables,
)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_loss_that_is_not_finite_is_a_fault(bad):
    watch = DivergenceMonitor(None, is_beginning=True)
    assert watch.check(np.array([1.0, 2.0])) is None
    assert watch.check(np.array([3.0, bad, 4.0, np.nan])) == (1, f"the loss is {bad}")


def test_a_mean_above_so_many_times_the_first_loss_is_a_fault():
    watch = DivergenceMonitor(10, is_beginning=True)
    # once all 20 steps of the window are of 21, their mean is above 10 × 2; with one of 1 among them it is 20
    assert watch.check(np.array([2.0, *[1.0] * 20, *[21.0] * 19])) is None
    place, what = watch.check(np.array([21.0, 21.0]))
    assert place == 0
    assert what.startswith("the loss has grown to 21, the mean of the last 20 steps, more than 10 times the 2")


def test_a_batch_of_rare_events_is_no_fault():
    watch = DivergenceMonitor(10, is_beginning=True)
    assert watch.check(np.array([1.0] * 30 + [150.0] + [1.0] * 30)) is None  # a mean of 169 / 20


def test_without_a_limit_a_loss_may_grow():
    assert DivergenceMonitor(None, is_beginning=True).check(np.array([1.0] + [1e30] * 100)) is None


def test_a_resumed_run_begins_with_the_largest_of_its_first_losses():
    watch = DivergenceMonitor(10, is_beginning=False)
    # the first batch by chance has no rare event, and a loss of nearly nothing
    assert watch.check(np.array([0.001] + [1.0] * (RESUMED_STEPS - 1) + [9.0] * WINDOW)) is None
    assert watch.check(np.array([300.0])) is not None


def test_a_batch_is_described_by_its_rows_alone():
    batch = Batch.without_history(
        tf.constant([3, 3, 8, 99], tf.int64),
        tf.constant([5, 6, 7, 99], tf.int64),
        tf.constant([0, 1, 0, 2], tf.int64),
        tf.constant([True, True, True, False]),
    )
    assert describe_batch(batch, (1.0, 2.0, 3.5)) == (
        "its batch has 3 rows (2 view of weight 1, 1 addtocart of weight 2, 0 transaction of weight 3.5), "
        "visitor indices 3 to 8 (2 distinct), item indices 5 to 7 (3 distinct)"
    )


def test_tables_are_described_by_their_longest_row_and_those_that_are_not_finite():
    table = ShardedTable(rows=4, dim=2, replicas=start_replicas(2, None), optimizer=row_optimizer(AdagradConfig()))
    table.values.assign(0, np.array([[3, 4], [0, np.nan], [1, 0], [np.inf, 0]], np.float32))
    assert describe_tables({"item": table}) == "item rows are up to 5 long, 2 not finite"


def test_dense_weights_are_described_by_their_largest_entry_and_those_that_are_not_finite():
    weights = [keras.Variable(value, name=name) for name, value in (("scale", -8.0), ("turn", [[1.0, 2.0]]))]
    assert describe_dense(weights) == "dense weights are up to 8 (scale)"
    weights[1].assign([[np.inf, 20.0]])
    assert describe_dense(weights) == "dense weights are up to 20 (turn), not finite: turn"
