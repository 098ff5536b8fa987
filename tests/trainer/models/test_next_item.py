import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.ranking.fakes import queries_of
from trainer.config import AdagradConfig, SampledSoftmaxConfig, TowersConfig
from trainer.distribution import start_replicas
from trainer.embeddings import ShardedTable
from trainer.input_pipeline import Batch
from trainer.models.next_item import NextItemObjective
from trainer.models.towers import AGES_MS, DenseWeights, Towers, TowersInference, make_dense_variables
from trainer.negative_sampling import NegativeSampler
from trainer.optimizers import row_optimizer

NUM_ITEMS, LENGTH, DIM = 6, 3, 4
COUNTS = np.array([8, 5, 3, 2, 1, 1])


def make_weights(seed: int = 0, config: TowersConfig | None = None) -> tuple[np.ndarray, DenseWeights]:
    """An item table with a bucket behind the six items, and dense weights, none of them zero."""
    config = config or make_config()
    generator = np.random.default_rng(seed)
    shapes = DenseWeights(*(variable.shape for variable in make_dense_variables(config, seed)))
    dense = DenseWeights(*(generator.normal(0, 0.5, shape).astype(np.float32) for shape in shapes))
    return generator.normal(size=(NUM_ITEMS + 1, config.dim + 1)).astype(np.float32), dense


def make_config(dropout: float = 0.0) -> TowersConfig:
    return TowersConfig(dim=DIM, history_length=LENGTH, dropout=dropout, return_bonus=0.0)


def make_objective(
    table: np.ndarray, *, num_drawn: int = 0, dropout: float = 0.0, weights: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> NextItemObjective:
    items = ShardedTable(
        rows=len(table),
        dim=table.shape[1],
        replicas=start_replicas(1, None),
        optimizer=row_optimizer(AdagradConfig()),
    )
    items.values.assign(0, table)
    return NextItemObjective(
        SampledSoftmaxConfig(num_drawn=num_drawn, event_weights=weights),
        {"item": items},
        1,
        Towers(make_config(dropout)),
        NegativeSampler(COUNTS, num_drawn=num_drawn, drawn_power=0.5, seed=0),
        seed=3,
    )


def make_batch(histories: list[list[int]], chosen: list[int], rows: int | None = None) -> Batch:
    """Histories oldest first, every entry a view of this moment."""
    size = len(chosen)
    history, is_history = np.zeros((size, LENGTH), np.int64), np.zeros((size, LENGTH), bool)
    for row, items in enumerate(histories):
        newest = items[::-1][:LENGTH]
        history[row, : len(newest)], is_history[row, : len(newest)] = newest, True
    zeros = tf.zeros([size], tf.int64)
    return Batch(
        visitor=zeros,
        item=tf.constant(chosen, tf.int64),
        event=zeros,
        history=tf.constant(history),
        history_event=tf.zeros([size, LENGTH], tf.int64),
        history_age_ms=tf.zeros([size, LENGTH], tf.int64),
        is_history=tf.constant(is_history),
        is_row=tf.range(size) < (size if rows is None else rows),
    )


def loss_of(objective: NextItemObjective, dense: DenseWeights, batch: Batch, step: int = 0) -> float:
    lookups, inputs = objective.prepare(0, batch, tf.constant(step, tf.int64))
    vectors = {name: lookup.vectors() for name, lookup in lookups.items()}
    return float(objective.loss(vectors, [tf.constant(weight) for weight in dense], inputs))


def scores_of(table: np.ndarray, dense: DenseWeights, histories: list[list[int]]) -> np.ndarray:
    """[rows, I]: what the exported model gives."""
    model = TowersInference(make_config(), item_table=table, dense=dense, num_items=NUM_ITEMS, item_counts=COUNTS)
    scores: np.ndarray = model.catalogue_scores(queries_of([0] * len(histories), histories)).numpy()
    return scores


def test_history_items_compete_with_certainty_and_others_as_often_as_they_are_expected() -> None:
    table, dense = make_weights()
    histories, chosen = [[1, 2], [3]], [0, 4]
    scores = scores_of(table, dense, histories)
    # row 0: items 1 and 2 as they are; item 4 of the other row is expected 1 × 1/20 times, so it stands for 20
    first = np.exp(scores[0, 0]) / (np.exp(scores[0, [0, 1, 2]]).sum() + 20 * np.exp(scores[0, 4]))
    # row 1: item 3 as it is; item 0 of the other row is expected 1 × 8/20 times
    second = np.exp(scores[1, 4]) / (np.exp(scores[1, [4, 3]]).sum() + 20 / 8 * np.exp(scores[1, 0]))
    expected = -(np.log(first) + np.log(second)) / 2
    assert loss_of(make_objective(table), dense, make_batch(histories, chosen)) == pytest.approx(expected, rel=1e-4)


def test_an_item_of_the_history_competes_once_however_often_it_stands_there_or_in_the_batch() -> None:
    table, dense = make_weights()
    histories, chosen = [[1, 1, 2], [3]], [0, 1]
    scores = scores_of(table, dense, histories)
    first = np.exp(scores[0, 0]) / np.exp(scores[0, [0, 1, 2]]).sum()  # the other row's item 1 is in this history
    second = np.exp(scores[1, 1]) / (np.exp(scores[1, [1, 3]]).sum() + 20 / 8 * np.exp(scores[1, 0]))
    expected = -(np.log(first) + np.log(second)) / 2
    assert loss_of(make_objective(table), dense, make_batch(histories, chosen)) == pytest.approx(expected, rel=1e-4)


def test_the_item_chosen_may_be_in_the_history() -> None:
    table, dense = make_weights()
    histories = [[1, 2, 1]]
    scores = scores_of(table, dense, histories)
    expected = -np.log(np.exp(scores[0, 1]) / np.exp(scores[0, [1, 2]]).sum())
    assert loss_of(make_objective(table), dense, make_batch(histories, [1])) == pytest.approx(expected, rel=1e-4)


def test_with_many_draws_the_loss_nears_that_of_the_whole_softmax() -> None:
    table, dense = make_weights()
    histories, chosen = [[1, 2], [3], [5, 0, 4]], [0, 4, 5]
    scores = scores_of(table, dense, histories).astype(np.float64)
    exact = np.mean([np.log(np.exp(row).sum()) - row[item] for row, item in zip(scores, chosen, strict=True)])
    objective, batch = make_objective(table, num_drawn=4000), make_batch(histories, chosen)
    estimate = np.mean([loss_of(objective, dense, batch, step) for step in range(5)])
    assert estimate == pytest.approx(exact, rel=0.02)


def test_rows_without_a_known_item_or_history_and_rows_that_fill_up_neither_count_nor_compete() -> None:
    table, dense = make_weights()
    objective = make_objective(table)
    histories, chosen = [[1, 2], [3]], [0, 4]
    expected = loss_of(objective, dense, make_batch(histories, chosen))
    unknown_item = make_batch([*histories, [1]], [*chosen, NUM_ITEMS])
    unknown_history = make_batch([*histories, [NUM_ITEMS]], [*chosen, 2])
    padding = make_batch([*histories, [1]], [*chosen, 2], rows=2)
    for batch in (unknown_item, unknown_history, padding):
        assert loss_of(objective, dense, batch) == pytest.approx(expected, rel=1e-5)


def test_an_example_counts_by_the_kind_of_its_event() -> None:
    table, dense = make_weights()
    batch = make_batch([[1, 2], [3]], [0, 4])._replace(event=tf.constant([0, 2], tf.int64))
    views, purchases, mixed = (
        loss_of(make_objective(table, weights=weights), dense, batch)
        for weights in ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 3.0))
    )
    assert views != pytest.approx(purchases, rel=0.01)
    assert mixed == pytest.approx((views + 3 * purchases) / 4, rel=1e-5)


def test_dropout_hides_entries_of_the_history_by_step() -> None:
    table, dense = make_weights()
    objective, batch = make_objective(table, dropout=0.5), make_batch([[1, 2], [3]], [0, 4])
    losses = [loss_of(objective, dense, batch, step) for step in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


def test_kinds_and_ages_of_the_history_count() -> None:
    table, dense = make_weights()
    objective, batch = make_objective(table), make_batch([[1, 2], [3]], [0, 4])
    plain = loss_of(objective, dense, batch)
    bought = batch._replace(history_event=tf.fill([2, LENGTH], tf.constant(2, tf.int64)))
    old = batch._replace(history_age_ms=tf.fill([2, LENGTH], tf.constant(AGES_MS[1], tf.int64)))
    assert (
        len({round(loss, 4) for loss in (plain, loss_of(objective, dense, bought), loss_of(objective, dense, old))})
        == 3
    )
