import keras
import numpy as np
import tensorflow as tf

from trainer.config.models import NeuralConfig
from trainer.models import neural
from trainer.models.interface import Queries
from trainer.models.neural import NeuralInference
from trainer.runs.checkpoint import Weights

CONFIG = NeuralConfig(dim=3, hidden=(7, 4))


def make_weights(seed: int = 0) -> list[np.ndarray]:
    """Returns kernels and biases; the last bias is so high that relu cuts off few outputs."""
    generator = np.random.default_rng(seed)
    weights = [
        generator.normal(scale=0.5, size=np.shape(variable)) for variable in neural.make_dense_variables(CONFIG, seed)
    ]
    weights[-1] = weights[-1] + 5
    return [weight.astype(np.float32) for weight in weights]


def make_model() -> NeuralInference:
    """Builds a model with 4 known visitors, 6 known items, and an out-of-vocabulary bucket for each."""
    generator = np.random.default_rng(1)
    visitors, items = (generator.normal(size=(rows, 3)).astype(np.float32) for rows in (5, 7))
    model = NeuralInference(CONFIG, visitor_rows=5, item_rows=7, num_items=6)
    model.fill(Weights({"visitor": visitors, "item": items}, make_weights()))
    return model


def test_predictions_equal_those_of_keras_layers() -> None:
    weights = make_weights()
    layers = [keras.layers.Dense(units, activation="relu") for units in (*CONFIG.hidden, 1)]
    model = keras.Sequential(layers)
    model.build((None, 6))
    model.set_weights(weights)
    generator = np.random.default_rng(2)
    visitors, items = (generator.normal(size=(8, 3)).astype(np.float32) for _ in range(2))
    expected = model.predict(np.concatenate([visitors, items], axis=1), verbose=0)[:, 0]
    found = neural.predict([tf.constant(weight) for weight in weights], tf.constant(visitors), tf.constant(items))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (expected > 0).sum() > 4


def test_dense_weights_are_initialised_like_those_of_keras() -> None:
    variables = neural.make_dense_variables(NeuralConfig(), seed=0)
    assert [tuple(variable.shape) for variable in variables] == [
        (10, 80), (80,), (80, 40), (40,), (40, 20), (20,), (20, 1), (1,)
    ]  # fmt: skip
    kernel = np.asarray(variables[0])
    # Glorot and Bengio, 2010: uniform within √(6 / (10 + 80)) = 0.258
    assert 0.25 < np.abs(kernel).max() < 0.2583
    assert not np.asarray(variables[1]).any()
    np.testing.assert_array_equal(kernel, np.asarray(neural.make_dense_variables(NeuralConfig(), seed=0)[0]))
    assert not np.array_equal(kernel, np.asarray(neural.make_dense_variables(NeuralConfig(), seed=1)[0]))


def test_catalogue_scores_equal_pair_scores() -> None:
    model = make_model()
    visitor = tf.constant([0, 3, 4, 99], tf.int64)
    queries = Queries.of_items(visitor, tf.zeros([4, 0], tf.int64), tf.zeros_like(visitor))
    catalogue = model.catalogue_scores(queries).numpy()
    visitors, items = np.meshgrid([0, 3, 4, 99], np.arange(6), indexing="ij")
    pairs = model.pair_scores(tf.constant(visitors.ravel()), tf.constant(items.ravel())).numpy()
    np.testing.assert_allclose(catalogue, pairs.reshape(4, 6), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(catalogue[2], catalogue[3])  # an index after the buckets gets the last of them
    assert len(np.unique(catalogue)) > 10


def test_an_unknown_item_has_the_row_of_its_bucket() -> None:
    model = make_model()
    scores = model.pair_scores(tf.constant([0, 0, 0]), tf.constant([5, 6, 99])).numpy()
    assert scores[1] == scores[2]
    assert scores[0] != scores[1]


def test_each_item_of_the_vocabulary_has_a_similarity() -> None:
    assert make_model().item_similarities(tf.constant([0, 5])).shape == (2, 6)
