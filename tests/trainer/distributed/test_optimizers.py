from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config.optimizers import AdagradConfig, AdamConfig, OptimizerConfig
from trainer.distributed.optimizers import apply_summed, dense_optimizer, row_optimizer
from trainer.distributed.replicas import start_replicas


def make_table(config: OptimizerConfig, values: np.ndarray) -> tuple[tf.Variable, dict[str, tf.Variable]]:
    slots = row_optimizer(config).slots
    rows, dim = values.shape
    return tf.Variable(values), {
        name: tf.Variable(tf.fill([rows, slot.dim or dim], slot.fill)) for name, slot in slots.items()
    }


def test_row_wise_adagrad_divides_by_the_root_of_the_summed_mean_squares() -> None:
    config = AdagradConfig(learning_rate=0.5, initial_accumulator=11.0, is_row_wise=True)
    values, slots = make_table(config, np.zeros((3, 2), np.float32))
    for step in range(2):
        rows = tf.constant([1], tf.int64)
        row_optimizer(config).apply(values, slots, rows, tf.constant([[3.0, 1.0]]), tf.constant(step, tf.int64))
    # the mean square is (9 + 1) / 2 = 5: first 0.5 × [3, 1] / √16 = [.375, .125], then / √21 = [.32733, .10911]
    np.testing.assert_allclose(values, [[0, 0], [-0.70233, -0.23411], [0, 0]], rtol=1e-4)
    np.testing.assert_allclose(slots["accumulator"], [[11.0], [21.0], [11.0]])


def test_adagrad_divides_by_the_root_of_the_summed_squares() -> None:
    config = AdagradConfig(learning_rate=0.5, initial_accumulator=7.0, epsilon=1e-7)
    values, slots = make_table(config, np.zeros((3, 1), np.float32))
    for step in range(2):
        rows = tf.constant([1], tf.int64)
        row_optimizer(config).apply(values, slots, rows, tf.constant([[3.0]]), tf.constant(step, tf.int64))
    # first 0.5 × 3 / √(7 + 9) = 0.375, then 0.5 × 3 / √(7 + 9 + 9) = 0.3
    np.testing.assert_allclose(values, [[0.0], [-0.675], [0.0]], rtol=1e-6)
    np.testing.assert_allclose(slots["accumulator"], [[7.0], [25.0], [7.0]])


@pytest.mark.parametrize(
    "config", [AdagradConfig(), AdagradConfig(is_row_wise=True), AdamConfig()], ids=["adagrad", "row-wise", "adam"]
)
def test_rows_outside_a_step_keep_value_and_slots(config: OptimizerConfig) -> None:
    values, slots = make_table(config, np.ones((4, 2), np.float32))
    before = {name: slot.numpy() for name, slot in slots.items()}
    rows = tf.constant([2, 0], tf.int64)
    row_optimizer(config).apply(values, slots, rows, tf.ones([2, 2]), tf.constant(0, tf.int64))
    np.testing.assert_array_equal(values.numpy()[[1, 3]], np.ones((2, 2)))
    assert (values.numpy()[[0, 2]] != 1).all()
    for name, slot in slots.items():
        np.testing.assert_array_equal(slot.numpy()[[1, 3]], before[name][[1, 3]])


@pytest.mark.parametrize("config", [AdagradConfig(), AdamConfig()], ids=["adagrad", "adam"])
def test_a_table_with_a_gradient_for_every_row_is_updated_as_by_keras(config: OptimizerConfig) -> None:
    generator = np.random.default_rng(0)
    start = generator.normal(size=(3, 4)).astype(np.float32)
    values, slots = make_table(config, start)
    dense = keras.Variable(start)
    keras_optimizer = dense_optimizer(config)
    keras_optimizer.build([dense])
    for step in range(5):
        gradient = tf.constant(generator.normal(size=(3, 4)).astype(np.float32))
        row_optimizer(config).apply(values, slots, tf.range(3, dtype=tf.int64), gradient, tf.constant(step, tf.int64))
        keras_optimizer.apply([gradient], [dense])
    np.testing.assert_allclose(values.numpy(), np.asarray(dense), rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2])
def test_dense_weights_are_updated_once_by_the_sum_on_every_replica(count: int) -> None:
    replicas = start_replicas(count, None)
    with replicas.strategy.scope():
        weights = [keras.Variable(np.zeros(2, np.float32)), keras.Variable(np.float32(1.0))]
        optimizer = dense_optimizer(AdagradConfig(learning_rate=0.5, initial_accumulator=7.0))
        optimizer.build(weights)

    def on_replica(replica: int) -> tf.Tensor:
        apply_summed(optimizer, [tf.constant([3.0, 0.0]), tf.constant(-3.0)], weights)
        return replicas.all_gather(tf.convert_to_tensor(weights[0].value)[None])

    for _ in range(2):
        moved = tf.function(lambda: replicas.run(on_replica))()
    # first 0.5 × 3 / √(7 + 9) = 0.375, then 0.5 × 3 / √(7 + 9 + 9) = 0.3
    np.testing.assert_allclose(moved, [[-0.675, 0.0]] * count, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(weights[1]), 1.675, rtol=1e-6)
    assert optimizer.iterations.numpy() == 2


@pytest.mark.parametrize(
    "kind", [AdagradConfig, partial(AdagradConfig, is_row_wise=True), AdamConfig], ids=["adagrad", "row-wise", "adam"]
)
def test_the_learning_rate_rises_linearly_during_warmup(kind: Callable[..., OptimizerConfig]) -> None:
    updates = {}
    for warmup_steps in (0, 4):
        config = kind(learning_rate=0.4, warmup_steps=warmup_steps)
        values, slots = make_table(config, np.zeros((1, 1), np.float32))
        weight = keras.Variable(np.zeros(1, np.float32))
        optimizer = dense_optimizer(config)
        optimizer.build([weight])
        values_of_step = [np.zeros(2)]
        for step in range(6):
            gradient = tf.constant([[3.0]])
            row_optimizer(config).apply(values, slots, tf.constant([0]), gradient, tf.constant(step, tf.int64))
            apply_summed(optimizer, [gradient[0]], [weight])
            values_of_step.append(np.array([values.numpy()[0, 0], np.asarray(weight)[0]]))
        updates[warmup_steps] = np.diff(values_of_step, axis=0)
    # rates of 0.1, 0.2, 0.3, 0.4, 0.4 and 0.4 instead of 0.4
    share = np.array([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(updates[4], updates[0] * share[:, None], rtol=1e-4)
