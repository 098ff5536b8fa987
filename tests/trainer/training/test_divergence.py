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
    Divergence,
    DivergenceMonitor,
    describe_batch,
    describe_dense,
    describe_tables,
)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_reports_the_first_non_finite_loss(bad):
    monitor = DivergenceMonitor(None, is_new_run=True)
    assert monitor.check(np.array([1.0, 2.0])) is None
    assert monitor.check(np.array([3.0, bad, 4.0, np.nan])) == Divergence(1, f"the loss is {bad}")


def test_reports_a_mean_above_a_multiple_of_the_first_loss():
    monitor = DivergenceMonitor(10, is_new_run=True)
    # 19 losses of 21 and one of 1 have a mean of 20, which is not above 10 × 2; 20 losses of 21 are
    assert monitor.check(np.array([2.0, *[1.0] * 20, *[21.0] * 19])) is None
    found = monitor.check(np.array([21.0, 21.0]))
    assert found == Divergence(
        0, "the loss has grown to 21 (mean of the last 20 steps), more than 10 times its value at the start, 2"
    )


def test_ignores_a_single_batch_of_rare_events():
    monitor = DivergenceMonitor(10, is_new_run=True)
    assert monitor.check(np.array([1.0] * 30 + [150.0] + [1.0] * 30)) is None  # mean 169 / 20


def test_ignores_growth_without_a_limit():
    assert DivergenceMonitor(None, is_new_run=True).check(np.array([1.0] + [1e30] * 100)) is None


def test_a_resumed_run_compares_with_the_largest_of_its_first_losses():
    monitor = DivergenceMonitor(10, is_new_run=False)
    # the first batch has no rare event by chance, and a loss close to 0
    assert monitor.check(np.array([0.001] + [1.0] * (RESUMED_STEPS - 1) + [9.0] * WINDOW)) is None
    assert monitor.check(np.array([300.0])) is not None


def test_describes_a_batch_without_its_padding():
    batch = Batch.without_history(
        tf.constant([3, 3, 8, 99], tf.int64),
        tf.constant([5, 6, 7, 99], tf.int64),
        tf.constant([0, 1, 0, 2], tf.int64),
        tf.constant([True, True, True, False]),
    )
    assert describe_batch(batch, {"view": 1.0, "addtocart": 2.0, "transaction": 3.5}) == (
        "its batch has 3 rows (2 view of weight 1, 1 addtocart of weight 2, 0 transaction of weight 3.5), "
        "visitor indices 3 to 8 (2 distinct), item indices 5 to 7 (3 distinct)"
    )


def test_describes_tables_by_largest_norm_and_non_finite_rows():
    table = ShardedTable(rows=4, dim=2, replicas=start_replicas(2, None), optimizer=row_optimizer(AdagradConfig()))
    table.values.assign(0, np.array([[3, 4], [0, np.nan], [1, 0], [np.inf, 0]], np.float32))
    assert describe_tables({"item": table}) == "item rows have norms up to 5, 2 not finite"


def test_describes_dense_weights_by_largest_entry_and_non_finite_weights():
    weights = [keras.Variable(value, name=name) for name, value in (("scale", -8.0), ("turn", [[1.0, 2.0]]))]
    assert describe_dense(weights) == "dense weights have entries up to 8 (scale)"
    weights[1].assign([[np.inf, 20.0]])
    assert describe_dense(weights) == "dense weights have entries up to 20 (turn), not finite: turn"
