import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.ranking.fakes import queries_of
from trainer.config.losses import SampledSoftmaxConfig
from trainer.config.models import TowersConfig
from trainer.config.optimizers import AdagradConfig
from trainer.data.input_pipeline import Batch
from trainer.data.negative_sampling import NegativeSampler
from trainer.distributed.embeddings import ShardedTable
from trainer.distributed.optimizers import row_optimizer
from trainer.distributed.replicas import start_replicas
from trainer.models.item_features import ItemFeatures
from trainer.models.objectives import Candidates
from trainer.models.towers import (
    AGES_MS,
    DenseWeights,
    NextItemObjective,
    Towers,
    TowersInference,
    make_dense_variables,
)
from trainer.runs.checkpoint import Weights

NUM_ITEMS, LENGTH, DIM = 6, 3, 4
COUNTS = np.array([8, 5, 3, 2, 1, 1])
NO_FEATURES = ItemFeatures(np.zeros((NUM_ITEMS, 0), np.int64), np.zeros((NUM_ITEMS, 0), np.float32), [])


def make_weights(seed: int = 0, config: TowersConfig | None = None) -> tuple[np.ndarray, DenseWeights]:
    """Returns an item table, with a bucket after the six items, and dense weights; all values are nonzero."""
    config = config or make_config()
    generator = np.random.default_rng(seed)
    shapes = DenseWeights(*(variable.shape for variable in make_dense_variables(config, 3, seed)))
    dense = DenseWeights(*(generator.normal(0, 0.5, shape).astype(np.float32) for shape in shapes))
    return generator.normal(size=(NUM_ITEMS + 1, config.dim + 1)).astype(np.float32), dense


def make_config(dropout: float = 0.0, context_dropout: float = 0.0) -> TowersConfig:
    return TowersConfig(
        dim=DIM, history_length=LENGTH, dropout=dropout, context_dropout=context_dropout, return_bonus=0.0
    )


def make_table(values: np.ndarray) -> ShardedTable:
    table = ShardedTable(
        rows=len(values),
        dim=values.shape[1],
        replicas=start_replicas(1, None),
        optimizer=row_optimizer(AdagradConfig()),
    )
    table.values.assign(0, values)
    return table


def make_objective(
    table: np.ndarray,
    *,
    num_negatives: int = 0,
    config: TowersConfig | None = None,
    features: ItemFeatures | None = None,
    others: dict[str, np.ndarray] | None = None,
    max_in_batch_negatives: int = 8192,
) -> NextItemObjective:
    """Builds an objective over the item table and the tables `others`."""
    return NextItemObjective(
        SampledSoftmaxConfig(num_negatives=num_negatives, max_in_batch_negatives=max_in_batch_negatives),
        {name: make_table(values) for name, values in {"item": table, **(others or {})}.items()},
        start_replicas(1, None),
        Towers(config or make_config()),
        NegativeSampler(COUNTS, num_negatives=num_negatives, negative_power=0.5, seed=0),
        features or NO_FEATURES,
        seed=3,
    )


def make_batch(
    histories: list[list[int]], positives: list[int], rows: int | None = None, weight: tuple[float, ...] | None = None
) -> Batch:
    """Builds a batch from histories, oldest entry first. All entries are views at the moment of the request."""
    size = len(positives)
    history, is_history = np.zeros((size, LENGTH), np.int64), np.zeros((size, LENGTH), bool)
    for row, items in enumerate(histories):
        newest = items[::-1][:LENGTH]
        history[row, : len(newest)], is_history[row, : len(newest)] = newest, True
    zeros = tf.zeros([size], tf.int64)
    return Batch(
        visitor=zeros,
        item=tf.constant(positives, tf.int64),
        event=zeros,
        history=tf.constant(history),
        history_event=tf.zeros([size, LENGTH], tf.int64),
        history_age_ms=tf.zeros([size, LENGTH], tf.int64),
        timestamp_ms=zeros,
        weight=tf.constant(weight or [1.0] * size),
        is_history=tf.constant(is_history),
        is_row=tf.range(size) < (size if rows is None else rows),
    )


def loss_of(objective: NextItemObjective, dense: DenseWeights, batch: Batch, step: int = 0) -> float:
    lookups, inputs = objective.prepare(0, batch, tf.constant(step, tf.int64))
    vectors = {name: lookup.vectors() for name, lookup in lookups.items()}
    return float(objective.loss(vectors, [tf.constant(weight) for weight in dense], inputs))


def scores_of(
    table: np.ndarray,
    dense: DenseWeights,
    histories: list[list[int]],
    visitor_vector: np.ndarray | None = None,
    *,
    by_items_alone: bool = False,
) -> np.ndarray:
    """Returns the exported model's scores [rows, I]. All rows have the same visitor, and all entries are views."""
    vectors = [] if visitor_vector is None else [visitor_vector]
    model = TowersInference(
        make_config(), item_rows=lambda _: table.__getitem__, num_frequent=len(vectors), num_kinds=3, item_counts=COUNTS
    )
    model.fill(Weights({"visitor": np.array([*vectors, np.zeros(DIM)], np.float32)}, dense))
    queries = queries_of([0] * len(histories), histories)
    if not by_items_alone:
        queries = queries._replace(history_event=tf.zeros_like(queries.history))
    return np.asarray(model.catalogue_scores(queries))


def test_each_candidate_that_equals_an_item_of_a_row_is_found() -> None:
    scalar = tf.zeros([])
    candidates = Candidates(scalar, None, scalar, tf.constant([4, 1, 4, 7], tf.int64), scalar, scalar)
    found = candidates.find_rows(tf.constant([[4, 4, -1], [7, 1, 3], [-1, -1, 2]], tf.int64))
    expected = [[True, False, True, False], [False, True, False, True], [False] * 4]
    np.testing.assert_array_equal(found, expected)
    assert not candidates.find_rows(tf.constant([[-1]], tf.int64)).numpy().any()


def test_history_items_have_no_correction_and_others_are_corrected_by_their_expected_count() -> None:
    table, dense = make_weights()
    histories, positives = [[1, 2], [3]], [0, 4]
    scores = scores_of(table, dense, histories)
    # row 0: items 1 and 2 without correction; item 4 of the other row has expected count 1 × 1/20, so it represents 20
    first = np.exp(scores[0, 0]) / (np.exp(scores[0, [0, 1, 2]]).sum() + 20 * np.exp(scores[0, 4]))
    # row 1: item 3 without correction; item 0 of the other row has expected count 1 × 8/20
    second = np.exp(scores[1, 4]) / (np.exp(scores[1, [4, 3]]).sum() + 20 / 8 * np.exp(scores[1, 0]))
    expected = -(np.log(first) + np.log(second)) / 2
    assert loss_of(make_objective(table), dense, make_batch(histories, positives)) == pytest.approx(expected, rel=1e-4)


def test_an_item_of_the_history_competes_once_even_if_repeated_or_in_the_batch() -> None:
    table, dense = make_weights()
    histories, positives = [[1, 1, 2], [3]], [0, 1]
    scores = scores_of(table, dense, histories)
    first = np.exp(scores[0, 0]) / np.exp(scores[0, [0, 1, 2]]).sum()  # item 1 of the other row is in this history
    second = np.exp(scores[1, 1]) / (np.exp(scores[1, [1, 3]]).sum() + 20 / 8 * np.exp(scores[1, 0]))
    expected = -(np.log(first) + np.log(second)) / 2
    assert loss_of(make_objective(table), dense, make_batch(histories, positives)) == pytest.approx(expected, rel=1e-4)


def test_the_positive_can_be_in_the_history() -> None:
    table, dense = make_weights()
    histories = [[1, 2, 1]]
    scores = scores_of(table, dense, histories)
    expected = -np.log(np.exp(scores[0, 1]) / np.exp(scores[0, [1, 2]]).sum())
    assert loss_of(make_objective(table), dense, make_batch(histories, [1])) == pytest.approx(expected, rel=1e-4)


def test_with_many_negatives_the_loss_approaches_the_full_softmax() -> None:
    table, dense = make_weights()
    histories, positives = [[1, 2], [3], [5, 0, 4]], [0, 4, 5]
    scores = scores_of(table, dense, histories).astype(np.float64)
    exact = np.mean([np.log(np.exp(row).sum()) - row[item] for row, item in zip(scores, positives, strict=True)])
    objective, batch = make_objective(table, num_negatives=4000), make_batch(histories, positives)
    estimate = np.mean([loss_of(objective, dense, batch, step) for step in range(5)])
    assert estimate == pytest.approx(exact, rel=0.02)


def test_padding_and_rows_without_a_known_item_or_history_neither_have_a_loss_nor_compete() -> None:
    table, dense = make_weights()
    objective = make_objective(table)
    histories, positives = [[1, 2], [3]], [0, 4]
    expected = loss_of(objective, dense, make_batch(histories, positives))
    unknown_item = make_batch([*histories, [1]], [*positives, NUM_ITEMS])
    unknown_history = make_batch([*histories, [NUM_ITEMS]], [*positives, 2])
    padding = make_batch([*histories, [1]], [*positives, 2], rows=2)
    for batch in (unknown_item, unknown_history, padding):
        assert loss_of(objective, dense, batch) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_a_weighted_mean_of_examples() -> None:
    table, dense = make_weights()
    first, second, mixed = (
        loss_of(make_objective(table), dense, make_batch([[1, 2], [3]], [0, 4], weight=weight))
        for weight in ((1.0, 0.0), (0.0, 1.0), (1.0, 3.0))
    )
    assert first != pytest.approx(second, rel=0.01)
    assert mixed == pytest.approx((first + 3 * second) / 4, rel=1e-5)


FEATURES = ItemFeatures(
    np.array([[0, 1], [1, 2], [2, 0], [0, 0], [1, 0], [2, 1]]),
    np.array([[0.7, 0.7], [0.7, 0.7], [1, 0], [0, 0], [1, 0], [0.7, 0.7]], np.float32),
    ["0", "1", "2"],
)
"""Items 0, 1 and 5 have two features, items 2 and 4 one, item 3 none."""


def test_an_item_is_its_own_row_plus_its_content_in_histories_and_candidates() -> None:
    table, dense = make_weights()
    features = np.random.default_rng(1).normal(size=(3, DIM + 1)).astype(np.float32)
    config = TowersConfig(dim=DIM, history_length=LENGTH, dropout=0, id_dropout=0)
    objective = make_objective(table, config=config, features=FEATURES, others={"feature": features})
    whole = table.copy()
    whole[:NUM_ITEMS] += FEATURES.rows(features, slice(NUM_ITEMS))
    batch = make_batch([[1, 2], [3]], [0, 4])
    expected = loss_of(make_objective(whole), dense, batch)
    assert loss_of(objective, dense, batch) == pytest.approx(expected, rel=1e-5)
    assert loss_of(make_objective(table), dense, batch) != pytest.approx(expected, rel=1e-2)


def test_id_dropout_leaves_the_content_and_never_drops_items_without_content() -> None:
    table, dense = make_weights()
    features = np.random.default_rng(1).normal(size=(3, DIM + 1)).astype(np.float32)
    config = TowersConfig(dim=DIM, history_length=LENGTH, dropout=0, id_dropout=1 - 1e-9)
    objective = make_objective(table, config=config, features=FEATURES, others={"feature": features})
    content = np.pad(FEATURES.rows(features, slice(NUM_ITEMS)), ((0, 1), (0, 0)))
    content[3] = table[3]
    batch = make_batch([[1, 2], [3]], [0, 4])
    expected = loss_of(make_objective(content), dense, batch)
    assert loss_of(objective, dense, batch) == pytest.approx(expected, rel=1e-5)


def test_only_frequent_visitors_use_their_vectors() -> None:
    table, dense = make_weights()
    vector = np.array([0.5, -1, 2, 0.3], np.float32)
    config = TowersConfig(dim=DIM, history_length=LENGTH, dropout=0, visitor_dropout=0)
    objective = make_objective(table, config=config, others={"visitor": np.stack([vector, 9 * vector])})
    histories, positives = [[1, 2]], [0]
    batch = make_batch(histories, positives)
    scores = scores_of(table, dense, histories, vector)
    expected = -np.log(np.exp(scores[0, 0]) / np.exp(scores[0, [0, 1, 2]]).sum())
    assert loss_of(objective, dense, batch) == pytest.approx(expected, rel=1e-4)
    others = batch._replace(visitor=tf.constant([7], tf.int64))
    assert loss_of(objective, dense, others) == pytest.approx(loss_of(make_objective(table), dense, batch), rel=1e-5)


def test_dropout_of_history_entries_differs_by_step() -> None:
    table, dense = make_weights()
    objective, batch = make_objective(table, config=make_config(dropout=0.5)), make_batch([[1, 2], [3]], [0, 4])
    losses = [loss_of(objective, dense, batch, step) for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


def test_the_loss_depends_on_kinds_and_ages_of_the_history() -> None:
    table, dense = make_weights()
    objective, batch = make_objective(table), make_batch([[1, 2], [3]], [0, 4])
    plain = loss_of(objective, dense, batch)
    bought = batch._replace(history_event=tf.fill([2, LENGTH], tf.constant(2, tf.int64)))
    old = batch._replace(history_age_ms=tf.fill([2, LENGTH], tf.constant(AGES_MS[1], tf.int64)))
    assert (
        len({round(loss, 4) for loss in (plain, loss_of(objective, dense, bought), loss_of(objective, dense, old))})
        == 3
    )


def test_a_share_of_the_rows_sees_the_history_as_a_request_without_kinds_and_times_does() -> None:
    table, dense = make_weights()
    # without negatives, the loss of a row with weight 1 is that of the positive against its history
    histories, positive = [[1, 2]], 0
    expected = {}
    for by_items_alone in (False, True):
        scores = scores_of(table, dense, histories, by_items_alone=by_items_alone)[0]
        expected[by_items_alone] = -np.log(np.exp(scores[positive]) / np.exp(scores[[0, 1, 2]]).sum())
    objective = make_objective(table, config=make_config(context_dropout=0.25))
    losses = np.array([loss_of(objective, dense, make_batch(histories, [positive]), step) for step in range(200)])
    is_dropped = np.isclose(losses, expected[True], rtol=1e-4)
    np.testing.assert_allclose(losses[~is_dropped], expected[False], rtol=1e-4)
    assert not np.isclose(expected[True], expected[False], rtol=1e-2)
    assert 30 <= is_dropped.sum() <= 70  # of 200 rows with probability 1/4: the mean and three standard deviations


def test_a_positive_that_is_no_candidate_has_the_same_loss() -> None:
    """Rows 0 and 1 of three are candidates (0 · 3 / 2 and 1 · 3 / 2).

    Row 2 has an unknown positive. So the loss is that of a batch of rows 0 and 1.
    """
    table, dense = make_weights()
    histories, positives = [[1, 2], [3, 1, 0], [2]], [2, 4, NUM_ITEMS]  # the last item is not in the vocabulary
    capped = make_objective(table, num_negatives=4, max_in_batch_negatives=2)
    whole = make_objective(table, num_negatives=4)
    expected = loss_of(whole, dense, make_batch(histories[:2], positives[:2]))
    assert loss_of(capped, dense, make_batch(histories, positives)) == pytest.approx(expected, rel=1e-5)
