from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.ranking.fakes import queries_of
from trainer.config.models import TowersConfig
from trainer.distributed import embeddings
from trainer.models.interface import Queries
from trainer.models.towers import AGES_MS, DenseWeights, TowersInference, age_of, latest, make_dense_variables
from trainer.runs.checkpoint import Weights

CONFIG = TowersConfig(dim=2, history_length=2, return_bonus=3.0)
COUNTS = np.array([100, 10, 0])
ITEMS = np.array([[3, 4, 0.5], [1, 0, 0], [0, 2, -1]], np.float32)
"""Item vectors with biases in the last column. The normalised vectors are (0.6, 0.8), (1, 0) and (0, 1)."""


def make_dense(**changed: object) -> list[np.ndarray]:
    """Returns weights with uniform attention and zero layers.

    So the visitor vector is attended + newest / 2, scaled to length 10.
    """
    shapes = DenseWeights(*(variable.shape for variable in make_dense_variables(CONFIG, 3, seed=0)))
    weights = DenseWeights(*(np.zeros(shape, np.float32) for shape in shapes))
    arrays = {name: np.array(value, np.float32) for name, value in changed.items()}
    return list(weights._replace(log_scale=np.float32(np.log(10)), **arrays))


def make_model(*, visitors: Sequence[Sequence[float]] = (), **changed: object) -> TowersInference:
    table = np.array([*visitors, [9, 9]], np.float32)  # the last row, of all other visitors, is not used
    model = TowersInference(
        CONFIG, item_rows=lambda _: ITEMS.__getitem__, num_frequent=len(visitors), num_kinds=3, item_counts=COUNTS
    )
    model.fill(Weights({"visitor": table}, make_dense(**changed)))
    return model


def scores(model: TowersInference, *histories: list[int]) -> np.ndarray:
    found: np.ndarray = model.catalogue_scores(queries_of(list(range(len(histories))), histories)).numpy()
    return found


def views_of(visitors: list[int], histories: list[list[int]]) -> Queries:
    """Builds queries in which all events are of the first kind, at the moment of the request."""
    queries = queries_of(visitors, histories)
    return queries._replace(history_event=tf.zeros_like(queries.history))


def test_a_score_is_the_scaled_cosine_plus_bias_and_return_bonus() -> None:
    # the history is item 1, so the visitor is (1.5, 0), normalised (1, 0); item 1 gets the bonus of 3
    np.testing.assert_allclose(scores(make_model(), [1]), [[6 + 0.5, 10 + 3, -1]], rtol=1e-5)


def test_item_rows_are_read_in_chunks_of_the_same_bytes_for_each_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Biases and lengths have one column each, but are computed from whole item rows of three columns."""
    monkeypatch.setattr(embeddings, "CHUNK_BYTES", 2 * 3 * 4)
    read: list[slice] = []

    def item_rows(rows: slice) -> np.ndarray:
        read.append(rows)
        return ITEMS[rows]

    model = TowersInference(CONFIG, item_rows=lambda _: item_rows, num_frequent=0, num_kinds=3, item_counts=COUNTS)
    model.fill(Weights({}, make_dense()))
    assert read == 3 * [slice(0, 2), slice(2, 3)]


def test_piece_scores_equal_catalogue_scores() -> None:
    score = make_model().piece_scores(queries_of([0, 1], [[1], []]))
    # as above; the bonus of item 1 is in the piece that contains it. Without a history: by popularity
    whole = np.stack([[6 + 0.5, 10 + 3, -1], np.log1p(COUNTS)])
    for begin, size in ((0, 1), (0, 2), (1, 1), (2, 1)):
        np.testing.assert_allclose(score(tf.constant(begin), size), whole[:, begin : begin + size], rtol=1e-5)


def test_the_newest_item_has_more_weight_than_the_one_before() -> None:
    # attended (0.5, 1) plus half of the newest, (0, 2): (0.5, 2)
    length = np.hypot(0.5, 2)
    expected = [10 * (0.6 * 0.5 + 0.8 * 2) / length + 0.5, 10 * 0.5 / length + 3, 10 * 2 / length - 1 + 3]
    np.testing.assert_allclose(scores(make_model(), [1, 2])[0], expected, rtol=1e-5)


def test_attention_has_learnt_weights_of_positions_and_ages() -> None:
    for changed in ({"position": [100, 0]}, {"age": [0, 100, 0, 0, 0]}):
        queries = views_of([0], [[1, 2]])._replace(
            history_timestamp_ms=tf.constant([[0, AGES_MS[0]]], tf.int64),
            timestamp_ms=tf.constant([AGES_MS[0]], tf.int64),
        )
        found = make_model(**changed).catalogue_scores(queries).numpy()[0]
        # all attention is on the newest, (0, 2)
        np.testing.assert_allclose(found, [8 + 0.5, 3, 10 - 1 + 3], rtol=1e-5, atol=1e-5)


def test_return_bonuses_of_position_kind_and_age_add_up_also_over_repeated_items() -> None:
    model = make_model(return_position=[1, 2], return_event=[0, 0, 0, 4], return_age=[0, 0, 8, 0, 0])
    queries = queries_of([0], [[1, 1]])._replace(
        history_event=tf.constant([[0, 2]], tf.int64),
        history_timestamp_ms=tf.constant([[0, AGES_MS[0]]], tf.int64),
        timestamp_ms=tf.constant([AGES_MS[0]], tf.int64),
    )
    # the newest: 1 + 4 for a purchase; the one before: 2 + 8 for an age of half an hour; 3 for each
    assert model.catalogue_scores(queries).numpy()[0, 1] == pytest.approx(10 + 5 + 10 + 6, rel=1e-5)


def test_return_bonuses_depend_on_the_visit() -> None:
    model = make_model(return_visit=[0, 1, 10, 100, 1000])
    found = model.catalogue_scores(
        views_of([0, 0], [[1, 2], [1, 2]])._replace(
            # now is half an hour and a second after the newest; the other is in the same visit, or in an earlier one
            history_timestamp_ms=tf.constant([[0, 1000], [0, AGES_MS[0]]], tf.int64),
            timestamp_ms=tf.constant([AGES_MS[0] + 1000, 2 * AGES_MS[0]], tf.int64),
        )
    ).numpy()
    plain = scores(make_model(), [1, 2])[0]
    np.testing.assert_allclose(found[0] - plain, [0, 10, 10], atol=1e-4)
    np.testing.assert_allclose(found[1] - plain, [0, 100, 10], atol=1e-4)


def test_events_of_unknown_kind_and_time_have_weights_of_their_own() -> None:
    model = make_model(return_event=[1, 10, 10, 10], return_age=[2, 20, 20, 20, 20], return_visit=[4, 40, 40, 40, 40])
    found, plain = scores(model, [1, 2])[0], scores(make_model(), [1, 2])[0]
    np.testing.assert_allclose(found - plain, [0, 1 + 2 + 4, 1 + 2 + 4], atol=1e-4)


def test_the_hidden_layer_adds_to_all_return_bonuses_of_a_visitor() -> None:
    # the first unit of the layer is 2 for all visitors: gelu(2) = 1.9545
    model = make_model(hidden_bias=[2, 0, 0, 0], return_hidden=[1, 0, 0, 0])
    np.testing.assert_allclose(scores(model, [1])[0], scores(make_model(), [1])[0] + [0, 1.9545, 0], atol=1e-4)


def test_a_frequent_visitor_has_a_vector_in_addition_to_their_history() -> None:
    model, history = make_model(visitors=[[0, 1.5], [0, 0]]), [[1], [1], [1]]
    found = model.catalogue_scores(queries_of([0, 1, 2], history)).numpy()
    # (1.5, 0) of the history plus (0, 1.5): 45 degrees to both axes
    root = np.sqrt(0.5)
    np.testing.assert_allclose(found[0], [14 * root + 0.5, 10 * root + 3, 10 * root - 1], rtol=1e-5)
    for row in (1, 2):  # a zero vector, and a visitor that is not frequent
        np.testing.assert_allclose(found[row], scores(make_model(), [1])[0], rtol=1e-6)


def test_only_the_latest_items_are_used() -> None:
    model = make_model()
    np.testing.assert_array_equal(scores(model, [0, 0, 0, 1, 2]), scores(model, [1, 2]))


def test_an_unknown_item_in_the_history_is_ignored() -> None:
    model = make_model()
    np.testing.assert_allclose(scores(model, [1, 3]), scores(model, [1]), rtol=1e-6)


def test_padding_of_a_history_is_ignored() -> None:
    model = make_model()
    padded = Queries.of_items(
        tf.constant([0, 1], tf.int64), tf.constant([[1, 2, 0], [1, 7, -1]], tf.int64), tf.constant([2, 1], tf.int64)
    )
    np.testing.assert_allclose(
        model.catalogue_scores(padded), np.concatenate([scores(model, [1, 2]), scores(model, [1])]), rtol=1e-6
    )


def test_only_the_history_matters_for_visitors_without_a_vector() -> None:
    model, queries = make_model(), queries_of([0, 12345], [[1, 2], [1, 2]])
    found = model.catalogue_scores(queries).numpy()
    np.testing.assert_array_equal(found[0], found[1])


def test_without_a_known_item_in_the_history_popular_items_are_first() -> None:
    expected = np.tile(np.log1p(COUNTS), (2, 1))
    np.testing.assert_allclose(scores(make_model(), [], [3]), expected, rtol=1e-6)
    np.testing.assert_allclose(scores(make_model(), []), expected[:1], rtol=1e-6)  # histories of width 0
    pairs = make_model().pair_scores(tf.constant([0, 7, 9, 9]), tf.constant([0, 1, 2, 3]))
    np.testing.assert_allclose(pairs, [*expected[0], 0], rtol=1e-6)


def test_the_latest_entries_are_newest_first() -> None:
    queries = views_of([0, 0, 0], [[5, 6, 7], [8], []])._replace(timestamp_ms=tf.constant([1, AGES_MS[1], 0], tf.int64))
    history = latest(queries, size=2, num_items=8)
    np.testing.assert_array_equal(history.is_entry, [[True, True], [False, False], [False, False]])
    np.testing.assert_array_equal(history.item[0], [7, 6])
    assert history.age[1, 0] == 1 + 2


def test_an_age_is_this_visit_today_this_week_or_before() -> None:
    limits = np.array(AGES_MS)
    ages = np.concatenate([[0], limits - 1, limits])
    np.testing.assert_array_equal(age_of(tf.constant(ages)), [0, 0, 1, 2, 1, 2, 3])


def test_the_similarity_of_items_is_the_cosine_of_their_vectors() -> None:
    # the vectors (0.6, 0.8), (1, 0) and (0, 1)
    found = make_model().item_similarities(tf.constant([0, 2]))
    np.testing.assert_allclose(found, [[1, 0.6, 0.8], [0.8, 0, 1]], rtol=1e-6)
